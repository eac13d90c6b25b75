//! libsidestep.so: puts the user-mode TCP/IP stack under an unmodified program (LD_PRELOAD).
//!
//! In the order a call travels:
//! - [`symbols`]: the one table of interposed calls; [`exported`], [`exported_waits`]: how a line of it becomes a
//!   function; [`calls`]: what each does;
//! - [`fd_table`]: what stands behind a descriptor number; what is not ours goes to the kernel ([`sys`]) at once;
//! - [`user`]: from an entry to the engine socket; [`local`]: what this process knows of it;
//! - [`options`], [`option_read`], [`option_table`]: what sockets are told; [`own_socket`]: where a connection keeps it; [`owner`]: whom its signals go to;
//! - [`listeners`], [`interest`]: listeners, sockets before they connect;
//!   [`successor`]: a server that hands its listeners to the next one;
//! - [`bequest`], [`inherited`], [`rights`]: what goes to other programs and processes, what came from there, SCM_RIGHTS;
//! - [`epoll`], [`epoll_members`], [`nests`], [`epoll_wait`]: sets of both kinds, what goes into them, sets in sets, waiting;
//! - [`datagrams`], [`unbound`], [`message`]: datagram sockets, before they have a port too, and what comes and goes with a datagram
//!   besides its payload; [`notices`]: completions of zero-copy sends;
//! - [`memory`]: the application's memory, which may not be there;
//! - [`blocking`], [`bells`], [`changes`], [`limited_poll`], [`vigil`], [`waiters`], [`holder`], [`spin`], [`kick`]: waiting, what
//!   wakes, and when a send leaves;
//! - [`signals`], [`critical`]: what interrupts a call, and where it may not;
//! - [`attach`], [`config`], [`fallback`]: device, daemon and stack, found when first needed, and why not;
//! - [`thread`]: what a thread shares with its handlers; [`real`]: functions of libc behind ours;
//! - [`stdio`], [`variadic`]: libc's streams upon user sockets; [`private_pipe`]: what splice needs;
//! - [`reason`]: why a socket is the kernel's; [`c_api`]: what programs that know of us may ask; [`fork`], [`vfork`]: what a child inherits; [`hidden`], [`template`]: descriptors of our own.
//!
//! Nothing here allocates once the process is attached, and nothing calls a libc function that we export.

#![cfg_attr(test, allow(dead_code))] // the exported functions are not exported from a test binary

mod attach;
mod bells;
mod bequest;
mod blocking;
mod c_api;
mod calls;
mod changes;
mod config;
mod critical;
mod datagrams;
mod ending;
mod epoll;
mod epoll_members;
mod epoll_wait;
mod exported;
mod exported_waits;
mod fallback;
mod fd_table;
mod fork;
mod hidden;
mod holder;
mod inherited;
mod interest;
mod kick;
mod limited_poll;
mod listeners;
mod local;
mod memory;
mod message;
mod nests;
mod notices;
mod option_read;
mod option_table;
mod options;
mod own_socket;
mod owner;
mod private_pipe;
mod real;
mod reason;
mod rights;
mod signals;
mod spin;
mod stdio;
mod successor;
mod symbols;
mod sys;
mod tcp_info;
mod template;
mod thread;
mod unbound;
mod user;
mod variadic;
mod vfork;
mod vigil;
mod waiters;

/// Runs when the library is loaded, before the program's own constructors.
#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn at_load() {
        ending::at_load();
        thread::at_load();
        signals::at_load();
        calls::exec::at_load();
        calls::poll::at_load();
        vfork::at_load();
        successor::at_load();
        attach::at_load();
    }
    at_load
};
