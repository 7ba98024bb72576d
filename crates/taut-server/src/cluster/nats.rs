//! The cluster on NATS: [`driver`] says how it is driven.
//!
//! Events go by core NATS, or, where the engine keeps the last one, through a stream that announces what it has kept. Everything that nodes hold
//! stands in one stream, the [`log`]: each node reads all of it and derives from its order who comes first, who goes last, and who is dead. An
//! incarnation renews its lease by an entry of its own, and it is fenced by one in the same place: the stream takes either only if the one before it
//! is the one that its writer has seen, so exactly one of the two happens.

mod api;
mod connection;
mod entry;
mod log;
mod login;
mod names;
mod protocol;
mod queue;
mod router;
mod session;
#[cfg(test)]
mod tests;
mod url;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use self::api::Failure;
use self::connection::Lost;
use self::log::Log;
pub(super) use self::session::Session;
pub(super) use self::url::FORMS;
use self::url::{Address, InvalidUrl};
use super::driver;
use crate::hub::engine::Epoch;

/// Whether a text is the address of a NATS.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    Address::parse(url).map(drop).map_err(|invalid| invalid.to_string())
}

/// What outlives a session.
type Memory = driver::Memory<Kept>;

#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    /// The log as far as it was read. Nobody else may know what has happened, and has not been told to webhooks.
    log: Option<Log>,
    /// The log that was read last.
    epoch: Option<Epoch>,
    /// Until then other nodes may not have told a new log yet what they hold.
    settles: Option<Instant>,
    /// Since when a NATS cluster has had too few servers for a log that survives the death of one.
    alone: Option<Instant>,
}

impl Kept {
    /// The log is this one, read as far as it is.
    fn put(&self, log: Log) {
        self.remembered().log = Some(log);
    }

    /// The log of this epoch as far as it was read before, if what has been written since is still there: entries may have been taken out up to `tidied`.
    fn take(&self, epoch: Epoch, tidied: u64) -> Option<Log> {
        let remembered = self.remembered().log.take();
        remembered.filter(|log| log.epoch() == epoch && log.sequence() >= tidied)
    }

    /// The engine has too few servers for several replicas. Gives whether it has had the time to become more: all of them may just have started.
    fn stays_alone(&self, now: Instant) -> bool {
        now >= *self.remembered().alone.get_or_insert(now) + GROWING
    }

    /// A session reads a log of this epoch: gives until when it may not be known yet what other nodes hold.
    fn begin(&self, epoch: Epoch, settled: Instant) -> Option<Instant> {
        let mut remembered = self.remembered();
        if remembered.epoch.replace(epoch).is_some_and(|known| known != epoch) {
            remembered.settles = Some(settled);
        }
        remembered.settles
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().expect("nobody panics with it")
    }
}

/// Why a session ends.
#[derive(Debug)]
pub(super) enum Doubt {
    /// There is no connection, or there is none any more.
    Connection(Lost),
    /// The server answers something with an error.
    Refused(Failure),
    /// The server has no JetStream, this account may not use it, or a stream is not there any more.
    NoJetStream,
    /// Another node has counted this one as dead, or the log was made anew.
    Fenced,
    /// The last renewal that came back is too long ago.
    Late,
    /// The server does not answer.
    Silent,
    /// A part of the log has not come.
    Gap,
    /// No answer that a server of NATS gives.
    Unexpected,
    /// Nodes with another format use the prefix.
    Other,
    Url(InvalidUrl),
}

impl fmt::Display for Doubt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(lost) => lost.fmt(formatter),
            Self::Refused(Failure { code, description, .. }) => {
                write!(formatter, "the server refuses it: {description} ({code})")
            }
            Self::NoJetStream => formatter
                .write_str("JetStream does not answer: it is not enabled for this account, or a stream was taken away"),
            Self::Fenced => formatter.write_str("this node's lease was over, or NATS has lost its memory"),
            Self::Late => formatter.write_str("this node has not renewed its lease in time"),
            Self::Silent => formatter.write_str("the server does not answer"),
            Self::Gap => formatter.write_str("a part of the cluster's log was lost on the way"),
            Self::Unexpected => formatter.write_str("an answer was not what servers of NATS give"),
            Self::Other => formatter
                .write_str("another version of Taut uses this prefix; choose another prefix, or stop those nodes"),
            Self::Url(invalid) => invalid.fmt(formatter),
        }
    }
}

impl From<Lost> for Doubt {
    fn from(lost: Lost) -> Self {
        Self::Connection(lost)
    }
}

/// For how long nodes wait for the servers of a NATS cluster to be enough for several replicas.
const GROWING: Duration = Duration::from_secs(10);
