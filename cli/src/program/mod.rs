//! Whether a program that `sidestep run` is to start can be reached by LD_PRELOAD, and calls a libc that the library stands in for.
//!
//! - this file: which file is executed in the end (PATH, `#!`), and whether it gains privileges by that;
//! - [`elf`]: what the file itself says.

mod elf;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// As many `#!` as the kernel follows.
const SCRIPTS_MAX: usize = 4;
/// As much of a first line as the kernel reads.
const LINE_MAX: usize = 256;

/// Why a program will run on the kernel although it was started by `sidestep run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// No dynamic loader, or nothing for it to load.
    Static,
    /// Its runtime makes its own system calls, also when it is linked dynamically.
    Go,
    /// A dynamic loader that is not glibc's.
    OtherLibc,
    /// It gains privileges by being executed (set-uid, set-gid, file capabilities): the loader ignores LD_PRELOAD.
    Privileged,
    /// For another machine or word size than the library.
    Foreign,
}

impl Unreachable {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Unreachable::Static => "statically linked, so LD_PRELOAD does not reach it",
            Unreachable::Go => "a Go program, which makes its system calls without libc",
            Unreachable::OtherLibc => {
                "linked against another libc than glibc (musl, perhaps), so libsidestep.so does not fit it"
            }
            Unreachable::Privileged => "set-uid, set-gid or has file capabilities, so the loader ignores LD_PRELOAD",
            Unreachable::Foreign => "not a 64-bit program of this machine, so libsidestep.so does not fit it",
        }
    }
}

/// Finds `command` as execvp would.
pub(crate) fn find(command: &OsStr, path: &OsStr) -> Option<PathBuf> {
    if command.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(command));
    }
    std::env::split_paths(path).map(|dir| dir.join(command)).find(|p| p.is_file())
}

/// The verdict on the file that is executed in the end. `None`: reachable, or not understood, and exec will say what it
/// thinks of it.
pub(crate) fn check(program: &Path, path: &OsStr) -> Option<Unreachable> {
    let mut program = program.to_owned();
    for _ in 0..=SCRIPTS_MAX {
        let file = File::open(&program).ok()?;
        match interpreter(&elf::read(&file, 0, LINE_MAX)?, path) {
            Some(next) => program = next,
            None => {
                return gains_privileges(&program, &file)
                    .then_some(Unreachable::Privileged)
                    .or_else(|| elf::check(&file));
            }
        }
    }
    None
}

/// Who runs a script; behind env(1), whom that runs.
fn interpreter(head: &[u8], path: &OsStr) -> Option<PathBuf> {
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(OsStr::from_bytes);
    let interpreter = PathBuf::from(words.next()?);
    if interpreter.file_name() != Some(OsStr::new("env")) {
        return Some(interpreter);
    }
    let is_name = |word: &&OsStr| !word.as_bytes().starts_with(b"-") && !word.as_bytes().contains(&b'=');
    words.find(is_name).and_then(|name| find(name, path)).or(Some(interpreter))
}

/// Whether executing the file is "secure" in the loader's sense (ld.so(8)): the ids change, or somebody who is not root gets
/// capabilities.
fn gains_privileges(program: &Path, file: &File) -> bool {
    const SET_GID_AND_EXECUTABLE: u32 = 0o2010;
    let Ok(facts) = file.metadata() else { return false };
    if !facts.is_file() {
        return false;
    }
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let sets_uid = facts.mode() & 0o4000 != 0 && facts.uid() != uid.as_raw();
    let sets_gid = facts.mode() & SET_GID_AND_EXECUTABLE == SET_GID_AND_EXECUTABLE && facts.gid() != gid.as_raw();
    sets_uid || sets_gid || !uid.is_root() && has_capabilities(program)
}

fn has_capabilities(program: &Path) -> bool {
    let mut name = OsString::from(program).into_encoded_bytes();
    name.push(0);
    // SAFETY: two strings that end with a zero, at the latest, and no buffer: only the length is asked for.
    unsafe { libc::getxattr(name.as_ptr().cast(), c"security.capability".as_ptr(), core::ptr::null_mut(), 0) > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const PATH: &str = "/usr/bin:/bin";

    /// A directory of this test's own.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("sidestep-program-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a directory");
            Folder(folder)
        }

        fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let file = self.0.join(name);
            std::fs::write(&file, bytes).expect("a file");
            file
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn programs_of_this_machine() {
        let sh = find("sh".as_ref(), PATH.as_ref()).expect("a shell");
        assert_eq!(check(&sh, PATH.as_ref()), None);
        assert_eq!(find("no-such-program-here".as_ref(), PATH.as_ref()), None);
        assert_eq!(check(Path::new("/nonexistent"), PATH.as_ref()), None);
    }

    #[test]
    fn scripts_are_followed_to_the_program() {
        let folder = Folder::new("scripts");
        let program = folder.write("static", &elf::tests::Sample::default().build());
        let script = |name: &str, line: &str| folder.write(name, format!("#!{line}\nexit\n").as_bytes());
        let check = |file: &Path| check(file, folder.0.as_os_str());
        assert_eq!(check(&program), Some(Unreachable::Static));
        let one = script("one", &format!(" {} -x", program.display()));
        assert_eq!(check(&one), Some(Unreachable::Static));
        let two = script("two", one.to_str().expect("a name"));
        assert_eq!(check(&two), Some(Unreachable::Static));
        assert_eq!(check(&script("env", "/usr/bin/env -S A=1 static")), Some(Unreachable::Static));
        assert_eq!(check(&script("sh", "/bin/sh")), None);
        // Without an end, and with nobody to run it.
        let itself = folder.0.join("itself");
        script("itself", itself.to_str().expect("a name"));
        assert_eq!(check(&itself), None);
        assert_eq!(check(&folder.write("empty", b"#!")), None);
        assert_eq!(check(&folder.write("text", b"echo hello\n")), None);
    }

    #[test]
    fn privileges_are_seen() {
        let folder = Folder::new("privileges");
        let bytes =
            elf::tests::Sample { interpreter: Some(elf::GLIBC_LOADER), needs: true, ..Default::default() }.build();
        let program = folder.write("program", &bytes);
        let check = || check(&program, PATH.as_ref());
        let set_mode = |mode| std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).expect("the mode");
        assert_eq!(check(), None);
        // Its own owner gains nothing by it.
        set_mode(0o4755);
        assert_eq!(check(), None);
        if !nix::unistd::getuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(&program, Some(65534), Some(65534)).expect("another owner");
        for (mode, verdict) in [
            (0o755, None),
            (0o4755, Some(Unreachable::Privileged)),
            (0o2755, Some(Unreachable::Privileged)),
            (0o2745, None),
        ] {
            set_mode(mode);
            assert_eq!(check(), verdict, "{mode:o}");
        }
    }
}
