//! `sidestep down`: stops the daemon, or clears up after one that died.

use crate::args::Down;
use crate::daemon::access::Peer;
use crate::daemon::processes::open_pidfd;
use crate::daemon::start;
use crate::failure::{Context, Failure, Outcome, fail, print};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sidestep_stack::runtime::control::{Client, FdSet, Op, Request};
use std::os::fd::AsFd;

pub(crate) fn down(options: &Down) -> Outcome<()> {
    let device = &options.device;
    let Ok(client) = Client::connect(device) else { return without_daemon(device) };
    let request = Request::new(Op::Down, [u64::from(options.force), 0, 0, 0]);
    let reply =
        client.call(&request, &mut FdSet::default()).context(format!("{device}: the daemon does not answer"))?;
    if reply.status != 0 {
        return Err(Failure::new(format!("{device}: {}", reply.text())));
    }
    await_end(&client);
    print(format_args!("{device}: down"));
    Ok(())
}

/// Waits until the daemon's process is gone, and with it its sockets and memory: the next `up` shall find the queues free.
fn await_end(client: &Client) {
    let daemon = Peer::of(client.fd()).ok().and_then(|peer| open_pidfd(peer.pid as u32));
    if let Some(pidfd) = daemon {
        let mut wait = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut wait, PollTimeout::from(5000u16));
    }
}

fn without_daemon(device: &str) -> Outcome<()> {
    crate::daemon::device::Device::find(device)?;
    if !nix::unistd::geteuid().is_root() {
        fail!("{device} has no daemon (or needs root to say so)");
    }
    if !start::clean_up_after_the_dead(device)? {
        fail!("{device} is not up");
    }
    print(format_args!("{device}: down (its daemon had died; cleared up after it)"));
    Ok(())
}
