use super::*;
use crate::drops::Drop;
use crate::socket::readiness::{ERR, RDHUP};
use crate::socket::{How, SocketOption};
use crate::time::MS;

#[test]
fn handshake_echo_close() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    assert_eq!(send(&mut net, CLIENT, client, b"hello"), Ok(5));
    net.run(SEC, |net| readiness(net, SERVER, server) & IN != 0);
    assert_eq!(recv(&mut net, SERVER, server).unwrap(), b"hello");
    assert_eq!(recv(&mut net, SERVER, server), Err(Errno::EAGAIN));
    assert_eq!(send(&mut net, SERVER, server, b"hello to you"), Ok(12));
    net.run(SEC, |net| readiness(net, CLIENT, client) & IN != 0);
    assert_eq!(recv(&mut net, CLIENT, client).unwrap(), b"hello to you");
    let peer = net.hosts[SERVER].engine().peer_endpoint(server).unwrap();
    assert_eq!(net.hosts[CLIENT].engine().local_endpoint(client).unwrap(), peer);
    assert!((32768..36864).contains(&peer.port));
    release(&mut net, CLIENT, client);
    net.run(SEC, |net| readiness(net, SERVER, server) & RDHUP != 0);
    assert_eq!(recv(&mut net, SERVER, server).unwrap(), b"");
    release(&mut net, SERVER, server);
    net.run_for(SEC);
    assert_eq!(net.hosts[CLIENT].engine().population().time_waits, 1, "who closes first waits");
    assert_eq!(net.hosts[SERVER].engine().population().time_waits, 0);
    finish(net);
}

#[test]
fn handshake_over_ipv6() {
    let mut net = Net::new(1);
    let mut engine = net.hosts[SERVER].engine();
    let options = Options::new(engine.tunables());
    let any = Endpoint::new(crate::addr::Ip::UNSPECIFIED, PORT);
    let listener = engine.listen(any, false, 16, &options, PROC).unwrap();
    let (now, remote) = (net.now(), Endpoint::new(net.hosts[SERVER].config.v6, PORT));
    let mut engine = net.hosts[CLIENT].engine();
    let client = engine.open_stream(Family::V6, false, PROC).unwrap();
    assert_eq!(engine.connect(now, client, None, remote), Err(Errno::EINPROGRESS));
    let server = accept(&mut net, listener);
    send(&mut net, CLIENT, client, &[7; 3000]).unwrap();
    net.run(SEC, |net| net.hosts[SERVER].engine().available(server) == Ok(3000));
    connect(&mut net);
    accept(&mut net, listener); // :: takes v4-mapped peers as well.
    finish(net);
}

#[test]
fn refused() {
    let mut net = Net::new(1);
    let client = connect(&mut net);
    net.run(SEC, |net| readiness(net, CLIENT, client) & ERR != 0);
    assert_eq!(readiness(&mut net, CLIENT, client), IN | OUT | RDHUP | HUP | ERR);
    let now = net.now();
    assert_eq!(net.hosts[CLIENT].engine().connect_status(now, client), Err(Errno::ECONNREFUSED));
    assert_eq!(readiness(&mut net, CLIENT, client), OUT | HUP, "as new");
    assert_eq!(net.hosts[SERVER].engine().counters().drops.of(Drop::NoSocket), 1);
    let remote = net.endpoint(SERVER, PORT);
    assert_eq!(net.hosts[CLIENT].engine().connect(now, client, None, remote), Err(Errno::EINPROGRESS));
    assert_eq!(net.hosts[CLIENT].engine().connect(now, client, None, remote), Err(Errno::EALREADY));
    net.run_for(SEC);
    let error = net.hosts[CLIENT].engine().take_error(client);
    assert_eq!(error, Ok(Errno::ECONNREFUSED));
    assert_eq!(net.hosts[CLIENT].engine().connect(now, client, None, remote), Err(Errno::ECONNABORTED));
    finish(net);
}

