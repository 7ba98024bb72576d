//! Any script for clients of a shard on a kernel of its own: partial reads and writes, resets, full sockets, any order.
//!
//! Input: four octets of choices (how slow readers are treated, compression, the size of the buffers, how many may
//! come; then how much may wait, how readiness is told; the order of events; random numbers), then three for each
//! act: what, which client, how. `taut_shard::testing::workload` says what each does.

/// Runs one input.
pub fn run(data: &[u8]) {
    taut_shard::testing::workload::run(data);
}
