//! What the benchmarks share: servers as processes on a core of their own, windows and what was counted in them, the
//! order of an interleaved run, ratios and their tables. How and why it measures this way stands in `bench/README.md`.

use std::error::Error;

pub mod arguments;
pub mod connect;
pub mod frame;
pub mod memory;
pub mod peers;
pub mod report;
pub mod rounds;
pub mod server;
pub mod window;

/// What can go wrong here ends the run; the text says what, where and what to do.
pub type Outcome<T> = Result<T, Box<dyn Error>>;
