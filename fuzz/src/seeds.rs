//! Where a corpus begins: for each target some inputs that get past its first checks.

type Seed = (&'static str, usize, Vec<u8>);

pub(crate) fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |name: &'static str, inputs: Vec<Vec<u8>>| {
        seeds.extend(inputs.into_iter().enumerate().map(|(n, bytes)| (name, n, bytes)));
    };
    let tcp = [
        tcp(&[]),
        tcp(&[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]),
        tcp(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
        tcp(&[1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 1, 1, 0, 0, 2, 0]),
        tcp(&[34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1]),
    ];
    let v4: Vec<Vec<u8>> = tcp.iter().map(|t| ipv4(6, t)).collect();
    let v6: Vec<Vec<u8>> = tcp.iter().map(|t| ipv6(6, t)).collect();
    let unreachable: Vec<Vec<u8>> =
        [(3, 4), (3, 3), (11, 0)].iter().map(|(kind, code)| icmp(*kind, *code, &v4[0])).collect();
    let too_big: Vec<Vec<u8>> = [(2, 0), (1, 4)].iter().map(|(kind, code)| icmp(*kind, *code, &v6[0])).collect();
    let quoted = unreachable.iter().map(|m| ipv4(1, m)).chain(too_big.iter().map(|m| ipv6(58, m)));
    let frames: Vec<Vec<u8>> = v4.iter().chain(&v6).cloned().chain(quoted).map(|p| ethernet(&p)).collect();
    add("steer", frames.iter().map(|f| [&[0, 1, 2, 3], f.as_slice()].concat()).collect());
    add("ethernet", frames);
    add("ipv4", v4);
    add("ipv6", v6);
    add("icmp", unreachable.into_iter().chain(too_big).collect());
    add("tcp", tcp.to_vec());
    add("connection", connection());
    seeds
}

fn tcp(options: &[u8]) -> Vec<u8> {
    let mut out = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0x12, 0xff, 0xff, 0, 0, 0, 0];
    out[12] = ((20 + options.len()) as u8 / 4) << 4;
    out.extend_from_slice(options);
    out.extend_from_slice(b"hello");
    out
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = 20 + payload.len() as u16;
    let mut out = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
    out[2..4].copy_from_slice(&total.to_be_bytes());
    let sum = out.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
    out.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    out.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    out.extend_from_slice(payload);
    out
}

fn icmp(kind: u8, code: u8, quote: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0, 0, 0, 5, 0], quote].concat()
}

fn ethernet(packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], kind.as_slice(), packet].concat()
}

/// Two octets of settings, then deeds (`stack/src/testing/torture.rs`); 100 is "no offset".
fn connection() -> Vec<Vec<u8>> {
    let segment = |flags: u8, seq: u8, payload: u8| vec![0, flags, seq, 100, 0xf0, 0, payload, 0];
    let data = [segment(0x18, 100, 20), segment(0x18, 220, 20), segment(0x18, 100, 20), vec![7]].concat();
    let close = [segment(0x11, 100, 0), vec![8, 1, 9, 20], segment(0x10, 101, 0)].concat();
    let send = [vec![6, 9, 12], segment(0x10, 100, 0), vec![6, 9, 24, 9, 25]].concat();
    let sack = vec![6, 0, 0x10, 100, 90, 0xf0, 0, 0, 2, 0, 101, 120, 9, 18];
    let reset = segment(0x04, 100, 0);
    let options = (0..13).flat_map(|option| [11, option, 101]).collect::<Vec<u8>>();
    let parts = [&data, &close, &send, &sack, &reset, &options];
    let settings: [[u8; 2]; 4] = [[0, 7], [8, 7], [0x0f, 0xff], [0, 0]];
    let all = [&options[..], &data, &send, &sack, &close].concat();
    let mut seeds: Vec<Vec<u8>> = settings.iter().map(|s| [s.as_slice(), &all].concat()).collect();
    seeds.extend(parts.iter().map(|part| [&settings[0][..], part].concat()));
    seeds
}
