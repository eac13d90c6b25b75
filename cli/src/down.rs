//! `sidestep down`: stops the daemon, or clears up after one that died.

use crate::args::Down;
use crate::daemon::access::Peer;
use crate::daemon::processes;
use crate::daemon::start;
use crate::failure::{Context, Failure, Outcome, fail, print};
use sidestep_stack::runtime::control::{Client, FdSet, Op, Request};

pub(crate) fn down(options: &Down) -> Outcome<()> {
    let device = &options.device;
    let Ok(client) = Client::connect(device) else { return without_daemon(device) };
    let request = Request::new(Op::Down, [u64::from(options.force), 0, 0, 0]);
    let reply =
        client.call(&request, &mut FdSet::default()).context(format!("{device}: the daemon does not answer"))?;
    if reply.status != 0 {
        return Err(Failure::new(format!("{device}: {}", reply.text())));
    }
    // Gone with its sockets and memory: the next `up` shall find the queues free.
    if let Ok(daemon) = Peer::of(client.fd()) {
        processes::await_end(daemon.pid as u32);
    }
    print(format_args!("{device}: down"));
    Ok(())
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