#[test]
fn what_was_on_its_way_to_a_connection_that_is_reset_says_nothing_of_steering() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    release(&mut net, SERVER, server);
    // The client has not heard of it yet: a request, and then its end.
    send(&mut net, CLIENT, client, b"request").unwrap();
    for is_last in [false, true] {
        if is_last {
            release(&mut net, CLIENT, client);
        }
        let now = net.now();
        let out = net.hosts[CLIENT].engine().poll_transmit(now).unwrap();
        let bytes = net.hosts[CLIENT].engine().frames().bytes(out.frame)[usize::from(out.off)..]
            [..usize::from(out.len)]
            .to_vec();
        net.hosts[CLIENT].complete(out.frame);
        assert!(net.hosts[SERVER].receive(now, &bytes));
    }
    let drops = net.hosts[SERVER].engine().counters().drops;
    let counts = [Drop::DataAfterClose, Drop::AfterReset, Drop::NoSocket].map(|reason| drops.of(reason));
    assert_eq!(counts, [1, 1, 0]);
    finish(net);
}

#[test]
fn a_second_connect_tells_the_outcome_once() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let client = connect(&mut net);
    accept(&mut net, listener);
    let (now, remote) = (net.now(), net.endpoint(SERVER, PORT));
    let mut engine = net.hosts[CLIENT].engine();
    assert_eq!(engine.connect(now, client, None, remote), Ok(()));
    assert_eq!(engine.connect(now, client, None, remote), Err(Errno::EISCONN));
    finish(net);
}

#[test]
fn nobody_answers() {
    let mut net = Net::new(1);
    listen(&mut net, 16);
    net.wire.loss = 1000;
    let client = connect(&mut net);
    net.run(300 * SEC, |net| readiness(net, CLIENT, client) & ERR != 0);
    let now = net.now();
    assert_eq!(net.hosts[CLIENT].engine().connect_status(now, client), Err(Errno::ETIMEDOUT));
    finish(net);
}

#[test]
fn a_thousand_connections_through_one_listener() {
    let mut net = Net::with(1, big(1), big(2));
    net.wire.loss = 10;
    let listener = listen(&mut net, 2000);
    let clients: Vec<_> = (0..1000).map(|_| connect(&mut net)).collect();
    net.run(60 * SEC, |net| net.hosts[SERVER].engine().population().connections == 1000);
    let mut servers = vec![];
    for _ in 0..1000 {
        servers.push(accept(&mut net, listener));
    }
    for (i, client) in clients.iter().enumerate() {
        send(&mut net, CLIENT, *client, &(i as u32).to_be_bytes()).unwrap();
    }
    net.run(60 * SEC, |net| servers.iter().all(|s| net.hosts[SERVER].engine().available(*s) == Ok(4)));
    let mut seen = vec![false; 1000];
    for s in &servers {
        let bytes = recv(&mut net, SERVER, *s).unwrap();
        seen[u32::from_be_bytes(bytes.try_into().unwrap()) as usize] = true;
    }
    assert!(seen.iter().all(|s| *s));
    let mut flows = 0;
    net.hosts[SERVER].engine().flows_of_port(PORT, |_| flows += 1);
    assert_eq!(flows, 1000);
    finish(net);
}

#[test]
fn every_order_of_closing() {
    // Per step: who does what. S and C shut their sending side, s and c release.
    for (seed, script) in
        ["cs", "sc", "CScs", "SCsc", "CSsc", "Cs", "Sc", "CcsS", "C s", "c  s", "CS", "cS"].iter().enumerate()
    {
        for pause_us in [0, 50, 1000, 100_000] {
            let mut net = Net::new(seed as u64);
            let (_, server, client) = pair(&mut net);
            let mut gone = [false; 2];
            for step in script.chars() {
                let (host, s) = if step.eq_ignore_ascii_case(&'s') { (SERVER, server) } else { (CLIENT, client) };
                if step == ' ' || gone[host] {
                    net.run_for(pause_us);
                    continue;
                }
                let now = net.now();
                if step.is_lowercase() {
                    release(&mut net, host, s);
                    gone[host] = true;
                } else {
                    net.hosts[host].engine().shutdown(now, s, How::Write).unwrap();
                    assert_eq!(send(&mut net, host, s, b"x"), Err(Errno::EPIPE), "{script}");
                }
                net.run_for(pause_us);
            }
            finish(net);
        }
    }
}

