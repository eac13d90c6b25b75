//! `sidestep-rig drop`: loads the dropper, attaches it to both directions of a device, waits, and reports.
//!
//! Attached by tcx links, which the kernel takes off when their file descriptors close: however this process ends, it leaves nothing behind.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use sidestep_xdp::DROPPER_OBJECT;
use sidestep_xdp::rig::{Loss, Wire, threshold};

use crate::ending::Ending;
use crate::quantities::{parts_per_million, seconds};

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
    let mut ending = Ending::new(options.seconds)?;
    let mut dropper = Ebpf::load(DROPPER_OBJECT)?;
    configure(&mut dropper, options)?;
    let device = &options.device;
    attach(&mut dropper, device, "drop_ingress", TcAttachType::Ingress)?;
    attach(&mut dropper, device, "drop_egress", TcAttachType::Egress)?;
    eprintln!("dropping {} % on {device}", f64::from(options.percent) / 10_000.0);
    while !ending.wait(&[], None)? {}
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
