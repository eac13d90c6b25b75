//! Sockets, in the words of POSIX. Nothing here knows a sequence number.
//!
//! All calls are methods of [`Engine`](crate::engine::Engine); each returns what the system call would, with Linux's
//! error numbers. None of them blocks: [`Errno::EAGAIN`] and [`Errno::EINPROGRESS`] mean "wait, then ask again".
//! - `table.rs`: what a socket is, who holds it, how it goes; `unconnected.rs`: what it has besides until a connection
//!   speaks for it;
//! - `stream.rs`: connect, send, receive, shutdown; `datagram.rs`: the same without connections;
//! - `listener.rs`: listen and accept; `syn_queue.rs`: who gets in; `fast_open.rs`: data on the SYN;
//! - `attendance.rs`: whether anybody waits to accept;
//! - `ports.rs`: local ports for connect; `options.rs`: get and set;
//! - [`readiness`]: what poll would say, as Linux's `tcp_poll` computes it; `epoll.rs`: sets and what is asked of them;
//!   `epoll_items.rs`: their items and ready lists; `epoll_twins.rs`: items that the kernel has as well;
//! - `salvage.rs`: what is saved when the owner of the lock died inside;
//! - `errno.rs`: Linux's error numbers.

mod attendance;
mod datagram;
mod epoll;
mod epoll_items;
mod epoll_twins;
mod errno;
mod fast_open;
mod listener;
mod options;
mod ports;
pub mod readiness;
mod salvage;
mod stream;
mod syn_queue;
mod table;
mod unconnected;

pub use attendance::Attendance;
pub use datagram::{Datagram, DatagramFacts};
pub use epoll::{EpollEvent, EpollSet, Registration, SetId, Watched};
pub use epoll_items::EpollItem;
pub use epoll_twins::{is_token, token_of_nothing};
pub use errno::Errno;
pub(crate) use fast_open::EarlyCount;
pub(crate) use listener::{LISTENER_BUCKETS, QUEUE_ACCEPT, QUEUE_DEPARTED, QUEUE_NONE, QUEUE_SYN};
pub use options::SocketOption;
pub(crate) use ports::PortBlocks;
pub use ports::{PORT_BLOCKS_MAX, PORTS_PER_BLOCK};
pub use stream::How;
pub use table::{Family, ProcId, Socket, SocketId};
pub(crate) use table::{Holders, Kind};
pub use unconnected::Unconnected;

/// Bells that any number of threads share: an unwait leaves them, because another thread may wait by the same one, and
/// the ring takes them back: whoever still waits says so again.
pub const SHARED_BELLS: u32 = 0xffff_0000;
