//! Any script for a client and a server whose futures are dropped midway: nothing is lost, duplicated or reordered.
//!
//! Input: seven octets of choices (the pipes' capacity, compression, the bounds, and for each end whether it writes
//! vectored and in which pieces), then one octet for each act: the lowest bit says who, the next three how many polls,
//! the upper half what: 0 to 4 receive, 5 to 9 send, 10 and 11 try to send, 12 ping, 13 and 14 flush, 15 close if the
//! octet after it is below 64. Sending and pinging take one octet more, for the length.

/// Runs one input.
pub fn run(data: &[u8]) {
    taut::testing::cancelled(data);
}
