#![cfg_attr(not(any(feature = "linux", test)), no_std)]
