//! The facts of a network device: what netlink and ethtool say of it.

use crate::failure::{Context, Outcome, fail};
use crate::rtnl::{Requests, errno};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp, XdpAttached};
use sidestep_stack::addr::Mac;
use std::os::fd::AsRawFd;

/// A network device, as it is now.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
    pub(crate) is_up: bool,
    /// Receive queues.
    pub(crate) queues: u32,
    /// Transmit queues.
    pub(crate) transmit_queues: u32,
    /// Its driver, as ethtool names it; empty when it does not say.
    pub(crate) driver: String,
    pub(crate) xdp: Option<AttachedProgram>,
}

/// An XDP program that is attached to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttachedProgram {
    pub(crate) id: u32,
    pub(crate) ifindex: u32,
    pub(crate) is_generic: bool,
}

impl Device {
    /// Looks at the device called `name` in this network namespace.
    pub(crate) fn find(name: &str) -> Outcome<Device> {
        if name.is_empty() || name.len() > 15 || name.contains('/') {
            fail!("{name:?} cannot be a network device: names have 1 to 15 characters and no slash");
        }
        let mut requests = Requests::open().context("cannot open netlink")?;
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answer = match requests.get(RouteNetlinkMessage::GetLink(question)) {
            Ok(answer) => answer,
            Err(e) if errno(&e) == libc::ENODEV => {
                fail!("there is no network device {name} here (ip link shows those that are)")
            }
            Err(e) => fail!("cannot ask for device {name}: {e}"),
        };
        let link =
            answer.into_iter().find_map(|m| if let RouteNetlinkMessage::NewLink(l) = m { Some(l) } else { None });
        let Some(link) = link else { fail!("the kernel's description of device {name} cannot be understood") };
        Self::from_link(name, &link)
    }

    fn from_link(name: &str, link: &LinkMessage) -> Outcome<Device> {
        let mut device = Device {
            name: name.to_owned(),
            index: link.header.index,
            mac: Mac::default(),
            mtu: 1500,
            is_up: link.header.flags.contains(LinkFlags::Up),
            queues: 1,
            transmit_queues: 1,
            driver: driver(name).unwrap_or_default(),
            xdp: None,
        };
        if link.header.link_layer_type != LinkLayerType::Ether {
            fail!("{name} is not an Ethernet device");
        }
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
                LinkAttribute::Address(bytes) => {
                    device.mac = Mac(<[u8; 6]>::try_from(bytes.as_slice()).unwrap_or_default());
                }
                LinkAttribute::NumRxQueues(n) => device.queues = *n,
                LinkAttribute::NumTxQueues(n) => device.transmit_queues = *n,
                LinkAttribute::Xdp(facts) => device.xdp = attached(link.header.index, facts),
                _ => {}
            }
        }
        if let Some((receive, transmit)) = channels(name) {
            (device.queues, device.transmit_queues) = (receive, transmit);
        }
        device.queues = device.queues.clamp(1, sidestep_xdp::maps::MAX_QUEUES);
        Ok(device)
    }

    /// Whether its peers may leave checksums to hardware that is not there.
    pub(crate) fn is_virtual(&self) -> bool {
        matches!(self.driver.as_str(), "veth" | "virtio_net" | "tun" | "bridge" | "macvlan" | "dummy" | "xen_netfront")
    }
}

fn attached(ifindex: u32, facts: &[LinkXdp]) -> Option<AttachedProgram> {
    let mut mode = XdpAttached::None;
    let (mut any, mut native, mut generic) = (0, 0, 0);
    for fact in facts {
        match fact {
            LinkXdp::Attached(m) => mode = *m,
            LinkXdp::ProgId(id) => any = *id,
            LinkXdp::DrvProgId(id) | LinkXdp::HwProgId(id) => native = *id,
            LinkXdp::SkbProgId(id) => generic = *id,
            _ => {}
        }
    }
    let id = [native, any, generic].into_iter().find(|id| *id != 0)?;
    let is_generic = mode == XdpAttached::SocketBuffer || (native == 0 && generic == id);
    Some(AttachedProgram { id, ifindex, is_generic })
}

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// Asks ethtool with a command record of `N` bytes whose first word is the command.
fn ethtool<const N: usize>(name: &str, command: u32) -> Option<[u8; N]> {
    #[repr(C, align(8))]
    struct Record<const N: usize>([u8; N]);
    let mut record = Record([0u8; N]);
    record.0[..4].copy_from_slice(&command.to_ne_bytes());
    // SAFETY: all zeroes is a valid ifreq: integers and, in the union, a null pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut record).cast();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").or_else(|_| std::net::UdpSocket::bind("[::1]:0"));
    let fd = match &socket {
        Ok(s) => s.as_raw_fd(),
        Err(_) => return ethtool_netlink_socket(&mut request).then_some(record.0),
    };
    // SAFETY: the request points to a record of the size that the command has, alive and writable during the call.
    let done = unsafe { libc::ioctl(fd, libc::SIOCETHTOOL as _, &raw mut request) };
    (done == 0).then_some(record.0)
}

/// The same over a netlink socket: a new namespace whose loopback is down has no address to bind to.
fn ethtool_netlink_socket(request: &mut libc::ifreq) -> bool {
    let Ok(socket) = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE) else { return false };
    // SAFETY: as in `ethtool`, whose request this is.
    unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut *request) == 0 }
}

/// Receive and transmit queues in use: channels of the one kind, and combined ones.
fn channels(name: &str) -> Option<(u32, u32)> {
    let record = ethtool::<36>(name, ETHTOOL_GCHANNELS)?;
    let word = |i: usize| u32::from_ne_bytes([record[4 * i], record[4 * i + 1], record[4 * i + 2], record[4 * i + 3]]);
    let (receive, transmit, combined) = (word(5), word(6), word(8));
    (receive + combined > 0).then_some((receive + combined, (transmit + combined).max(1)))
}

fn driver(name: &str) -> Option<String> {
    let record = ethtool::<196>(name, ETHTOOL_GDRVINFO)?;
    let text = &record[4..36];
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    Some(String::from_utf8_lossy(&text[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_devices_are_named() {
        let e = Device::find("no-such-dev0").unwrap_err().to_string();
        assert!(e.contains("no-such-dev0") && e.contains("ip link"), "{e}");
        assert!(Device::find("a-name-that-is-too-long").is_err());
        assert!(Device::find("a/b").is_err());
        // The loopback device is there in every namespace, and no Ethernet device.
        let e = Device::find("lo").unwrap_err().to_string();
        assert!(e.contains("Ethernet"), "{e}");
    }

    #[test]
    fn attached_programs() {
        assert_eq!(attached(1, &[LinkXdp::Attached(XdpAttached::None)]), None);
        let native = [LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(7), LinkXdp::DrvProgId(7)];
        assert_eq!(attached(1, &native), Some(AttachedProgram { id: 7, ifindex: 1, is_generic: false }));
        let generic = [LinkXdp::Attached(XdpAttached::SocketBuffer), LinkXdp::ProgId(9), LinkXdp::SkbProgId(9)];
        assert_eq!(attached(1, &generic), Some(AttachedProgram { id: 9, ifindex: 1, is_generic: true }));
    }
}
