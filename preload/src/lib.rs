//! libsidestep.so: puts the user-mode TCP/IP stack under an unmodified program (LD_PRELOAD).
//!
//! In the order a call travels:
//! - [`symbols`]: the one table of interposed calls; [`calls`]: what each does;
//! - [`fd_table`]: what stands behind a descriptor number; what is not ours goes to the kernel ([`sys`]) at once;
//! - [`user`]: from an entry to the engine socket; [`local`]: what this process knows of it; [`options`];
//! - [`listeners`], [`interest`], [`epoll`]: listeners, sockets before they connect, sets of both kinds;
//! - [`datagrams`], [`message`]: datagram sockets, and what comes and goes with a datagram besides its payload;
//! - [`blocking`], [`kick`]: waiting, and when a send leaves;
//! - [`attach`], [`config`], [`fallback`]: device, daemon and stack, found when first needed, and why not;
//! - [`c_api`]: what programs that know of us may ask; [`fork`]: what a child inherits; [`hidden`], [`template`]: descriptors of our own.
//!
//! Nothing here allocates once the process is attached, and nothing calls a libc function that we export.

#![cfg_attr(test, allow(dead_code))] // the exported functions are not exported from a test binary

mod attach;
mod blocking;
mod c_api;
mod calls;
mod config;
mod datagrams;
mod epoll;
mod fallback;
mod fd_table;
mod fork;
mod hidden;
mod interest;
mod kick;
mod listeners;
mod local;
mod message;
mod options;
mod symbols;
mod sys;
mod tcp_info;
mod template;
mod user;

/// Runs when the library is loaded, before the program's own constructors.
#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn at_load() {
        attach::at_load();
    }
    at_load
};