#[test]
fn both_ways_shut_is_hung_up() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    let now = net.now();
    net.hosts[CLIENT].engine().shutdown(now, client, How::Write).unwrap();
    net.run(SEC, |net| readiness(net, SERVER, server) == IN | OUT | RDHUP);
    assert_eq!(readiness(&mut net, CLIENT, client), OUT);
    net.hosts[SERVER].engine().shutdown(now, server, How::Both).unwrap();
    assert_eq!(readiness(&mut net, SERVER, server), IN | OUT | RDHUP | HUP);
    net.run_for(SEC);
    assert_eq!(readiness(&mut net, CLIENT, client), IN | OUT | RDHUP | HUP, "TIME-WAIT looks closed");
    assert_eq!(recv(&mut net, CLIENT, client).unwrap(), b"");
    assert_eq!(net.hosts[CLIENT].engine().peer_endpoint(client), Err(Errno::ENOTCONN));
    finish(net);
}

#[test]
fn data_before_the_end_arrives_though_the_sender_is_gone() {
    let mut net = Net::new(1);
    net.wire.loss = 50;
    let (_, server, client) = pair(&mut net);
    assert_eq!(send(&mut net, CLIENT, client, &[1; 50_000]), Ok(50_000));
    let now = net.now();
    net.hosts[CLIENT].engine().release_process(now, PROC);
    let mut got = 0;
    net.run(120 * SEC, |net| match recv(net, SERVER, server) {
        Ok(bytes) if bytes.is_empty() => true,
        Ok(bytes) => {
            got += bytes.len();
            false
        }
        Err(e) => {
            assert_eq!(e, Errno::EAGAIN);
            false
        }
    });
    assert_eq!(got, 50_000);
    finish(net);
}

#[test]
fn unread_data_makes_the_close_a_reset() {
    let mut net = Net::new(1);
    let (_, _, client) = pair(&mut net);
    send(&mut net, CLIENT, client, b"never read").unwrap();
    net.run_for(SEC);
    let now = net.now();
    net.hosts[SERVER].engine().release_process(now, PROC);
    net.run(SEC, |net| readiness(net, CLIENT, client) & ERR != 0);
    assert_eq!(readiness(&mut net, CLIENT, client), IN | OUT | RDHUP | HUP | ERR);
    assert_eq!(recv(&mut net, CLIENT, client), Err(Errno::ECONNRESET));
    assert_eq!(recv(&mut net, CLIENT, client).unwrap(), b"", "then the end");
    assert_eq!(send(&mut net, CLIENT, client, b"x"), Err(Errno::EPIPE));
    finish(net);
}

#[test]
fn linger_zero_resets() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    net.hosts[CLIENT].engine().set_linger(client, Some(0)).unwrap();
    release(&mut net, CLIENT, client);
    net.run(SEC, |net| readiness(net, SERVER, server) & ERR != 0);
    assert_eq!(send(&mut net, SERVER, server, b"x"), Err(Errno::ECONNRESET));
    assert_eq!(net.hosts[CLIENT].engine().population().connections, 0);
    finish(net);
}

#[test]
fn the_last_holder_closes() {
    let mut net = Net::new(1);
    let (_, server, client) = pair(&mut net);
    net.hosts[SERVER].engine().hold(server, 200).unwrap();
    release(&mut net, SERVER, server);
    net.run_for(SEC);
    assert_eq!(readiness(&mut net, CLIENT, client), OUT, "the child still holds it");
    let now = net.now();
    net.hosts[SERVER].engine().release_process(now, 200);
    assert_eq!(net.hosts[SERVER].engine().readiness(server), Err(Errno::EBADF));
    net.run(SEC, |net| readiness(net, CLIENT, client) & RDHUP != 0);
    finish(net);
}

#[test]
fn a_listener_that_goes_resets_those_that_wait() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let client = connect(&mut net);
    net.run_for(SEC);
    assert!(net.hosts[SERVER].engine().has_pending_accepts(listener));
    release(&mut net, SERVER, listener);
    net.run(SEC, |net| readiness(net, CLIENT, client) & ERR != 0);
    assert!(!net.hosts[SERVER].engine().has_listener(PORT));
    assert_eq!(net.hosts[SERVER].engine().population().connections, 0);
    finish(net);
}

