//! What a server holds, before its connections and with them.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Outcome;
use crate::server::{Memory, Server};

/// What one fresh process held before and after.
#[derive(Debug, Serialize)]
pub struct IdleMemory {
    /// Which of the fresh processes.
    pub start: usize,
    /// The position of the memory case.
    pub idle: usize,
    /// The position of the server.
    pub peer: usize,
    /// What it held.
    #[serde(flatten)]
    pub memory: BeforeAndAfter,
}

/// Memory with one connection that has come and gone, and with all connections idle.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BeforeAndAfter {
    /// With one connection that has come and gone.
    pub before: Memory,
    /// With all connections.
    pub after: Memory,
}

/// The memory once it has stopped changing. No event tells when a process is done tidying up, so this looks again and
/// again, and at the end takes what there is: a garbage collector may never be done.
pub fn settled(server: &Server) -> Outcome<Memory> {
    let deadline = Instant::now() + SETTLING;
    let mut last = server.memory()?;
    let mut unchanged = 0;
    while unchanged < STEADY_LOOKS && Instant::now() < deadline {
        thread::sleep(LOOK_AGAIN);
        let memory = server.memory()?;
        unchanged = if memory.anonymous == last.anonymous { unchanged + 1 } else { 0 };
        last = memory;
    }
    Ok(last)
}

const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A second without change.
const STEADY_LOOKS: u32 = 20;
const SETTLING: Duration = Duration::from_secs(5);
