//! Network namespaces that live as long as a test's thread. Also used by the rig's tests.

use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, gettid};

/// Runs `body` on a thread with its own network namespace. Says why when it cannot.
pub(crate) fn in_fresh_netns(body: impl FnOnce() + Send + 'static) {
    if !Uid::effective().is_root() {
        println!("skipped: network namespaces and BPF programs take root");
        return;
    }
    let outcome = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        body();
    });
    if let Err(panic) = outcome.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Moves `device` into a further namespace, gives it `address`, and runs `body` there.
pub(crate) fn peer_namespace(device: &str, address: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let (tell, told) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let (name, own_address) = (device.to_owned(), address.to_owned());
    let peer = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        tell.send(gettid()).expect("the parent waits");
        may_go.recv().expect("the parent moves the device");
        ip(&format!("addr add {own_address} dev {name}"));
        ip(&format!("link set {name} up"));
        body();
    });
    let tid = told.recv().expect("the peer starts");
    ip(&format!("link set {device} netns {tid}"));
    go.send(()).expect("the peer waits");
    peer
}

/// `ip ARGUMENTS`, in the namespace of this thread.
pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip runs");
    assert!(status.success(), "ip {arguments}: {status}");
}
