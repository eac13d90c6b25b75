//! The built library, from outside: what it exports, and that programs do not notice it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The library. `cargo test` alone does not build it: an integration test cannot link a cdylib.
fn library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let exe = std::env::current_exe().unwrap();
        let profile = exe.parent().and_then(Path::parent).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "sidestep-preload"]).env("CARGO_TARGET_DIR", profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "cargo build -p sidestep-preload");
        profile.join("libsidestep.so")
    };
    BUILT.get_or_init(build).clone()
}

/// The calls of the table in src/symbols.rs.
fn table() -> BTreeSet<String> {
    let source = include_str!("../src/symbols.rs");
    let body = source.split("symbols! {").nth(1).unwrap().split("\n}").next().unwrap();
    let plain = |l: &str| l.trim().strip_prefix("fn ").and_then(|l| l.split('(').next()).map(str::to_owned);
    let elsewhere = |l: &str| l.trim().strip_prefix("elsewhere ").map(|l| l.trim_end_matches(';').to_owned());
    body.lines().filter_map(|l| plain(l).or_else(|| elsewhere(l))).collect()
}

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../include/sidestep.h");

/// The functions of include/sidestep.h.
fn header_functions() -> BTreeSet<String> {
    let header = std::fs::read_to_string(HEADER).unwrap();
    let name = |l: &str| l.split('(').next()?.rsplit([' ', '*']).next().map(str::to_owned);
    header.lines().filter_map(|l| l.strip_prefix("SIDESTEP_API ")).filter_map(name).collect()
}

fn preloaded(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("LD_PRELOAD", library());
    command.env_remove("SIDESTEP_DEV").env_remove("SIDESTEP_STRICT").env_remove("SIDESTEP_WARNED");
    command
}

fn text(output: &Output) -> (String, String) {
    let utf8 = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (utf8(&output.stdout), utf8(&output.stderr))
}

#[test]
fn exports_the_table_and_nothing_else() {
    let nm = Command::new("nm").args(["-D", "--defined-only"]).arg(library()).output().unwrap();
    let exported: BTreeSet<String> =
        text(&nm).0.lines().filter_map(|l| l.split_whitespace().nth(2)).map(str::to_owned).collect();
    let mut expected = table();
    assert!(expected.len() > 50, "the table was not found in the source");
    expected.insert("sidestep_calls".to_owned());
    expected.extend(header_functions());
    let leaving = ["longjmp", "siglongjmp", "_longjmp", "__longjmp_chk", "pthread_exit", "pthread_cancel"];
    expected.extend(leaving.map(str::to_owned));
    assert_eq!(exported, expected);
}

#[test]
fn exports_nothing_that_libc_does_not_have() {
    let libc = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6"];
    let Some(libc) = libc.iter().find(|p| std::path::Path::new(p).exists()) else { return };
    let nm = Command::new("nm").args(["-D", "--defined-only", libc]).output().unwrap();
    let names: BTreeSet<String> = text(&nm)
        .0
        .lines()
        .filter_map(|l| l.split_whitespace().nth(2))
        .map(|n| n.split('@').next().unwrap_or(n).to_owned())
        .collect();
    let unknown: Vec<_> = table().into_iter().filter(|n| !names.contains(n)).collect();
    assert!(unknown.is_empty(), "not in libc: {unknown:?}");
}

/// What `sidestep calls` prints.
#[test]
fn tells_its_table() {
    let script = "import ctypes, sys\nf = ctypes.CDLL(sys.argv[1]).sidestep_calls\nf.restype = ctypes.c_char_p\nprint(f().decode(), end='')";
    let Ok(output) = Command::new("python3").args(["-c", script]).arg(library()).output() else { return };
    let told: BTreeSet<String> = text(&output).0.lines().map(str::to_owned).collect();
    assert_eq!(told, table());
}

#[test]
fn the_header_is_c_and_cpp() {
    for (compiler, language, standard) in [("cc", "c", "-std=c99"), ("c++", "c++", "-std=c++11")] {
        let flags =
            ["-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-DSIDESTEP_WEAK", standard, "-x", language];
        let Ok(output) = Command::new(compiler).args(flags).arg(HEADER).output() else { continue };
        assert!(output.status.success(), "{compiler}: {output:?}");
    }
}

/// libc's other public names for what is in the table are in it too.
#[test]
fn no_alias_is_missing() {
    let libc = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6"];
    let Some(libc) = libc.iter().find(|p| std::path::Path::new(p).exists()) else { return };
    let nm = text(&Command::new("nm").args(["-D", "--defined-only", libc]).output().unwrap()).0;
    let symbols: Vec<(&str, &str)> = nm
        .lines()
        .filter(|l| !l.ends_with("GLIBC_PRIVATE"))
        .filter_map(|l| Some((l.split(' ').next()?, l.rsplit(' ').next()?.split('@').next()?)))
        .collect();
    let table = table();
    let ours: BTreeSet<&str> = symbols.iter().filter(|(_, name)| table.contains(*name)).map(|(at, _)| *at).collect();
    let missing: Vec<_> = symbols.iter().filter(|(at, name)| ours.contains(at) && !table.contains(*name)).collect();
    assert!(ours.len() > 50 && missing.is_empty(), "{missing:?}");
}

#[test]
fn is_silent_and_harmless_without_a_device() {
    for (program, args, out) in
        [("/bin/true", &[][..], ""), ("/bin/bash", &["-c", "echo a; (echo b); echo c | cat"][..], "a\nb\nc\n")]
    {
        let output = preloaded(program, args).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        assert_eq!(text(&output), (out.to_owned(), String::new()), "{program}");
    }
}

#[test]
fn says_once_in_a_process_tree_that_the_daemon_is_missing() {
    let mut command = preloaded("/bin/bash", &["-c", "/bin/true; /bin/true; echo done"]);
    let (out, err) = text(&command.env("SIDESTEP_DEV", "none0").output().unwrap());
    assert_eq!(out, "done\n");
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.starts_with("sidestep: running on the kernel: no daemon"), "{err}");
}

#[test]
fn strict_ends_the_program_instead() {
    let mut command = preloaded("/bin/echo", &["not reached"]);
    let output = command.env("SIDESTEP_DEV", "none0").env("SIDESTEP_STRICT", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).0.is_empty());
}

/// A client and a server over loopback, with the kernel behind every call.
#[test]
fn a_program_with_sockets_works_as_before() {
    let script = r#"
import socket, select, os, threading
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
def serve():
    c, _ = s.accept()
    c.sendall(c.recv(100)); c.close()
t = threading.Thread(target=serve); t.start()
c = socket.create_connection(s.getsockname())
c.sendall(b"hello")
p = select.poll(); p.register(c, select.POLLIN); p.poll()
e = select.epoll(); e.register(c.fileno(), select.EPOLLIN); assert e.poll(1)
assert select.select([c], [], [], 1)[0]
print(c.recv(100).decode()); t.join()
pid = os.fork()
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
"#;
    let Ok(output) = preloaded("python3", &["-c", script]).output() else { return };
    assert_eq!(text(&output), ("hello\n".to_owned(), String::new()));
}

#[test]
fn locks_are_those_that_handlers_respect() {
    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() { sources(&entry, found) } else { found.push(entry) }
        }
    }
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20);
    for path in found.iter().filter(|p| !p.ends_with("critical.rs")) {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.contains("parking_lot::"), "{}: a handler can meet this lock half-taken", path.display());
    }
}
