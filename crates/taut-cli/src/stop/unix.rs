//! Ctrl-C and SIGTERM.

use std::io;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Requester;

/// Signals that ask the process to stop, caught from now on.
pub(crate) struct Stop(Signals);

impl Stop {
    pub(crate) fn catch() -> io::Result<Self> {
        Signals::new([SIGINT, SIGTERM]).map(Self)
    }

    /// Waits for the first signal; a second one from then on ends the process at once, as the signal would have.
    pub(crate) fn wait(mut self) -> Requester {
        let asker = if self.0.forever().next() == Some(SIGINT) { Requester::Person } else { Requester::Supervisor };
        thread::spawn(move || {
            if let Some(signal) = self.0.forever().next() {
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        });
        asker
    }
}
