//! The XDP program on the device: loading, attaching, replacing, detaching.
//!
//! It is attached by netlink, not by a bpf_link: a link dies with the daemon, and with it every connection.

use super::device::{AttachedProgram, Device};
use crate::failure::{Context, Outcome, fail};
use crate::rtnl::{Requests, errno};
use aya::programs::{ProgramInfo, Xdp, loaded_programs};
use aya::{Ebpf, EbpfLoader};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use sidestep_xdp::maps::names;
use std::os::fd::{AsFd, AsRawFd, RawFd};

const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1 << 0;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// How the program came to be attached.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) program_id: u32,
    pub(crate) is_generic: bool,
    /// Why it is not native; empty when it is.
    pub(crate) reason: String,
}

/// Loads the program and its maps. Nothing is attached yet.
pub(crate) fn load() -> Outcome<Ebpf> {
    let mut loaded =
        EbpfLoader::new().load(sidestep_xdp::STEER_OBJECT).map_err(|e| explain("cannot load the XDP program", &e))?;
    program(&mut loaded)?.load().map_err(|e| explain("the kernel refuses the XDP program", &e))?;
    Ok(loaded)
}

fn program(loaded: &mut Ebpf) -> Outcome<&mut Xdp> {
    let Some(program) = loaded.program_mut(names::PROGRAM) else { fail!("the built-in XDP program is damaged") };
    program.try_into().context("the built-in XDP program is damaged")
}

/// The first line of each cause: the verifier's log follows it in aya's errors, and is for nobody's eyes here.
fn explain(what: &str, error: &dyn std::error::Error) -> crate::failure::Failure {
    let mut text = what.to_owned();
    let mut cause = Some(error);
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(e.to_string().lines().next().unwrap_or_default());
        cause = e.source();
    }
    crate::failure::Failure::new(text)
}

/// A loaded program, if it is there and may be looked at.
pub(crate) fn loaded_program(id: u32) -> Option<ProgramInfo> {
    loaded_programs().filter_map(Result::ok).find(|info| info.id() == id)
}

fn program_name(id: u32) -> Option<String> {
    loaded_program(id)?.name_as_str().map(str::to_owned)
}

/// Whether the program on the device is one of ours: that of a daemon that died.
pub(crate) fn is_ours(attached: AttachedProgram) -> bool {
    program_name(attached.id).is_some_and(|name| name == names::PROGRAM)
}

/// Refuses when a program of somebody else's is on the device.
pub(crate) fn check_free(device: &Device, replace: bool) -> Outcome<()> {
    let Some(there) = device.xdp else { return Ok(()) };
    if replace || is_ours(there) {
        return Ok(());
    }
    let name = program_name(there.id).unwrap_or_else(|| "?".into());
    fail!(
        "another XDP program is attached to {}: {name:?}, id {}; remove it (ip link set dev {} xdp{} off) or take its place with --replace",
        device.name,
        there.id,
        device.name,
        if there.is_generic { "generic" } else { "" }
    )
}

/// Attaches the program, natively if the driver can and the operator does not want otherwise.
pub(crate) fn attach(loaded: &mut Ebpf, device: &Device, replace: bool, generic: bool) -> Outcome<Attachment> {
    check_free(device, replace)?;
    if let Some(there) = device.xdp {
        detach(there).context(format!("cannot remove the XDP program of before from {}", device.name))?;
    }
    let program = program(loaded)?;
    let fd = program.fd().context("the XDP program is not loaded")?.as_fd().as_raw_fd();
    let program_id = program.info().context("cannot look at the XDP program")?.id();
    let mut reason = String::from("generic mode was asked for");
    if !generic {
        match set(device.index, fd, XDP_FLAGS_DRV_MODE | XDP_FLAGS_UPDATE_IF_NOEXIST) {
            Ok(()) => return Ok(Attachment { program_id, is_generic: false, reason: String::new() }),
            Err(e) if errno(&e) == libc::EPERM => fail!("cannot attach to {}: {e}; run it as root", device.name),
            Err(e) => reason = format!("the driver ({}) refuses native XDP: {e}", device.driver),
        }
    }
    set(device.index, fd, XDP_FLAGS_SKB_MODE | XDP_FLAGS_UPDATE_IF_NOEXIST)
        .context(format!("cannot attach the XDP program to {} ({reason}); generic mode", device.name))?;
    Ok(Attachment { program_id, is_generic: true, reason })
}

/// Takes a program off the device.
pub(crate) fn detach(there: AttachedProgram) -> std::io::Result<()> {
    set(there.ifindex, -1, if there.is_generic { XDP_FLAGS_SKB_MODE } else { XDP_FLAGS_DRV_MODE })
}

fn set(ifindex: u32, fd: RawFd, flags: u32) -> std::io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Fd(fd), LinkXdp::Flags(flags)]));
    Requests::open()?.change(RouteNetlinkMessage::SetLink(message), 0)
}
