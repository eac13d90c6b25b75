//! What has to be undone after a daemon that was killed: a small file beside its socket.

use super::sysctl::{PortSet, block_ports};
use crate::failure::{Context, Outcome};
use sidestep_stack::runtime::control::{RUN_DIR, netns_inode};
use std::path::PathBuf;

/// The directory of this network namespace.
pub(crate) fn directory() -> Outcome<PathBuf> {
    let inode = netns_inode().context("cannot tell the network namespace")?;
    Ok(PathBuf::from(format!("{RUN_DIR}/{inode}")))
}

pub(crate) fn socket_path(device: &str) -> Outcome<PathBuf> {
    Ok(directory()?.join(format!("{device}.sock")))
}

fn state_path(device: &str) -> Outcome<PathBuf> {
    Ok(directory()?.join(format!("{device}.state")))
}

/// Devices that have, or had, a daemon in this namespace.
pub(crate) fn devices() -> Vec<String> {
    let Ok(entries) = directory().and_then(|d| std::fs::read_dir(d).context("")) else { return Vec::new() };
    let name = |e: std::fs::DirEntry| e.file_name().to_str()?.strip_suffix(".sock").map(str::to_owned);
    let mut names: Vec<String> = entries.filter_map(Result::ok).filter_map(name).collect();
    // Inode numbers are used again: files of a namespace that is no more may lie where ours would.
    names.retain(|n| nix::net::if_::if_nametoindex(n.as_str()).is_ok());
    names.sort();
    names
}

/// Writes down which blocks of ports were reserved, and by whom.
pub(crate) fn save(device: &str, blocks: &[u8]) -> Outcome<()> {
    let text = format!("pid {}\nreserved {}\n", std::process::id(), to_text(blocks));
    std::fs::write(state_path(device)?, text).context("cannot write below /run/sidestep")
}

fn to_text(blocks: &[u8]) -> String {
    let mut set = PortSet::default();
    blocks.iter().for_each(|b| set.add(block_ports(*b)));
    set.to_text()
}

/// The blocks that a daemon of before had reserved.
pub(crate) fn saved_blocks(device: &str) -> Vec<u8> {
    let text = state_path(device).ok().and_then(|p| std::fs::read_to_string(p).ok()).unwrap_or_default();
    blocks_in(&text)
}

fn blocks_in(text: &str) -> Vec<u8> {
    let Some(reserved) = text.lines().find_map(|l| l.strip_prefix("reserved ")) else { return Vec::new() };
    let whole = PortSet::parse(reserved);
    (0..=255u8).filter(|b| whole.ranges().iter().any(|r| r.contains(block_ports(*b).start()))).collect()
}

/// Removes socket and state, and the directory when it was the last.
pub(crate) fn remove(device: &str) {
    for path in [socket_path(device), state_path(device)].into_iter().flatten() {
        let _ = std::fs::remove_file(path);
    }
    if let Ok(dir) = directory() {
        let _ = std::fs::remove_dir(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_survive_the_file() {
        let blocks = vec![200, 236, 237, 255];
        let text = format!("pid 1\nreserved {}\n", to_text(&blocks));
        assert_eq!(blocks_in(&text), blocks);
        assert!(blocks_in("").is_empty());
        assert!(blocks_in("reserved \n").is_empty());
    }
}
