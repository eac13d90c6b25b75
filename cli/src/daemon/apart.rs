//! Ports on which several programs listen, each at an address of its own.
//!
//! In the kernel that is nothing special. But flows are steered by port, so no stack can have one that another program serves as
//! well: then the kernel serves all of it, each address to its own program. A stack tells of it when a SYN comes that it has no
//! listener for (stack: `engine/strays.rs`).

use super::ports::name_of;
use super::steering::Port;
use super::{Daemon, kernel_sockets, locks};
use kernel_sockets::KernelSocket;
use sidestep_stack::addr::{Endpoint, Ip};
use sidestep_stack::arena::Proto;
use sidestep_stack::runtime::now;
use std::collections::HashSet;

impl Daemon {
    /// A SYN came to a stack that serves the port, but not at this address: perhaps somebody else does.
    pub(super) fn look_who_listens(&mut self, stack: u32, local: Endpoint) {
        let port = (Proto::Tcp as u8, local.port);
        if !self.steering.members(port).contains(&stack) {
            return;
        }
        let sockets = kernel_sockets::tcp();
        let Some(live) = self.stacks.get(&stack) else { return };
        let Some(mut guard) = locks::lock(&live.stack) else { return };
        let is_anothers = |s: &&KernelSocket| covers(s, local) && !guard.listens_at(Endpoint::new(s.local, s.port));
        let Some(other) = sockets.iter().find(is_anothers) else {
            guard.note_nobody(now(), local);
            return;
        };
        drop(guard);
        super::log(format_args!(
            "port {}: another program listens at {}; the kernel serves it",
            name_of(port),
            other.local
        ));
        self.apart.insert(port);
        for member in self.steering.members(port).to_vec() {
            let done = self.leave(port, member);
            self.tell(done);
        }
    }

    /// A stack joined the port's group: what the others were told of who listens may not be true any more.
    pub(super) fn forget_who_listens(&self, port: Port) {
        for member in self.steering.members(port) {
            if let Some(mut guard) = self.stacks.get(member).and_then(|live| locks::lock(&live.stack)) {
                guard.forget_nobody(port.1);
            }
        }
    }

    /// Whether a stack may not serve the port, because several programs do.
    pub(super) fn is_apart(&mut self, port: Port) -> bool {
        if self.apart.contains(&port) && endpoints(&kernel_sockets::tcp(), port.1) < 2 {
            self.apart.remove(&port);
        }
        self.apart.contains(&port)
    }
}

/// Whether what comes to this address and port would be the listener's.
fn covers(socket: &KernelSocket, local: Endpoint) -> bool {
    let is_wildcard = socket.local == Ip::UNSPECIFIED || socket.local == Ip::UNSPECIFIED_V4 && local.ip.is_v4();
    socket.is_listener && socket.port == local.port && (socket.local == local.ip || is_wildcard)
}

/// At how many addresses the kernel listens on a port.
fn endpoints(sockets: &[KernelSocket], port: u16) -> usize {
    let listeners = sockets.iter().filter(|s| s.is_listener && s.port == port && !s.local.is_loopback());
    listeners.map(|s| s.local.0).collect::<HashSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_covered() {
        let at = |local| KernelSocket { local, port: 80, is_listener: true, is_time_wait: false };
        let (a, b) = (Ip::v4([10, 0, 0, 1]), Ip::v4([10, 0, 0, 2]));
        let six = Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(covers(&at(a), Endpoint::new(a, 80)) && !covers(&at(a), Endpoint::new(b, 80)));
        assert!(!covers(&at(a), Endpoint::new(a, 81)));
        assert!(
            covers(&at(Ip::UNSPECIFIED_V4), Endpoint::new(b, 80))
                && !covers(&at(Ip::UNSPECIFIED_V4), Endpoint::new(six, 80))
        );
        assert!(
            covers(&at(Ip::UNSPECIFIED), Endpoint::new(b, 80)) && covers(&at(Ip::UNSPECIFIED), Endpoint::new(six, 80))
        );
        let connection = KernelSocket { is_listener: false, ..at(a) };
        assert!(!covers(&connection, Endpoint::new(a, 80)));
        assert_eq!(endpoints(&[at(a), at(a), at(b), connection, at(Ip::v4([127, 0, 0, 1]))], 80), 2);
    }
}
