//! What one request costs a server inside the engine: frame in, epoll, recv, send, frame out. For counting instructions:
//!
//! ```text
//! cargo build --release -p sidestep-stack --features testing --example request
//! valgrind --tool=callgrind --toggle-collect='*serve*' target/release/examples/request 10000 64
//! ```
//! The argument is the number of requests, then the size of request and answer.

use sidestep_stack::addr::{Endpoint, Ip};
use sidestep_stack::engine::{Engine, TxFrame};
use sidestep_stack::link::Tags;
use sidestep_stack::socket::{EpollEvent, Family, SetId, SocketId, readiness};
use sidestep_stack::tcp::Options;
use sidestep_stack::testing::{Host, HostConfig};
use sidestep_stack::time::Instant;

/// The server's share of one request.
#[inline(never)]
fn serve(
    engine: &mut Engine<'_>,
    now: Instant,
    frame: (u32, u16),
    set: SetId,
    socket: SocketId,
    buffer: &mut [u8],
) -> Option<TxFrame> {
    engine.handle_frame(now, frame.0, 256, frame.1, 0);
    engine.handle_timers(now);
    let mut events = [EpollEvent::default(); 8];
    for _ in 0..engine.epoll_collect(set, &mut events).ok()? {
        let n = engine.recv(now, socket, buffer, false).ok()?;
        engine.send(now, socket, &buffer[..n]).ok()?;
    }
    let out = engine.poll_transmit(now)?;
    engine.take_wakeups();
    engine.next_deadline();
    Some(out)
}

/// Moves every frame that a host has to send to the other one.
fn ferry(now: Instant, from: &mut Host, to: &mut Host) -> usize {
    let mut moved = 0;
    loop {
        let mut engine = from.engine();
        let Some(tx) = engine.poll_transmit(now) else { return moved };
        let at = usize::from(tx.off);
        let bytes = engine.frames().bytes(tx.frame)[at..at + usize::from(tx.len)].to_vec();
        from.complete(tx.frame);
        to.receive(now, &bytes);
        moved += 1;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let (rounds, size) = (args.next().unwrap_or(Ok(10_000))?, args.next().unwrap_or(Ok(64))?);
    let (a, b) = (HostConfig { device_is_virtual: true, ..HostConfig::nth(1) }, HostConfig::nth(2));
    let (ip_a, ip_b, mac_a, mac_b) = (a.ip(), b.ip(), a.mac, b.mac);
    let (mut server, mut client) = (Host::new(a, 1), Host::new(b, 2));
    server.engine().net_mut().set_neighbour(&ip_b, Tags::NONE, Some(mac_b));
    client.engine().net_mut().set_neighbour(&ip_a, Tags::NONE, Some(mac_a));
    let mut now = Instant::from_micros(1_000_000);

    let mut engine = server.engine();
    let options = Options::new(engine.tunables());
    let listener = engine.listen(Endpoint::new(Ip::UNSPECIFIED_V4, 80), false, 16, &options, 1).map_err(debug)?;
    let set = engine.epoll_open(1).map_err(debug)?;
    let mut engine = client.engine();
    let asker = engine.open_stream(Family::V4, false, 1).map_err(debug)?;
    let _ = engine.connect(now, asker, None, Endpoint::new(ip_a, 80));
    while ferry(now, &mut client, &mut server) + ferry(now, &mut server, &mut client) > 0 {}
    let (socket, _) = server.engine().accept(now, listener, 1).map_err(debug)?;
    server.engine().epoll_add(set, socket, 5, readiness::IN, 5).map_err(debug)?;

    let (mut buffer, request) = (vec![0; 65536], vec![7; size]);
    #[allow(clippy::disallowed_methods)] // A measurement of the machine, not of the core's time.
    let start = std::time::Instant::now();
    let mut served = 0;
    let mut server_engine = server.engine();
    for _ in 0..rounds {
        now = now.after_us(20);
        client.engine().send(now, asker, &request).map_err(debug)?;
        let mut engine = client.engine();
        let tx = engine.poll_transmit(now).ok_or("the client is silent")?;
        let at = usize::from(tx.off);
        let bytes = engine.frames().bytes(tx.frame)[at..at + usize::from(tx.len)].to_vec();
        client.complete(tx.frame);
        let frame = server_engine.frames_mut().alloc().ok_or("no frame")?;
        server_engine.frames_mut().bytes_mut(frame)[256..256 + bytes.len()].copy_from_slice(&bytes);
        let out = serve(&mut server_engine, now, (frame, bytes.len() as u16), set, socket, &mut buffer)
            .ok_or("the server is silent")?;
        let at = usize::from(out.off);
        let bytes = server_engine.frames().bytes(out.frame)[at..at + usize::from(out.len)].to_vec();
        if server_engine.frames().shared(out.frame).complete() {
            server_engine.frames_mut().push_free(out.frame);
        }
        client.receive(now, &bytes);
        served += usize::from(client.engine().recv(now, asker, &mut buffer, false) == Ok(size));
    }
    println!("{served} of {rounds} answered, {} ns each, both ends", start.elapsed().as_nanos() as usize / rounds);
    Ok(())
}

fn debug(e: impl core::fmt::Debug) -> String {
    format!("{e:?}")
}
