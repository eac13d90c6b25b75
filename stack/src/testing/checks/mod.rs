//! What has to hold in every history of the simulation.
//!
//! On the wire, as a passive monitor beside each host sees it ([`monitor`]; [`sight`] reads frames, [`view`] remembers):
//! - [`sending`]: the right octets, within window, segment size and stream, none that was acknowledged;
//! - [`answers`]: acknowledgements, windows, timestamps and selective acknowledgements are true and never go back.
//!
//! Inside, after every event and in the end:
//! - [`hosts`]: nothing is outstanding without a deadline; in the end nothing is left;
//! - [`pairs`]: the states of both ends fit; [`counters`]: the counters add up.
//!
//! That every octet is read once and in order, and that all ends, the applications check (`apps`).

pub(crate) mod answers;
pub(crate) mod counters;
pub(crate) mod hosts;
pub(crate) mod monitor;
pub(crate) mod pairs;
mod ranges;
pub(crate) mod sending;
pub(crate) mod sight;
mod view;

use crate::testing::alloc::string::String;

/// What a check says: nothing, or what is wrong.
pub(crate) type Verdict = Result<(), String>;
