//! libsidestep.so