#[test]
fn a_full_accept_queue_lets_nobody_in_until_there_is_room() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 1);
    let clients: Vec<_> = (0..4).map(|_| connect(&mut net)).collect();
    net.run_for(200 * MS);
    let count = |net: &mut Net| net.hosts[SERVER].engine().counters().drops.of(Drop::AcceptQueueFull);
    assert!(count(&mut net) >= 1);
    for _ in 0..4 {
        accept(&mut net, listener);
    }
    net.run(10 * SEC, |net| clients.iter().all(|c| readiness(net, CLIENT, *c) == OUT));
    finish(net);
}

#[test]
fn connections_reset_before_accept_are_handed_out() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let client = connect(&mut net);
    net.run_for(SEC);
    net.hosts[CLIENT].engine().set_linger(client, Some(0)).unwrap();
    release(&mut net, CLIENT, client);
    net.run_for(SEC);
    let server = accept(&mut net, listener);
    assert_eq!(recv(&mut net, SERVER, server), Err(Errno::ECONNRESET));
    finish(net);
}

#[test]
fn every_event_is_counted_once() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    for _ in 0..5 {
        let client = connect(&mut net);
        let server = accept(&mut net, listener);
        send(&mut net, CLIENT, client, b"x").unwrap();
        net.run_for(SEC);
        release(&mut net, CLIENT, client);
        net.run_for(SEC);
        recv(&mut net, SERVER, server).unwrap();
        release(&mut net, SERVER, server);
        net.run_for(SEC);
    }
    let [server, client] = [SERVER, CLIENT].map(|host| *net.hosts[host].engine().counters());
    assert_eq!((server.passive_opens, server.accepts, server.active_opens, server.time_wait_made), (5, 5, 0, 0));
    assert_eq!((client.passive_opens, client.accepts, client.active_opens, client.time_wait_made), (0, 0, 5, 5));
    for c in [server, client] {
        assert_eq!((c.retransmits, c.rto_expiries, c.resets_received, c.tx_rsts), (0, 0, 0, 0));
        assert_eq!((c.tx_segments, c.rx_segments), (c.tx_frames, c.rx_frames));
    }
    assert_eq!((server.rx_segments, client.rx_segments), (client.tx_segments, server.tx_segments));
    // An abort leaves no TIME-WAIT, and its RST is one.
    let client = connect(&mut net);
    accept(&mut net, listener);
    net.hosts[CLIENT].engine().set_linger(client, Some(0)).unwrap();
    release(&mut net, CLIENT, client);
    net.run_for(SEC);
    let [server, client] = [SERVER, CLIENT].map(|host| *net.hosts[host].engine().counters());
    assert_eq!((client.tx_rsts, server.resets_received, client.time_wait_made), (1, 1, 5));
    finish(net);
}

#[test]
fn a_thousand_idle_connections_need_no_timer() {
    let mut net = Net::with(1, big(1), big(2));
    let listener = listen(&mut net, 16);
    let mut pairs = vec![];
    for i in 0..1000 {
        let client = connect(&mut net);
        let server = accept(&mut net, listener);
        // Some never spoke, some asked, some were answered.
        if i % 3 > 0 {
            send(&mut net, CLIENT, client, &[1; 3000]).unwrap();
        }
        net.run_for(MS);
        if i % 3 > 1 {
            assert_eq!(recv(&mut net, SERVER, server).unwrap().len(), 3000);
            send(&mut net, SERVER, server, &[2; 5000]).unwrap();
        }
        pairs.push((server, client));
    }
    net.run_for(3 * SEC);
    for host in [SERVER, CLIENT] {
        assert_eq!(net.hosts[host].engine().next_deadline(), None, "host {host}");
        assert!(!net.hosts[host].engine().has_transmit());
    }
    // With keepalive on there is a deadline, two hours off; on its way there the wheel turns a few times, not often.
    let now = net.now();
    for (server, _) in &pairs {
        net.hosts[SERVER].engine().set_option(now, *server, SocketOption::KeepAlive, 1).unwrap();
    }
    let (frames, mut wakings) = (net.frames_seen, 0);
    let end = now.after_us(7100 * SEC);
    while net.hosts[SERVER].engine().next_deadline().is_some_and(|at| at < end) {
        net.step(end);
        wakings += 1;
    }
    assert!(wakings <= 8, "{wakings} wakings in two hours");
    assert_eq!(net.frames_seen, frames);
    for (server, _) in &pairs {
        net.hosts[SERVER].engine().set_option(now, *server, SocketOption::KeepAlive, 0).unwrap();
    }
    finish(net);
}

