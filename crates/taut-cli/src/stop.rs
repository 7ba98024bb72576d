//! Requests to stop: the first asks for a drain, the second ends the process.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::Stop;
#[cfg(windows)]
pub(crate) use windows::Stop;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requester {
    /// Somebody at a terminal, who waits (Ctrl-C).
    Person,
    /// A program (SIGTERM), or Windows as it shuts down.
    Supervisor,
}
