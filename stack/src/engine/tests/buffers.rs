//! Buffers that grow with what goes through them, and those that the application sized.

use super::*;
use crate::socket::{SocketOption, SocketOption as Opt};
use crate::testing::Wire;
use crate::time::MS;
use crate::tunables::Tunables;

fn option(net: &mut Net, host: usize, s: SocketId, option: SocketOption) -> i32 {
    net.hosts[host].engine().option(s, option).unwrap()
}

fn set(net: &mut Net, host: usize, s: SocketId, option: SocketOption, value: i32) {
    let now = net.now();
    net.hosts[host].engine().set_option(now, s, option, value).unwrap();
}

/// The client writes as much as it may, the server reads all there is; until the server has `total`.
fn stream(net: &mut Net, server: SocketId, client: SocketId, total: usize) {
    let (data, mut received) = (vec![3; 256 * 1024], 0);
    net.run(60 * SEC, |net| {
        while send(net, CLIENT, client, &data).is_ok() {}
        while let Ok(bytes) = recv(net, SERVER, server) {
            received += bytes.len();
        }
        received >= total
    });
}

#[test]
fn a_long_path_gets_a_window_and_a_send_buffer_of_megabytes() {
    let tunables =
        Tunables { rmem_bytes: [4096, 131_072, 16 << 20], wmem_bytes: [4096, 16_384, 16 << 20], ..Tunables::default() };
    let config = |n| HostConfig { frames: 32_768, tunables, ..HostConfig::nth(n) };
    let mut net = Net::with(1, config(1), config(2));
    net.wire = Wire { delay_us: 100 * MS, ..Wire::default() };
    let (_, server, client) = pair(&mut net);
    assert_eq!(option(&mut net, SERVER, server, Opt::ReceiveBuffer), 131_072);
    assert_eq!(option(&mut net, CLIENT, client, Opt::SendBuffer), 87_040, "as Linux says of an Ethernet");
    let start = net.now();
    stream(&mut net, server, client, 40 << 20);
    let now = net.now();
    let info = net.hosts[SERVER].engine().info(now, server).unwrap();
    assert!(info.rcv_ssthresh >= 4 << 20, "{}", info.rcv_ssthresh);
    assert!((190_000..=250_000).contains(&info.rcv_rtt_us), "{}", info.rcv_rtt_us);
    assert_eq!(option(&mut net, SERVER, server, Opt::ReceiveBuffer), 2 * info.rcv_ssthresh as i32);
    assert!(option(&mut net, CLIENT, client, Opt::SendBuffer) >= 8 << 20);
    assert!(now.since_us(start) < 6 * SEC, "{} ms", now.since_us(start) / MS);
    finish(net);
}

#[test]
fn the_window_follows_without_timestamps_as_well() {
    let tunables = Tunables { timestamps: 0, ..Tunables::default() };
    let config = |n| HostConfig { frames: 16_384, tunables, ..HostConfig::nth(n) };
    let mut net = Net::with(2, config(1), config(2));
    net.wire = Wire { delay_us: 50 * MS, ..Wire::default() };
    let (_, server, client) = pair(&mut net);
    stream(&mut net, server, client, 20 << 20);
    let now = net.now();
    let info = net.hosts[SERVER].engine().info(now, server).unwrap();
    assert_eq!(info.rcv_ssthresh, 3 << 20, "half of tcp_rmem's last");
    assert!((95_000..=250_000).contains(&info.rcv_rtt_us), "{}", info.rcv_rtt_us);
    finish(net);
}

#[test]
fn a_buffer_that_the_application_sized_stays() {
    let mut net = Net::new(3);
    net.wire = Wire { delay_us: 20 * MS, ..Wire::default() };
    let listener = listen(&mut net, 4);
    set(&mut net, SERVER, listener, Opt::ReceiveBuffer, 50_000);
    let client = connect(&mut net);
    set(&mut net, CLIENT, client, Opt::SendBuffer, 40_000);
    let server = accept(&mut net, listener);
    stream(&mut net, server, client, 1 << 20);
    assert_eq!(option(&mut net, SERVER, server, Opt::ReceiveBuffer), 100_000, "doubled, as Linux does");
    assert_eq!(option(&mut net, CLIENT, client, Opt::SendBuffer), 80_000);
    let now = net.now();
    assert_eq!(net.hosts[SERVER].engine().info(now, server).unwrap().rcv_ssthresh, 50_000);
    // Linux's limits: net.core.rmem_max, and the least.
    set(&mut net, SERVER, server, Opt::ReceiveBuffer, i32::MAX);
    assert_eq!(option(&mut net, SERVER, server, Opt::ReceiveBuffer), 8 << 20);
    set(&mut net, SERVER, server, Opt::ReceiveBuffer, -1);
    assert_eq!(option(&mut net, SERVER, server, Opt::ReceiveBuffer), 8 << 20);
    set(&mut net, SERVER, server, Opt::ReceiveBuffer, 0);
    assert_eq!(option(&mut net, SERVER, server, Opt::ReceiveBuffer), 2304);
    finish(net);
}

#[test]
fn a_clamp_is_the_most_that_is_offered() {
    let mut net = Net::new(4);
    let (_, server, client) = pair(&mut net);
    set(&mut net, SERVER, server, Opt::WindowClamp, 20_000);
    stream(&mut net, server, client, 4 << 20);
    let now = net.now();
    let info = net.hosts[SERVER].engine().info(now, server).unwrap();
    assert_eq!(info.rcv_ssthresh, 20_000);
    assert!(info.rcv_wnd <= 20_128, "{}", info.rcv_wnd);
    assert_eq!(option(&mut net, SERVER, server, Opt::WindowClamp), 20_000);
    let now = net.now();
    assert_eq!(net.hosts[SERVER].engine().set_option(now, server, Opt::WindowClamp, 0), Err(Errno::EINVAL));
    finish(net);
}

#[test]
fn what_is_not_sent_yet_keeps_a_socket_from_being_writable() {
    let mut net = Net::new(5);
    let (_, server, client) = pair(&mut net);
    assert_eq!(option(&mut net, CLIENT, client, Opt::NotSentLowat), 0);
    set(&mut net, CLIENT, client, Opt::NotSentLowat, 10_000);
    assert_eq!(option(&mut net, CLIENT, client, Opt::NotSentLowat), 10_000);
    assert_eq!(readiness(&mut net, CLIENT, client) & OUT, OUT);
    // Beyond what goes at once, less than 10,000 octets wait: it may be exceeded by one write, and no further.
    let wrote = send(&mut net, CLIENT, client, &[1; 60_000]).unwrap();
    assert!((10_000..60_000).contains(&wrote), "{wrote}");
    assert_eq!(send(&mut net, CLIENT, client, b"x"), Err(Errno::EAGAIN));
    assert_eq!(readiness(&mut net, CLIENT, client) & OUT, 0);
    let mut got = 0;
    net.run(SEC, |net| {
        got += recv(net, SERVER, server).map_or(0, |b| b.len());
        got == wrote
    });
    assert_eq!(readiness(&mut net, CLIENT, client) & OUT, OUT);
    finish(net);
}
