//! `sidestep-rig drop`: loads the dropper, attaches it to both directions of a device, waits, and reports.
//!
//! Attached by tcx links, which the kernel takes off when their file descriptors close: however this process ends, it leaves nothing behind.

use std::error::Error;
use std::fmt;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{SFlag, fstat};
use sidestep_xdp::DROPPER_OBJECT;
use sidestep_xdp::rig::{Loss, Wire, threshold};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Lose a share of the TCP and UDP frames of a device, in both directions.
///
/// Runs until SIGINT, SIGTERM, the end of standard input (if that is a pipe) or --seconds, then prints what it saw and dropped.
/// ARP, neighbour discovery and ICMP are spared.
///
/// Put it on the *kernel's* end of a veth pair: frames that an AF_XDP socket takes or sends never come by a classifier. What it
/// sees as one frame may be a bundle of segments: for loss frame by frame, turn segmentation offload off (ethtool -K DEV tso off gso off).
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The device.
    #[arg(value_name = "DEV")]
    device: String,
    /// How many frames of a hundred to lose; decimals down to 0.0001 count.
    #[arg(long, value_name = "P", value_parser = parts_per_million)]
    percent: u32,
    /// Decide by this seed and the frame's number in its direction, so that a run can be repeated, instead of by the kernel's dice.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Stop after this time.
    #[arg(long, value_name = "N", value_parser = seconds)]
    seconds: Option<Duration>,
}

fn parts_per_million(text: &str) -> std::result::Result<u32, String> {
    let percent: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.0..=100.0).contains(&percent) {
        return Err("not between 0 and 100".to_owned());
    }
    Ok((percent * 10_000.0).round() as u32)
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a length of time".to_owned())
}

/// What came by, and what of it was dropped.
pub(crate) struct Report {
    ingress: Wire,
    egress: Wire,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ingress, egress } = self;
        write!(
            f,
            "ingress seen {} dropped {} egress seen {} dropped {}",
            ingress.seen, ingress.dropped, egress.seen, egress.dropped
        )
    }
}

/// The whole tool.
pub(crate) fn run(options: &Options) -> Result<Report> {
    // Blocked before anything is attached, so that no signal can end the process without its report.
    let signals = block_signals()?;
    let mut dropper = Ebpf::load(DROPPER_OBJECT)?;
    configure(&mut dropper, options)?;
    let device = &options.device;
    attach(&mut dropper, device, "drop_ingress", TcAttachType::Ingress)?;
    attach(&mut dropper, device, "drop_egress", TcAttachType::Egress)?;
    eprintln!("dropping {} % on {device}", f64::from(options.percent) / 10_000.0);
    wait(&signals, options.seconds)?;
    detach(&mut dropper)?;
    report(&dropper)
}

fn configure(dropper: &mut Ebpf, options: &Options) -> Result<()> {
    let loss = Loss {
        threshold: threshold(options.percent),
        seed: options.seed.unwrap_or_default(),
        seeded: options.seed.is_some().into(),
    };
    let map = dropper.map_mut("LOSS").ok_or("the dropper has no map LOSS")?;
    let mut map: Array<&mut MapData, [u8; 24]> = map.try_into()?;
    map.set(0, loss.to_bytes(), 0)?;
    Ok(())
}

fn attach(dropper: &mut Ebpf, device: &str, name: &str, direction: TcAttachType) -> Result<()> {
    let program = classifier(dropper, name)?;
    program.load()?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    program
        .attach_with_options(device, direction, options)
        .map_err(|error| format!("cannot attach to {device}: {}", crate::one_line(&error)))?;
    Ok(())
}

/// Takes the programs off before the counters are read, so that the report is final.
fn detach(dropper: &mut Ebpf) -> Result<()> {
    for name in ["drop_ingress", "drop_egress"] {
        classifier(dropper, name)?.unload()?;
    }
    Ok(())
}

fn classifier<'a>(dropper: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = dropper.program_mut(name);
    Ok(program.ok_or_else(|| format!("the dropper has no program {name}"))?.try_into()?)
}

fn report(dropper: &Ebpf) -> Result<Report> {
    let map = dropper.map("WIRES").ok_or("the dropper has no map WIRES")?;
    let wires: Array<&MapData, [u8; 16]> = map.try_into()?;
    let wire = |index| wires.get(&index, 0).map(Wire::from_bytes);
    Ok(Report { ingress: wire(0)?, egress: wire(1)? })
}

fn block_signals() -> Result<SignalFd> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?)
}

/// Until a signal, the end of standard input, or the end of the time.
fn wait(signals: &SignalFd, limit: Option<Duration>) -> Result<()> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let stdin = io::stdin();
    let mut watch_stdin = is_pipe(stdin.as_fd());
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(());
        }
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if watch_stdin {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        // Rounded up, or the last millisecond would be spent spinning; a wait longer than poll can express comes round again.
        let timeout = left
            .map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX));
        poll(&mut fds, timeout)?;
        let ready = |fd: &PollFd<'_>| fd.any() == Some(true);
        if ready(&fds[0]) {
            return Ok(());
        }
        if fds.get(1).is_some_and(ready) {
            watch_stdin = stdin.lock().read(&mut [0; 512])? > 0;
            if !watch_stdin {
                return Ok(());
            }
        }
    }
}

/// Whether the end of this file says that somebody went away. A background job's /dev/null is at its end from the beginning.
fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    let kind = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    fstat(fd).is_ok_and(|stat| matches!(kind(stat.st_mode), SFlag::S_IFIFO | SFlag::S_IFSOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_has_the_resolution_it_promises() {
        assert_eq!(parts_per_million("2"), Ok(20_000));
        assert_eq!(parts_per_million("0.0001"), Ok(1));
        assert_eq!(parts_per_million("100"), Ok(1_000_000));
        for wrong in ["-1", "100.1", "NaN", "many", ""] {
            assert!(parts_per_million(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_are_a_length_of_time() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert!(seconds("-1").is_err() && seconds("soon").is_err());
    }
}
