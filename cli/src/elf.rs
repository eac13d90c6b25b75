//! Whether LD_PRELOAD can reach a program at all.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a program will run on the kernel although it was started by `sidestep run`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// No dynamic loader: a static binary, which most Go programs are.
    Static,
    /// Set-uid or set-gid: the loader ignores LD_PRELOAD.
    Privileged,
    /// For another machine or word size than the library.
    Foreign,
}

impl Unreachable {
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Unreachable::Static => "statically linked (as Go programs are), so LD_PRELOAD does not reach it",
            Unreachable::Privileged => "set-uid or set-gid, so the loader ignores LD_PRELOAD",
            Unreachable::Foreign => "not a 64-bit program of this machine, so libsidestep.so does not fit it",
        }
    }
}

/// Finds `command` as execvp would.
pub(crate) fn find_program(command: &std::ffi::OsStr, path: &std::ffi::OsStr) -> Option<PathBuf> {
    if command.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(command));
    }
    std::env::split_paths(path).map(|dir| dir.join(command)).find(|p| p.is_file())
}

/// Looks at the program, and through one `#!` line.
pub(crate) fn check(program: &Path) -> Option<Unreachable> {
    let head = head(program)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
        let interpreter = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
        let path = PathBuf::from(std::str::from_utf8(interpreter).ok()?);
        return check_elf(&path, &self::head(&path)?);
    }
    check_elf(program, &head)
}

fn head(program: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(program).ok()?.take(64 * 1024).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn check_elf(program: &Path, head: &[u8]) -> Option<Unreachable> {
    if !head.starts_with(b"\x7fELF") {
        return None; // exec will say what it thinks of it
    }
    if std::fs::metadata(program).is_ok_and(|m| m.mode() & 0o6000 != 0 && m.is_file()) {
        return Some(Unreachable::Privileged);
    }
    classify(head)
}

/// The verdict from the program headers; `None`: reachable, or not understood.
fn classify(head: &[u8]) -> Option<Unreachable> {
    const PT_INTERP: u32 = 3;
    let half = |at: usize| head.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    if head.get(4) != Some(&2) || head.get(5) != Some(&1) || half(18)? != machine {
        return Some(Unreachable::Foreign);
    }
    let table = u64::from_le_bytes(head.get(32..40)?.try_into().ok()?);
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    let table = usize::try_from(table).ok()?;
    for i in 0..count {
        let kind = head.get(table.checked_add(i * size)?..)?.get(..4)?;
        if u32::from_le_bytes([kind[0], kind[1], kind[2], kind[3]]) == PT_INTERP {
            return None;
        }
    }
    Some(Unreachable::Static)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_this_machine() {
        let sh = find_program("sh".as_ref(), "/usr/bin:/bin".as_ref()).expect("a shell");
        assert_eq!(check(&sh), None);
        assert_eq!(find_program("no-such-program-here".as_ref(), "/usr/bin:/bin".as_ref()), None);
        assert_eq!(check(Path::new("/nonexistent")), None);
    }

    #[test]
    fn headers() {
        let mut elf = vec![0u8; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        assert_eq!(classify(&elf), Some(Unreachable::Static));
        elf[64] = 3;
        assert_eq!(classify(&elf), None);
        elf[4] = 1;
        assert_eq!(classify(&elf), Some(Unreachable::Foreign));
        // Truncated or contradictory headers are left to exec.
        elf[4] = 2;
        assert_eq!(classify(&elf[..40]), None);
        elf[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(classify(&elf), None);
    }
}
