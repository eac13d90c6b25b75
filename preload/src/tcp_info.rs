//! Linux's `struct tcp_info`, field by field, at the offsets of its uapi header.

use sidestep_stack::tcp::Info;

/// Its size on Linux 6.18; a caller gets as much of it as it asks for.
const SIZE: usize = 280;
/// The bits of `tcpi_options`.
const TIMESTAMPS: u8 = 1;
const SACK: u8 = 2;
const WINDOW_SCALE: u8 = 4;
const ECN: u8 = 8;
const ECN_SEEN: u8 = 16;
const SYN_DATA: u8 = 32;
/// Linux's TCP_INFINITE_SSTHRESH: none was set yet. Ours is larger than any window.
const SSTHRESH_INFINITE: u32 = 0x7fff_ffff;
const WINDOW_MAX: u32 = 1 << 30;

pub(crate) type Bytes = [u8; SIZE];

/// The record as bytes. Zero where nothing is known yet: fackets (40, Linux has none either), last_ack_sent (48, nor
/// this), rehash (236, a flow keeps its hash), and what is of accurate ECN (248 on), which we do not speak.
pub(crate) fn encode(info: &Info) -> Bytes {
    let mut out = [0; SIZE];
    let flags = |on: bool, bit: u8| if on { bit } else { 0 };
    let options = flags(info.timestamps, TIMESTAMPS)
        | flags(info.sack, SACK)
        | flags(info.window_scaling, WINDOW_SCALE)
        | flags(info.ecn, ECN)
        | flags(info.ecn_seen, ECN_SEEN)
        | flags(info.syn_data, SYN_DATA);
    out[..6].copy_from_slice(&[
        info.state.linux(),
        info.ca_state,
        info.retransmits,
        info.probes,
        info.backoff,
        options,
    ]);
    out[6] = info.snd_wscale & 0xf | info.rcv_wscale << 4;
    out[7] = u8::from(info.is_app_limited) | info.fast_open_failure << 1;
    for (offset, word) in words(info) {
        out[offset..offset + 4].copy_from_slice(&word.to_ne_bytes());
    }
    for (offset, long) in longs(info) {
        out[offset..offset + 8].copy_from_slice(&long.to_ne_bytes());
    }
    for (offset, short) in [(240, info.timeouts), (242, info.repairs)] {
        out[offset..offset + 2].copy_from_slice(&short.to_ne_bytes());
    }
    out
}

fn words(info: &Info) -> [(usize, u32); 36] {
    let ssthresh = if info.snd_ssthresh >= WINDOW_MAX { SSTHRESH_INFINITE } else { info.segments(info.snd_ssthresh) };
    [
        (8, info.rto_us),
        (12, info.ato_us),
        (16, info.snd_mss),
        (20, info.rcv_mss),
        (24, info.segments(info.unacked)),
        (28, info.segments(info.sacked)),
        (32, info.segments(info.lost)),
        (36, info.segments(info.retrans)),
        (44, info.last_data_sent_ms),
        (52, info.last_data_recv_ms),
        (56, info.last_ack_recv_ms),
        (60, info.pmtu),
        (64, info.rcv_ssthresh),
        (68, info.rtt_us),
        (72, info.rttvar_us),
        (76, ssthresh),
        (80, info.snd_cwnd / info.snd_mss.max(1)),
        (84, info.advmss),
        (88, info.reordering),
        (92, info.rcv_rtt_us),
        (96, info.rcv_space),
        (100, info.retrans_total),
        (136, info.segs_out),
        (140, info.segs_in),
        (144, info.notsent),
        (148, info.min_rtt_us),
        (152, info.data_segs_in),
        (156, info.data_segs_out),
        (192, info.delivered),
        (196, info.delivered_ce),
        (216, info.dsack_dups),
        (220, info.reord_seen),
        (244, info.spent.repair_ms),
        (224, info.out_of_order),
        (228, info.snd_wnd),
        (232, info.rcv_wnd),
    ]
}

fn longs(info: &Info) -> [(usize, u64); 10] {
    let micros = |ms: u32| u64::from(ms) * 1000;
    [
        (104, info.pacing_rate),
        (112, info.max_pacing_rate),
        (160, info.delivery_rate),
        (120, info.bytes_acked),
        (128, info.bytes_received),
        (168, micros(info.spent.busy_ms)),
        (176, micros(info.spent.window_ms)),
        (184, micros(info.spent.buffer_ms)),
        (200, info.bytes_sent),
        (208, info.bytes_retrans),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::raw;
    use sidestep_stack::tcp::State;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn every_field_has_its_place_and_none_shares_it() {
        let info = Info::default();
        let spans = words(&info).map(|(at, _)| (at, 4)).into_iter().chain(longs(&info).map(|(at, _)| (at, 8)));
        let mut taken = [false; SIZE];
        for (at, len) in spans {
            assert!(at % len.min(8) == 0 && !taken[at..at + len].contains(&true), "{at}");
            taken[at..at + len].fill(true);
        }
    }

    /// The kernel's own record of a connection of which much is known, against ours of the same.
    #[test]
    fn the_places_are_the_kernels() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut kernel, mut len) = ([0; SIZE], SIZE as libc::socklen_t);
        // SAFETY: `kernel` is writable for `len` bytes.
        let asked = unsafe {
            let value = kernel.as_mut_ptr();
            raw!(getsockopt, client.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, value, &raw mut len)
        };
        assert_eq!(asked, Ok(0));
        let word = |bytes: &Bytes, at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let ours = encode(&Info { snd_mss: 1, reordering: 3, max_pacing_rate: u64::MAX, ..Info::default() });
        assert_eq!((kernel[0], word(&kernel, 76), word(&kernel, 88)), (1, SSTHRESH_INFINITE, word(&ours, 88)));
        assert_eq!(word(&kernel, 80), 10, "snd_cwnd is in segments");
        assert_eq!(kernel[112..120], ours[112..120], "max_pacing_rate");
        let full = Info {
            state: State::Established,
            snd_ssthresh: WINDOW_MAX,
            snd_cwnd: 14_600,
            snd_mss: 1460,
            ..Info::default()
        };
        assert_eq!((word(&encode(&full), 76), word(&encode(&full), 80)), (SSTHRESH_INFINITE, 10));
    }
}
