//! What the application asks of a connection (RFC 9293 §3.10.2 to §3.10.6): SEND, RECEIVE, CLOSE, ABORT.

use super::{Arrival, Context, Tcb, TcpError};
use crate::wire::tcp::Control;

/// SO_LINGER, as far as the connection is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Linger {
    /// FIN after all that is queued.
    #[default]
    Default,
    /// Linger for zero seconds: RST, and forget what is queued.
    Reset,
}

impl Tcb {
    /// Queues a copy of `data` for sending; returns how much of it. 0 means: no room now, or no frame.
    pub fn write(&mut self, cx: &mut Context<'_, '_>, data: &[u8]) -> usize {
        let _ = (cx, data);
        todo!()
    }

    /// Copies received bytes to `out`; with `peek`, they stay.
    pub fn read(&mut self, cx: &mut Context<'_, '_>, out: &mut [u8], peek: bool) -> usize {
        let _ = (cx, out, peek);
        todo!()
    }

    /// Discards up to `n` received bytes (MSG_TRUNC); returns how many.
    pub fn discard(&mut self, cx: &mut Context<'_, '_>, n: usize) -> usize {
        let _ = (cx, n);
        todo!()
    }

    /// Bytes that may be read now.
    pub fn available(&self) -> u32 {
        todo!()
    }

    /// Bytes that may be written now.
    pub fn send_room(&self) -> u32 {
        todo!()
    }

    /// Whether there is room enough to call it writable: at least half of what is used (Linux: sk_stream_is_writeable).
    pub fn is_writable(&self) -> bool {
        todo!()
    }

    /// Bytes queued and not acknowledged (SIOCOUTQ), our FIN not counted.
    pub fn unacked_bytes(&self) -> u32 {
        todo!()
    }

    /// Bytes queued and not sent yet (SIOCOUTQNSD).
    pub fn unsent_bytes(&self) -> u32 {
        todo!()
    }

    /// Whether the peer's FIN was reached.
    pub fn peer_fin_reached(&self) -> bool {
        todo!()
    }

    /// Whether the application shut the receiving side.
    pub fn is_receive_shutdown(&self) -> bool {
        todo!()
    }

    /// Whether our FIN is queued (or gone).
    pub fn is_send_shutdown(&self) -> bool {
        todo!()
    }

    /// Whether more may be written: the connection stands and was not shut for sending.
    pub fn may_send(&self) -> bool {
        self.state().may_send() && !self.is_send_shutdown()
    }

    /// Whether more may come: the peer's FIN was not reached, and the application did not shut the receiving side.
    pub fn may_receive(&self) -> bool {
        self.state().may_receive() && !self.is_receive_shutdown()
    }

    /// The pending error, if there is one; it is gone afterwards.
    pub fn take_error(&mut self) -> Option<TcpError> {
        todo!()
    }

    /// The pending error, which stays.
    pub fn error(&self) -> Option<TcpError> {
        todo!()
    }

    /// CLOSE for the sending half: FIN after what is queued.
    pub fn shutdown_send(&mut self, cx: &mut Context<'_, '_>) -> Arrival {
        let _ = cx;
        todo!()
    }

    /// The application will not read any more. The peer is not told (as on Linux).
    pub fn shutdown_receive(&mut self) {
        todo!()
    }

    /// CLOSE by the last holder: FIN, or RST when unread data is lost with it (RFC 9293 §3.6.1, as Linux does).
    pub fn close(&mut self, cx: &mut Context<'_, '_>, linger: Linger) -> Arrival {
        let _ = (cx, linger);
        todo!()
    }

    /// ABORT: the connection is over; the RST for the peer, where one is due.
    pub fn abort(&mut self, cx: &mut Context<'_, '_>) -> Option<Control> {
        let _ = cx;
        todo!()
    }

    /// Gives all frames back. Before the slot goes.
    pub fn release_all(&mut self, cx: &mut Context<'_, '_>) {
        let _ = cx;
        todo!()
    }

    pub fn set_nodelay(&mut self, on: bool) {
        self.options_mut().nodelay = on;
    }

    pub fn set_cork(&mut self, on: bool) {
        self.options_mut().cork = on;
    }

    /// Starts or stops the keepalive timer.
    pub fn set_keepalive(&mut self, cx: &mut Context<'_, '_>, on: bool) {
        let _ = cx;
        self.options_mut().keepalive = on;
    }
}
