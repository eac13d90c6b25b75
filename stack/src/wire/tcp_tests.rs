//! Headers there and back, and what is not one.

use super::*;

fn header() -> Header {
    Header {
        local_port: 80,
        remote_port: 50_000,
        seq: Seq(0xdead_beef),
        ack: Seq(7),
        flags: Flags::ACK | Flags::PSH,
        window: 501,
        ..Header::default()
    }
}

#[test]
fn what_is_written_is_read() {
    let cases = [
        (None, None, None),
        (None, None, Some((1, 2))),
        (Some(1460), None, None),
        (Some(1460), Some(7), None),
        (Some(536), Some(14), Some((u32::MAX, 0))),
    ];
    for (mss, window_scale, timestamp) in cases {
        let header = Header { mss, window_scale, timestamp, ..header() };
        let mut bytes = [0xaa; HEADER_LEN_MAX + 3];
        let len = emit(&header, &mut bytes);
        assert_eq!((len, len % 4, &bytes[16..20]), (header.len(), 0, &[0; 4][..]));
        let seg = parse(&bytes[..len + 3], 34).unwrap();
        assert_eq!((seg.seq, seg.ack, seg.flags, seg.window), (header.seq, header.ack, header.flags, 501));
        assert_eq!(seg.options, Options { mss, window_scale, timestamp, ..Options::default() });
        assert_eq!((seg.payload_off, seg.payload_len), (34 + len as u16, 3));
        assert_eq!(ports(&bytes), Some(Ports { source: 80, destination: 50_000 }));
    }
}

#[test]
fn a_plain_header_is_one_without_the_other_options() {
    for timestamp in [None, Some((7, u32::MAX))] {
        let header = Header { urgent: 3, timestamp, ..header() };
        let Header { local_port, remote_port, seq, ack, flags, window, urgent, .. } = header;
        let plain = PlainHeader { local_port, remote_port, seq, ack, flags, window, urgent, timestamp };
        assert_eq!(Header::from(&plain), Header { mss: None, window_scale: None, ..header });
        let (mut one, mut other) = ([0xaa; HEADER_LEN_MAX], [0xaa; HEADER_LEN_MAX]);
        let start = one.len() - plain.emit_before(&mut one);
        emit(&header, &mut other[start..]);
        assert_eq!(one, other);
    }
}

#[test]
fn length_counts_syn_and_fin() {
    let len = |flags| Segment { payload_len: 10, flags, ..Segment::default() }.len();
    assert_eq!(len(Flags::ACK), 10);
    assert_eq!(len(Flags::SYN), 11);
    assert_eq!(len(Flags::FIN | Flags::ACK), 11);
    assert_eq!(len(Flags::FIN | Flags::SYN), 12);
}

/// A header with these option bytes.
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN];
    bytes.extend(options);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes[12] = (bytes.len() as u8 / 4) << 4;
    bytes
}

#[test]
fn options_one_by_one() {
    let read = |bytes: &[u8]| parse(&with_options(bytes), 0).unwrap().options;
    // Linux's SYN: MSS, SACK permitted, timestamps, NOP, window scale.
    let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 10];
    let expected = Options {
        mss: Some(1460),
        window_scale: Some(10),
        timestamp: Some((9, 0)),
        sack_permitted: true,
        ..Options::default()
    };
    assert_eq!(read(&linux), expected);
    assert_eq!(read(&[3, 3, 200]).window_scale, Some(14));
    // After the end nothing counts; unknown kinds are skipped; wrong lengths are not believed.
    assert_eq!(read(&[0, 2, 4, 5, 0xb4]), Options::default());
    assert_eq!(read(&[254, 3, 9, 2, 4, 5, 0xb4]).mss, Some(1460));
    assert_eq!(read(&[2, 3, 5, 1]), Options::default());
    for bad in [&[2, 0, 5, 5][..], &[2, 1, 5, 5], &[2, 40, 5, 5], &[1, 1, 1, 2]] {
        assert_eq!(read(bad), Options::default());
    }
}

#[test]
fn malformed_headers() {
    for len in 0..HEADER_LEN {
        assert_eq!(parse(&vec![0x50; len], 0), Err(Drop::TcpMalformed));
    }
    let mut bytes = [0; 24];
    for (offset, is_good) in [(0, false), (4, false), (5, true), (6, true), (7, false), (15, false)] {
        bytes[12] = offset << 4;
        assert_eq!(parse(&bytes, 0).is_ok(), is_good, "{offset}");
    }
    assert_eq!(ports(&[0; 3]), None);
}

#[test]
fn noise_never_panics() {
    let mut x = 1u64;
    for _ in 0..100_000 {
        let mut bytes = [0; 64];
        for b in &mut bytes {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *b = (x >> 56) as u8 >> (x >> 40 & 3);
        }
        let len = (x >> 33) as usize % 65;
        if let Ok(seg) = parse(&bytes[..len], 100) {
            assert_eq!(usize::from(seg.payload_off - 100) + usize::from(seg.payload_len), len);
        }
    }
}

#[test]
fn reset_for_nobody() {
    let seg = |flags| Segment { seq: Seq(10), ack: Seq(20), payload_len: 5, flags, ..Segment::default() };
    assert_eq!(reset_for(&seg(Flags::RST)), None);
    let with_ack = reset_for(&seg(Flags::ACK)).unwrap();
    assert_eq!((with_ack.seq, with_ack.flags), (Seq(20), Flags::RST));
    let without = reset_for(&seg(Flags::SYN)).unwrap();
    assert_eq!((without.seq, without.ack, without.flags), (Seq(0), Seq(16), Flags::RST | Flags::ACK));
}

#[test]
fn selective_acknowledgements_and_cookies_go_there_and_back() {
    let mut sack = SackBlocks::default();
    for n in 0..3u32 {
        assert!(sack.push(Seq(n * 100), Seq(n * 100 + 50)));
    }
    let cookie = FastOpenCookie::new(&[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    let cases = [
        Header { timestamp: Some((1, 2)), sack, ..header() },
        Header { sack_permitted: true, mss: Some(1460), fast_open: Some(cookie), ..header() },
        Header { fast_open: FastOpenCookie::new(&[]), urgent: 7, ..header() },
    ];
    for header in cases {
        let mut bytes = [0xaa; HEADER_LEN_MAX];
        let len = emit(&header, &mut bytes);
        let seg = parse(&bytes[..len], 0).unwrap();
        assert_eq!((len, seg.urgent, seg.payload_len), (header.len(), header.urgent, 0));
        let Header { mss, window_scale, timestamp, sack_permitted, sack, fast_open, .. } = header;
        assert_eq!(seg.options, Options { mss, window_scale, timestamp, sack_permitted, sack, fast_open });
    }
    assert!(sack.push(Seq(1), Seq(2)) && !sack.push(Seq(3), Seq(4)), "four blocks and no more");
    for bad in [&[1u8][..], &[1, 2, 3], &[1; 5], &[1; 18]] {
        assert_eq!(FastOpenCookie::new(bad), None);
    }
    let read = |bytes: &[u8]| parse(&with_options(bytes), 0).unwrap().options;
    assert!(read(&[5, 9, 0, 0, 0, 1, 0, 0, 0]).sack.is_empty());
}