#[test]
fn time_wait_gives_way_to_a_new_connection() {
    let mut net = Net::new(1);
    let (listener, server, client) = pair(&mut net);
    let local = net.hosts[CLIENT].engine().local_endpoint(client).unwrap();
    release(&mut net, SERVER, server); // The server closes first: it has the TIME-WAIT.
    net.run_for(SEC);
    release(&mut net, CLIENT, client);
    net.run_for(SEC);
    assert_eq!(net.hosts[SERVER].engine().population().time_waits, 1);
    let (now, remote) = (net.now(), net.endpoint(SERVER, PORT));
    let mut engine = net.hosts[CLIENT].engine();
    let client = engine.open_stream(Family::V4, false, PROC).unwrap();
    assert_eq!(engine.connect(now, client, Some(local), remote), Err(Errno::EINPROGRESS));
    let server = accept(&mut net, listener);
    assert_eq!(net.hosts[SERVER].engine().counters().time_wait_reused, 1);
    assert_eq!(net.hosts[SERVER].engine().peer_endpoint(server), Ok(local));
    finish(net);
}

#[test]
fn time_waits_are_bounded_and_expire() {
    let small = HostConfig { time_waits: 4, ..HostConfig::nth(1) };
    let mut net = Net::with(1, small, HostConfig::nth(2));
    let listener = listen(&mut net, 16);
    for _ in 0..10 {
        let client = connect(&mut net);
        let server = accept(&mut net, listener);
        release(&mut net, SERVER, server);
        net.run_for(100 * MS);
        release(&mut net, CLIENT, client);
        net.run_for(100 * MS);
    }
    assert_eq!(net.hosts[SERVER].engine().counters().time_wait_made, 10);
    assert_eq!(net.hosts[SERVER].engine().population().time_waits, 4);
    net.run_for(62 * SEC);
    assert_eq!(net.hosts[SERVER].engine().population().time_waits, 0);
    finish(net);
}

#[test]
fn a_full_connection_table_refuses_quietly() {
    let small = HostConfig { conns: 4, ..HostConfig::nth(1) };
    let mut net = Net::with(1, small, HostConfig::nth(2));
    listen(&mut net, 100);
    for _ in 0..8 {
        connect(&mut net);
    }
    net.run_for(SEC / 2);
    assert!(net.hosts[SERVER].engine().counters().drops.of(Drop::NoConnectionSlot) >= 4);
    finish(net);
}

#[test]
fn errors_without_a_connection() {
    let mut net = Net::new(1);
    let listener = listen(&mut net, 16);
    let (now, own) = (net.now(), net.endpoint(SERVER, 9));
    let mut engine = net.hosts[SERVER].engine();
    let s = engine.open_stream(Family::V4, false, PROC).unwrap();
    let mut out = [0; 8];
    assert_eq!(engine.readiness(s).unwrap() & 0xff, OUT | HUP);
    assert_eq!(engine.recv(now, s, &mut out, false), Err(Errno::ENOTCONN));
    assert_eq!(engine.send(now, s, b"x"), Err(Errno::EPIPE));
    assert_eq!(engine.shutdown(now, s, How::Both), Err(Errno::ENOTCONN));
    assert_eq!(engine.peer_endpoint(s), Err(Errno::ENOTCONN));
    assert_eq!(engine.accept(now, s, PROC), Err(Errno::EINVAL));
    assert_eq!(engine.accept(now, listener, PROC), Err(Errno::EAGAIN));
    assert_eq!(engine.recv(now, listener, &mut out, false), Err(Errno::ENOTCONN));
    assert_eq!(engine.send(now, listener, b"x"), Err(Errno::EPIPE));
    assert_eq!(engine.connect(now, listener, None, own), Err(Errno::EISCONN));
    assert_eq!(engine.connect(now, s, None, own), Err(Errno::ENETUNREACH), "one's own address is the kernel's");
    engine.release(now, s, PROC).unwrap();
    assert_eq!(engine.send(now, s, b"x"), Err(Errno::EBADF), "stale name");
    let again = engine.open_stream(Family::V4, false, PROC).unwrap();
    assert_eq!((again.index, engine.is_socket(s)), (s.index, false));
    finish(net);
}
