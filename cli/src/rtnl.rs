//! Questions to netlink, one at a time: send, read until the answer is complete, understand its error.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use netlink_sys::{Socket, SocketAddr};
use std::io;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;

/// A socket for requests and their answers.
pub(crate) struct Requests {
    socket: Socket,
    sequence: u32,
}

impl Requests {
    /// To rtnetlink(7).
    pub(crate) fn open() -> io::Result<Requests> {
        Requests::to(NETLINK_ROUTE)
    }

    /// To sock_diag(7).
    pub(crate) fn open_sock_diag() -> io::Result<Requests> {
        Requests::to(NETLINK_SOCK_DIAG)
    }

    fn to(protocol: isize) -> io::Result<Requests> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Requests { socket, sequence: 0 })
    }

    /// A change; `Ok` when the kernel acknowledged it.
    pub(crate) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.answers(|_| ())
    }

    /// A change that is not waited for; what the kernel thinks of it is dropped with the next answer.
    pub(crate) fn tell(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | flags)
    }

    /// A question with one answer.
    pub(crate) fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.collect(message, NLM_F_REQUEST | NLM_F_ACK)
    }

    /// A question with many answers. Messages that the library cannot read are skipped.
    pub(crate) fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.collect(message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    fn collect(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, flags)?;
        let mut all = Vec::new();
        self.answers(|message| all.extend(parse(message)))?;
        Ok(all)
    }

    /// A question with many answers, of a family whose messages the library does not know: what follows their headers.
    pub(crate) fn dump_bytes(&mut self, kind: u16, body: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend([0; 4]); // the port of the asker: the kernel knows it
        bytes.extend(body);
        self.socket.send(&bytes, 0)?;
        self.answers(|message| take(&message[HEADER..]))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    /// Reads up to the end of the answer to the last request: DONE, or ERROR (whose code 0 is the acknowledgement).
    fn answers(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            for message in split(&bytes).filter(|m| word(m, 8) == self.sequence) {
                match kind(message) {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return error(message),
                    _ => take(message),
                }
            }
        }
    }
}

/// A socket that hears of changes.
pub(crate) struct Events {
    socket: Socket,
}

/// What a look at the event socket brought.
pub(crate) enum Heard {
    Messages(Vec<RouteNetlinkMessage>),
    /// Some were lost: ask for everything again.
    Overrun,
    Nothing,
}

impl Events {
    pub(crate) fn subscribe(groups: &[u32]) -> io::Result<Events> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // Room for a burst; a failure only makes an overrun, and with it a new dump, more likely.
        let _ = socket.set_rx_buf_sz(1u32 << 20);
        for group in groups {
            socket.add_membership(*group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Events { socket })
    }

    pub(crate) fn fd(&self) -> std::os::fd::RawFd {
        use std::os::fd::AsRawFd;
        self.socket.as_raw_fd()
    }

    /// One datagram's worth of events, without waiting.
    pub(crate) fn hear(&mut self) -> Heard {
        match self.socket.recv_from_full() {
            Ok((bytes, _)) if !bytes.is_empty() => Heard::Messages(split(&bytes).filter_map(parse).collect()),
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => Heard::Overrun,
            _ => Heard::Nothing,
        }
    }
}

fn parse(message: &[u8]) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).ok()?.payload {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

fn kind(message: &[u8]) -> u16 {
    message.get(4..6).map_or(0, |b| u16::from_ne_bytes([b[0], b[1]]))
}

/// The messages of a datagram; ends at the first whose length does not fit.
fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = word(bytes, 0) as usize;
        if len < HEADER || len > bytes.len() {
            return None;
        }
        let message = &bytes[..len];
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The error of an NLMSG_ERROR, with the kernel's own sentence where it sent one (NLMSGERR_ATTR_MSG).
fn error(message: &[u8]) -> io::Result<()> {
    const NLM_F_CAPPED: u16 = 0x100;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let code = word(message, HEADER) as i32;
    if code == 0 {
        return Ok(());
    }
    let os = io::Error::from_raw_os_error(code.saturating_neg());
    let flags = message.get(6..8).map_or(0, |b| u16::from_ne_bytes([b[0], b[1]]));
    let echoed = if flags & NLM_F_CAPPED != 0 { HEADER } else { word(message, HEADER + 4) as usize };
    let mut attributes = message.get((HEADER + 4).saturating_add(echoed)..).unwrap_or_default();
    while attributes.len() > 4 {
        let len = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let kind = u16::from_ne_bytes([attributes[2], attributes[3]]);
        if kind == NLMSGERR_ATTR_MSG && len > 4 && len <= attributes.len() {
            let text = String::from_utf8_lossy(&attributes[4..len]);
            return Err(Explained::wrap(os, text.trim_end_matches('\0')));
        }
        attributes = attributes.get(len.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    Err(os)
}

/// An error number together with the kernel's sentence.
#[derive(Debug)]
struct Explained {
    os: io::Error,
    text: String,
}

impl Explained {
    fn wrap(os: io::Error, text: &str) -> io::Error {
        io::Error::new(os.kind(), Explained { os, text: text.to_owned() })
    }
}

impl std::fmt::Display for Explained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.os, self.text)
    }
}

impl std::error::Error for Explained {}

/// The error number behind an error of this module.
pub(crate) fn errno(e: &io::Error) -> i32 {
    let inner = e.get_ref().and_then(|inner| inner.downcast_ref::<Explained>());
    inner.map_or(e.raw_os_error(), |explained| explained.os.raw_os_error()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn errors_carry_the_kernels_sentence() {
        assert!(error(&message(NLMSG_ERROR, 0, &[0; 20])).is_ok());
        let mut body = (-libc::EBUSY).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        body.extend(8u16.to_ne_bytes());
        body.extend(1u16.to_ne_bytes());
        body.extend(b"no!\0");
        let e = error(&message(NLMSG_ERROR, 0x100, &body)).unwrap_err();
        assert_eq!(errno(&e), libc::EBUSY);
        assert!(e.to_string().ends_with("(no!)"), "{e}");
        let e = error(&message(NLMSG_ERROR, 0x100, &(-1i32).to_ne_bytes())).unwrap_err();
        assert_eq!(errno(&e), libc::EPERM);
    }

    #[test]
    fn datagrams_split_and_nonsense_ends_them() {
        let mut bytes = message(7, 0, &[1, 2, 3, 4]);
        bytes.extend(message(8, 0, &[]));
        bytes.extend([255, 0, 0, 0, 9]);
        assert_eq!(split(&bytes).map(kind).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(split(&[0; 40]).count(), 0);
    }
}
