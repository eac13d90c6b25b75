//! The XDP program of sidestep.
#![no_std]
