//! Two engines joined by a model of a network: for unit tests, simulations, fuzzers and benchmarks.
