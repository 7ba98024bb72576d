//! Ctrl-C and SIGTERM, as a task receives them.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Exit;

/// Signals that ask the command to end, caught from now on.
pub(super) struct Signals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt())?,
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one, as the code that the command ends with.
    #[cfg(unix)]
    pub(super) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }

    /// The next one, as the code that the command ends with.
    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) -> Exit {
        // Without a handler nothing would come.
        let _ = tokio::signal::ctrl_c().await;
        Exit::Interrupted
    }
}
