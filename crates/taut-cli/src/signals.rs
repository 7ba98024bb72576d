//! Ctrl-C and SIGTERM, as a task receives them.

use std::io;
use std::sync::Arc;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::exit::Exit;

/// Signals that ask the command to end, caught from now on.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
    typed: Interrupter,
}

/// Interrupts as Ctrl-C does, where the terminal sends no signal for it: a line editor reads it as a key.
#[derive(Clone, Default)]
pub(crate) struct Interrupter(Arc<Notify>);

impl Interrupter {
    pub(crate) fn interrupt(&self) {
        self.0.notify_one();
    }
}

impl Signals {
    /// Catches them, and what is `typed`. A line editor changes what SIGINT does, so it has to be open before.
    pub(crate) fn catch(typed: Interrupter) -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt())?,
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
            typed,
        })
    }

    /// The next one, as the code that the command ends with.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
            () = self.typed.0.notified() => Exit::Interrupted,
        }
    }

    /// The next one, as the code that the command ends with.
    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) -> Exit {
        tokio::select! {
            // Without a handler nothing would come.
            _ = tokio::signal::ctrl_c() => Exit::Interrupted,
            () = self.typed.0.notified() => Exit::Interrupted,
        }
    }
}
