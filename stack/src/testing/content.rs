//! What applications send: every octet follows from its stream and its place, so that anybody can check it.

/// Which end of a connection wrote a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Client,
    Server,
}

/// The port that servers of the simulation listen at: who sends from it is the server.
pub(crate) const SERVER_PORT: u16 = 80;

/// Octet `at` of the stream that `side` of the connection from `client_port` writes.
pub(crate) fn octet(client_port: u16, side: Side, at: u64) -> u8 {
    let side = if side == Side::Client { 0 } else { 0x5a };
    (at.wrapping_mul(0x9e37_79b1) >> 16) as u8 ^ client_port as u8 ^ (client_port >> 8) as u8 ^ side
}

/// Where `bytes`, which start at `from`, first differ from what the stream holds.
pub(crate) fn first_wrong(client_port: u16, side: Side, from: u64, bytes: &[u8]) -> Option<u64> {
    let i = bytes.iter().zip(from..).position(|(b, at)| *b != octet(client_port, side, at))?;
    Some(from + i as u64)
}
