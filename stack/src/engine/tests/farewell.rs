use super::*;
use crate::testing::Random;
use crate::time::MS;

/// What the runtime does when the owner of the lock died inside.
fn start_over(net: &mut Net) -> u32 {
    let mut engine = net.hosts[SERVER].engine();
    let mut walk = engine.farewells();
    engine.reset_all();
    engine.frames_mut().rebuild();
    let mut rounds = 0;
    while net.hosts[SERVER].engine().say_farewells(&mut walk) {
        assert!(net.hosts[SERVER].engine().has_transmit(), "it waits only for what can be sent");
        net.run_for(0);
        rounds += 1;
    }
    rounds
}

#[test]
fn peers_are_reset_at_once_when_the_owner_of_the_lock_died() {
    for frames in [4096, 40] {
        let server = HostConfig { conns: 512, sockets: 1024, frames, ..HostConfig::nth(1) };
        let client = HostConfig { conns: 512, sockets: 1024, ..HostConfig::nth(2) };
        let mut net = Net::with(1, server, client);
        let listener = listen(&mut net, 512);
        let clients: Vec<_> = (0..320).map(|_| connect(&mut net)).collect();
        let ports: Vec<_> = clients.iter().map(|c| net.hosts[CLIENT].engine().local_endpoint(*c).unwrap()).collect();
        for _ in &clients {
            let server = accept(&mut net, listener);
            let peer = net.hosts[SERVER].engine().peer_endpoint(server).unwrap();
            if ports.iter().position(|p| *p == peer).unwrap() % 3 == 0 {
                release(&mut net, SERVER, server);
            }
        }
        net.run_for(SEC);
        release(&mut net, CLIENT, clients[0]); // This one ends in the server's TIME-WAIT, and is left alone.
        net.run_for(SEC);
        let rounds = start_over(&mut net);
        assert!(rounds >= 319 / 256, "{rounds}");
        net.run_for(MS);
        let now = net.now();
        for (i, c) in clients.iter().enumerate().skip(1) {
            let error = if i % 3 == 0 { Errno::EPIPE } else { Errno::ECONNRESET };
            assert_eq!(net.hosts[CLIENT].engine().connect_status(now, *c), Err(error), "client {i}");
        }
        assert_eq!(net.hosts[SERVER].engine().counters().tx_rsts, 319);
        finish(net);
    }
}

#[test]
fn garbage_is_walked_over() {
    let mut random = Random::new(7);
    for _ in 0..200 {
        let mut net = Net::with(1, HostConfig { conns: 128, ..HostConfig::nth(1) }, HostConfig::nth(2));
        let mut engine = net.hosts[SERVER].engine();
        for slot in 0..128 {
            engine.conns[slot].scramble(&mut || random.number());
        }
        let used = [0, 1, 128, 129, u32::MAX][random.below(5) as usize];
        engine.conns.claim_used(used);
        start_over(&mut net);
        let rsts = net.hosts[SERVER].engine().counters().tx_rsts;
        assert!(rsts <= 2 * 128 && (used == 0) <= (rsts == 0), "{rsts} of {used}");
        let (_, server, client) = pair(&mut net);
        assert_eq!(send(&mut net, CLIENT, client, b"alive"), Ok(5));
        net.run_for(MS);
        assert_eq!(recv(&mut net, SERVER, server), Ok(b"alive".to_vec()));
        finish(net);
    }
}
