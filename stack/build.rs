//! Names the build. Processes share memory in which everything lies as this compiler lays out these sources, and no other build does:
//! `arena/layout.rs` mixes the name into the layout's version.

use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts by the environment")]
fn main() {
    println!("cargo::rerun-if-changed=src");
    let mut sources = Vec::new();
    list(Path::new("src"), &mut sources);
    sources.sort();
    let mut name = DefaultHasher::new();
    for source in &sources {
        name.write(&fs::read(source).expect("a source can be read"));
    }
    let compiler = Command::new(env::var_os("RUSTC").expect("cargo names the compiler")).arg("-vV").output();
    name.write(&compiler.expect("the compiler says its version").stdout);
    println!("cargo::rustc-env=SIDESTEP_BUILD={:016x}", name.finish());
}

fn list(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources can be read") {
        let path = entry.expect("it can be read to its end").path();
        if path.is_dir() {
            list(&path, into);
        } else {
            into.push(path);
        }
    }
}
