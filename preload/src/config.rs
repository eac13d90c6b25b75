//! What the environment asks for (`sidestep run` sets it): read once, at load.

use core::ffi::CStr;
use sidestep_stack::arena::Proto;
use std::sync::OnceLock;

/// Most single ports and ranges in SIDESTEP_PORTS.
const MAX_RANGES: usize = 64;

/// The device's name, as the kernel bounds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceName {
    bytes: [u8; 16],
    len: u8,
}

impl DeviceName {
    pub(crate) fn new(name: &[u8]) -> Option<DeviceName> {
        let usable = !name.is_empty() && name.len() < 16 && !name.contains(&b'/') && core::str::from_utf8(name).is_ok();
        let mut bytes = [0; 16];
        bytes.get_mut(..name.len()).filter(|_| usable)?.copy_from_slice(name);
        Some(DeviceName { bytes, len: name.len() as u8 })
    }

    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(self.bytes.get(..self.len as usize).unwrap_or(&[])).unwrap_or("")
    }
}

/// The ports that may be sidestepped; none listed means every port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    ranges: [(Proto, u16, u16); MAX_RANGES],
    len: usize,
}

impl Ports {
    pub(crate) const ALL: Ports = Ports { ranges: [(Proto::Tcp, 0, 0); MAX_RANGES], len: 0 };

    /// Reads `80,443/tcp,53/udp,8000-8010`; a port without a protocol is TCP's. What cannot be read is left out.
    pub(crate) fn parse(text: &[u8]) -> Ports {
        let mut ports = Ports::ALL;
        let text = core::str::from_utf8(text).unwrap_or("");
        for item in text.split(',').map(str::trim) {
            let (item, proto) = match item.split_once('/').unwrap_or((item, "tcp")) {
                (item, "tcp") => (item, Proto::Tcp),
                (item, "udp") => (item, Proto::Udp),
                _ => continue,
            };
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            if let (Ok(first), Ok(last), Some(slot)) = (first.parse(), last.parse(), ports.ranges.get_mut(ports.len)) {
                *slot = (proto, first, last);
                ports.len += 1;
            }
        }
        ports
    }

    pub(crate) fn allow(&self, proto: Proto, port: u16) -> bool {
        let listed = self.ranges.iter().take(self.len);
        self.len == 0 || listed.into_iter().any(|(its, first, last)| *its == proto && (*first..=*last).contains(&port))
    }
}

/// Default of SIDESTEP_SPIN_US: a little more than the round trip of a client that sleeps (50 to 80 µs on veth). A thread
/// whose spins find nothing stops spinning ([`crate::blocking::Spin`]).
const SPIN_US: u32 = 100;

#[derive(Debug)]
pub(crate) struct Config {
    /// SIDESTEP_DEV.
    pub(crate) device: Option<DeviceName>,
    /// SIDESTEP_PORTS.
    pub(crate) ports: Ports,
    /// SIDESTEP_STRICT: end the process instead of falling back to the kernel.
    pub(crate) strict: bool,
    /// SIDESTEP_SPIN_US: how long a wait looks at the rings before it sleeps.
    pub(crate) spin_us: u32,
    /// SIDESTEP_WARNED: an ancestor has said already that it runs on the kernel.
    pub(crate) warned: bool,
}

fn variable(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: a NUL-terminated name; the value stays valid as long as nobody changes that variable, and it is
    // copied out before the constructor ends.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: getenv returned a NUL-terminated string.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes()).filter(|v| !v.is_empty())
}

fn number(text: &[u8]) -> Option<u32> {
    core::str::from_utf8(text).ok()?.trim().parse().ok()
}

static CONFIG: OnceLock<Config> = OnceLock::new();

/// The configuration; read at the first call.
pub(crate) fn config() -> &'static Config {
    CONFIG.get_or_init(|| Config {
        device: variable(c"SIDESTEP_DEV").and_then(DeviceName::new),
        ports: variable(c"SIDESTEP_PORTS").map_or(Ports::ALL, Ports::parse),
        strict: variable(c"SIDESTEP_STRICT").is_some_and(|v| v != b"0"),
        spin_us: variable(c"SIDESTEP_SPIN_US").and_then(number).unwrap_or(SPIN_US).min(1_000_000),
        warned: variable(c"SIDESTEP_WARNED").is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_numbers_and_ranges() {
        let ports = Ports::parse(b"80, 443,8000-8010,x,99999");
        for (port, expected) in [(80, true), (443, true), (8005, true), (8011, false), (0, false), (34463, false)] {
            assert_eq!(ports.allow(Proto::Tcp, port), expected, "{port}");
            assert!(!ports.allow(Proto::Udp, port), "{port}");
        }
        assert!(Ports::parse(b"").allow(Proto::Tcp, 1));
        let ports = Ports::parse(b"53/udp,80/tcp,99/sctp");
        assert!(ports.allow(Proto::Udp, 53) && ports.allow(Proto::Tcp, 80));
        assert!(!ports.allow(Proto::Tcp, 53) && !ports.allow(Proto::Udp, 80) && !ports.allow(Proto::Tcp, 99));
    }

    #[test]
    fn device_names_are_bounded() {
        assert_eq!(DeviceName::new(b"eth0").map(|d| d.as_str().len()), Some(4));
        for bad in [&b""[..], b"a/b", b"sixteen-bytes-xx", b"\xff"] {
            assert!(DeviceName::new(bad).is_none());
        }
    }
}
