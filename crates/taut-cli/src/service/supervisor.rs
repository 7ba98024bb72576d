//! Notifications to systemd, as `sd_notify(3)` and `sd_watchdog_enabled(3)` describe them. They go to the socket that
//! `NOTIFY_SOCKET` names; where there is none, nobody is told anything.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState::{self, ExtendTimeoutUsec, Ready, Reloading, Status, Stopping, Watchdog};
use taut_server::Liveness;

/// The service manager, if there is one.
pub(crate) struct Supervisor {
    /// There is one, and it wants to be told.
    is_there: bool,
    /// How long it waits for a sign of life before it ends the process, if it does so.
    patience: Option<Duration>,
    is_stopping: Arc<AtomicBool>,
}

impl Supervisor {
    pub(crate) fn find() -> Self {
        let patience = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero());
        Self { is_there: env::var_os("NOTIFY_SOCKET").is_some(), patience, is_stopping: Arc::default() }
    }

    /// The server serves, with the configuration that was read last.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&[Ready, Status(one_line(status))]);
    }

    /// The configuration is being read again; [`ready`](Self::ready) ends that, whatever came of it.
    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            // `Type=notify-reload` takes no notice of a reload that does not say when it began.
            Ok(now) => self.send(&[Reloading, now]),
            Err(error) => tracing::warn!(%error, "the service manager is not told of the reload"),
        }
    }

    /// The server stops, which may take as long as this, whatever `TimeoutStopSec=` says.
    pub(crate) fn stopping(&self, within: Duration) {
        self.is_stopping.store(true, Ordering::Relaxed);
        let within = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
        self.send(&[Stopping, ExtendTimeoutUsec(within)]);
    }

    /// Shows what the server does, in `systemctl status`.
    pub(crate) fn tell(&self, status: &str) {
        self.send(&[Status(one_line(status))]);
    }

    /// Gives signs of life while the server moves, if the service manager waits for them. The thread ends with the process.
    pub(crate) fn watch(&self, liveness: Liveness) {
        let Some(patience) = self.patience else { return };
        let interval = patience / SIGNS;
        let is_stopping = Arc::clone(&self.is_stopping);
        tracing::info!(?patience, "the service manager's watchdog is on");
        thread::spawn(move || {
            let mut was_alive = true;
            loop {
                // As it stops, the event loops end one after the other; TimeoutStopSec= is what bounds that.
                let is_alive = is_stopping.load(Ordering::Relaxed) || liveness.is_alive(interval.max(SHORTEST_SILENCE));
                if is_alive {
                    send(&[Watchdog]);
                } else if was_alive {
                    tracing::error!(
                        ?patience,
                        "an event loop is stuck: the service manager ends the process unless it moves again"
                    );
                }
                was_alive = is_alive;
                thread::sleep(interval);
            }
        });
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if self.is_there {
            send(states);
        }
    }
}

/// A notification that cannot be sent is one that nobody waits for, or the service manager will say that it is missing.
fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        let state = states.first().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%error, "the service manager cannot be told: {state}");
    }
}

/// Each line of a notification is one of its variables.
fn one_line(status: &str) -> &str {
    status.lines().next().unwrap_or_default()
}

/// Signs of life within the time that the service manager waits for one: two may be late.
const SIGNS: u32 = 3;

/// Event loops are asked once a second, and one that is busy answers later.
const SHORTEST_SILENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_an_error_becomes_another_variable() {
        assert_eq!(one_line("wrong\nMAINPID=1"), "wrong");
        assert_eq!(one_line(""), "");
    }
}
