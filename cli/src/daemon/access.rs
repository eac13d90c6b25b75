//! Who may use a device: root, the daemon's own user, and whom `--allow` names.

use crate::failure::{Context, Outcome, fail};
use nix::unistd::{Group, User, geteuid};
use std::os::fd::RawFd;

/// Who is at the other end of a control connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    groups: Vec<u32>,
}

impl Peer {
    /// Asks the kernel, which knows since connect().
    pub(crate) fn of(socket: RawFd) -> std::io::Result<Peer> {
        let mut cred = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut len = size_of::<libc::ucred>() as u32;
        // SAFETY: `cred` is writable for `len` bytes.
        let done = unsafe {
            libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut cred).cast(), &raw mut len)
        };
        if done != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let mut groups = vec![0u32; 256];
        let mut len = size_of_val(groups.as_slice()) as u32;
        // SAFETY: `groups` is writable for `len` bytes.
        let done = unsafe {
            libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut len)
        };
        groups.truncate(if done == 0 { len as usize / 4 } else { 0 });
        groups.push(cred.gid);
        Ok(Peer { pid: cred.pid, uid: cred.uid, groups })
    }

    /// Whether its number means the same process to it and to us. Processes are told apart by their numbers, and a forked child
    /// says its own.
    pub(crate) fn shares_our_pids(&self) -> bool {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let (its, ours) = (namespace(&self.pid.to_string()), namespace("self"));
        // One that cannot be looked at has ended, or there is no /proc.
        self.pid != 0 && (its == ours || its.is_none())
    }
}

/// The rule of one daemon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Access {
    /// Reads the names that `--allow` gave: users, or groups with a leading `@`; numbers too.
    pub(crate) fn parse(names: &[String]) -> Outcome<Access> {
        let mut access = Access { users: vec![0, geteuid().as_raw()], groups: Vec::new() };
        for name in names {
            if let Some(name) = name.strip_prefix('@') {
                let found = Group::from_name(name).context(format!("cannot look up group {name}"))?;
                match found.map(|g| g.gid.as_raw()).or_else(|| name.parse().ok()) {
                    Some(gid) => access.groups.push(gid),
                    None => fail!("--allow: there is no group {name:?}"),
                }
                continue;
            }
            let found = User::from_name(name).context(format!("cannot look up user {name}"))?;
            match found.map(|u| u.uid.as_raw()).or_else(|| name.parse().ok()) {
                Some(uid) => access.users.push(uid),
                None => fail!("--allow: there is no user {name:?} (a group is written @{name})"),
            }
        }
        Ok(access)
    }

    /// Whether the peer may attach.
    pub(crate) fn may_attach(&self, peer: &Peer) -> bool {
        self.users.contains(&peer.uid) || peer.groups.iter().any(|g| self.groups.contains(g))
    }

    /// Whether it may change what others get.
    pub(crate) fn may_administer(&self, peer: &Peer) -> bool {
        peer.uid == 0 || peer.uid == geteuid().as_raw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let access = Access::parse(&["nobody".into(), "@daemon".into(), "12345".into()]).unwrap();
        let peer = |uid, groups: &[u32]| Peer { pid: 1, uid, groups: groups.to_vec() };
        let daemon = Group::from_name("daemon").unwrap().unwrap().gid.as_raw();
        assert!(access.may_attach(&peer(0, &[0])));
        assert!(access.may_attach(&peer(12345, &[9])));
        assert!(access.may_attach(&peer(4242, &[9, daemon])));
        assert!(!access.may_attach(&peer(4242, &[9])));
        assert!(!access.may_administer(&peer(12345, &[0])));
        assert!(Access::parse(&["no such user".into()]).unwrap_err().to_string().contains("no user"));
        assert!(Access::parse(&["@no such group".into()]).unwrap_err().to_string().contains("no group"));
    }

    #[test]
    fn the_kernel_knows_the_peer() {
        use std::os::fd::AsRawFd;
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = Peer::of(a.as_raw_fd()).unwrap();
        assert_eq!(peer.pid as u32, std::process::id());
        assert!(peer.shares_our_pids());
        assert!(!Peer { pid: 0, ..peer.clone() }.shares_our_pids());
        assert_eq!(peer.uid, geteuid().as_raw());
    }
}
