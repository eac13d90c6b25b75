//! Headers as they lie on the wire: parsing what came, writing what goes.

pub mod tcp;
