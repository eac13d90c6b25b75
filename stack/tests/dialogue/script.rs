//! Script files: where they are, and which cases a file holds. README.md has the grammar.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A line with something on it, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) file: Rc<str>,
    pub(crate) number: usize,
    pub(crate) text: String,
}

/// One run: a file's head, the prelude of a state, the lines of its section.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Lines before the section: what `expect drop` and `expect counter` do not count.
    pub(crate) prelude: Vec<Line>,
    pub(crate) body: Vec<Line>,
}

pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogue/scripts")
}

/// All script files but the preludes, sorted.
pub(crate) fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![directory()];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(&at).expect("the directory of scripts") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("preludes") {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "script") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The file's name as reports and docs/rfc.md say it: `states/rst_exact`.
pub(crate) fn name_of(path: &Path) -> String {
    let inside = path.strip_prefix(directory()).unwrap_or(path).with_extension("");
    inside.to_string_lossy().into_owned()
}

pub(crate) fn cases_of(path: &Path) -> Result<Vec<Case>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    cases_in(&name_of(path), &text)
}

/// The cases of a script: one for each state a section names, or one for a file without sections.
pub(crate) fn cases_in(name: &str, text: &str) -> Result<Vec<Case>, String> {
    let mut head = Vec::new();
    let mut sections: Vec<(Vec<String>, Vec<Line>)> = Vec::new();
    for line in lines_of(name, text) {
        match (line.text.strip_prefix("in "), sections.last_mut()) {
            (Some(states), _) => sections.push((states.split_whitespace().map(String::from).collect(), Vec::new())),
            (None, Some((_, body))) => body.push(line),
            (None, None) => head.push(line),
        }
    }
    if sections.is_empty() {
        let body = with_preludes(head)?;
        return Ok(vec![Case { name: name.into(), prelude: Vec::new(), body }]);
    }
    let mut cases: Vec<Case> = Vec::new();
    for (states, body) in sections {
        for state in states {
            let mut prelude = head.clone();
            prelude.push(Line { file: name.into(), number: 0, text: format!("use {state}") });
            let name = format!("{name}:{state}");
            if body.is_empty() || cases.iter().any(|case| case.name == name) {
                return Err(format!("{name}: an empty section, or a second one for the same state"));
            }
            cases.push(Case { name, prelude: with_preludes(prelude)?, body: body.clone() });
        }
    }
    Ok(cases)
}

fn lines_of(name: &str, text: &str) -> Vec<Line> {
    let file: Rc<str> = name.into();
    let numbered = text.lines().map(|l| l.split('#').next().unwrap_or("").trim()).enumerate();
    numbered
        .filter(|(_, text)| !text.is_empty())
        .map(|(at, text)| Line { file: Rc::clone(&file), number: at + 1, text: text.into() })
        .collect()
}

/// `use NAME` becomes the lines of that prelude, which may use others.
fn with_preludes(lines: Vec<Line>) -> Result<Vec<Line>, String> {
    let mut out = Vec::new();
    for line in lines {
        let Some(name) = line.text.strip_prefix("use ") else {
            out.push(line);
            continue;
        };
        let path = directory().join("preludes").join(format!("{}.script", name.trim()));
        let text = fs::read_to_string(&path).map_err(|e| format!("{}:{}: {name}: {e}", line.file, line.number))?;
        out.extend(with_preludes(lines_of(&format!("preludes/{}", name.trim()), &text))?);
    }
    Ok(out)
}
