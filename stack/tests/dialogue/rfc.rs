//! docs/rfc.md cannot rot: every function, test and dialogue it names is there, and no requirement of RFC 9293 is left out.

use crate::script;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// RFC 9293's appendix B: the labels run from 1 without a gap.
const LABELS: [(&str, u32); 4] = [("MUST", 69), ("SHLD", 31), ("MAY", 18), ("REC", 1)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page() -> String {
    fs::read_to_string(root().join("docs/rfc.md")).expect("docs/rfc.md")
}

/// A row of one of the page's tables.
struct Row {
    number: usize,
    cells: Vec<String>,
}

fn rows(page: &str) -> Vec<Row> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect();
    let numbered = page.lines().enumerate().filter(|(_, line)| line.starts_with("| ") && !line.contains("| asks |"));
    numbered.map(|(at, line)| Row { number: at + 1, cells: cells(line) }).collect()
}

/// What stands in backticks.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The names that sources define: functions and types of Rust and Python, cases of ctests/.
fn defined() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo: Vec<PathBuf> = ["stack", "preload", "cli", "rig", "xdp-prog", "tests", "ctests"]
        .iter()
        .map(|part| root().join(part))
        .collect();
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(&at).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            match path.extension().and_then(|e| e.to_str()) {
                _ if path.is_dir() && !path.ends_with("target") => todo.push(path),
                Some("rs" | "py" | "c") => note_definitions(&fs::read_to_string(&path).unwrap_or_default(), &mut found),
                _ => {}
            }
        }
    }
    found
}

fn note_definitions(source: &str, found: &mut BTreeSet<String>) {
    for line in source.lines() {
        found.extend(line.strip_prefix("CASE(").and_then(|rest| rest.split(',').next()).map(str::to_string));
        let mut words = line.split_whitespace().skip_while(|word| !["fn", "struct", "enum", "def"].contains(word));
        if let (Some(_), Some(name)) = (words.next(), words.next()) {
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            found.insert(name[..end].to_string());
        }
    }
}

#[test]
fn everything_the_page_names_is_there() {
    let defined = defined();
    let dialogues: BTreeSet<String> = script::files().iter().map(|path| script::name_of(path)).collect();
    let mut missing = Vec::new();
    for Row { number, cells } in rows(&page()) {
        let [_, _, code, shown, status] = &cells[..] else {
            missing.push(format!("line {number}: {} cells", cells.len()));
            continue;
        };
        for name in names(code).chain(names(shown)).chain(names(status)) {
            let is_there = if name.contains('/') { dialogues.contains(name) } else { defined.contains(name) };
            if !is_there {
                missing.push(format!("line {number}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/rfc.md names what is not there:\n{}", missing.join("\n"));
}

#[test]
fn the_page_of_limits_names_tests_that_are_there() {
    let defined = defined();
    let limits = fs::read_to_string(root().join("docs/limits.md")).expect("docs/limits.md");
    let tests = rows(&limits).into_iter().flat_map(|row| row.cells.last().cloned());
    let missing: Vec<String> = tests
        .flat_map(|cell| names(&cell).map(str::to_string).collect::<Vec<_>>())
        .filter(|name| !defined.contains(name))
        .collect();
    assert!(missing.is_empty(), "docs/limits.md names what is not there: {missing:?}");
}

#[test]
fn every_requirement_is_listed_once_and_has_a_status() {
    let page = page();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for Row { number, cells } in rows(&page) {
        let (label, status) = (cells[0].clone(), cells.last().expect("a row has cells"));
        let (word, why) = status.split_once(": ").unwrap_or((status, ""));
        let is_told = match word {
            "done" => cells[2..4].iter().any(|cell| cell.contains('`')) || !why.is_empty(),
            "deviates" | "absent" => !why.is_empty(),
            _ => false,
        };
        assert!(
            is_told,
            "line {number}: {status}: done (with code, a test or a reason), or deviates or absent and why"
        );
        *seen.entry(label).or_default() += 1;
    }
    for (word, last) in LABELS {
        for n in 1..=last {
            let label = format!("{word}-{n}");
            assert_eq!(seen.get(&label), Some(&1), "{label} of RFC 9293 stands once on the page");
        }
    }
}
