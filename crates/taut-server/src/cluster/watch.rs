//! Tells the log how it stands with the engine.

use std::time::Instant;

use super::{Phase, State};

/// Tells the log of each change, once: asked from time to time, it misses none.
#[derive(Debug)]
pub(crate) struct StateLog {
    /// The engine, as it may be shown.
    engine: Box<str>,
    last: State,
    /// Since when the node has not been joined.
    since: Instant,
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Joined,
    Away,
    Rejoining,
    /// It was away and is back already.
    WasAway,
}

impl StateLog {
    /// The engine is named without its password.
    pub(crate) fn new(engine: impl Into<Box<str>>, now: Instant) -> Self {
        Self { engine: engine.into(), last: State::default(), since: now }
    }

    /// Tells what has changed since it was called last.
    pub(crate) fn tell(&mut self, state: State, now: Instant) {
        let change = self.change(state);
        if matches!(change, Some(Change::Away)) || (self.last.phase == Phase::Joined && state.phase != Phase::Joined) {
            self.since = now;
        }
        self.last = state;
        let (engine, losses) = (&*self.engine, state.losses);
        match change {
            Some(Change::Joined) => {
                let after = now.saturating_duration_since(self.since);
                tracing::info!(engine, losses, ?after, "the node has joined the cluster");
            }
            Some(Change::Away) => tracing::warn!(
                engine,
                losses,
                "the engine of the cluster cannot be reached: clients stay, and this node goes on by itself until it is back"
            ),
            Some(Change::Rejoining) => {
                tracing::info!(
                    engine,
                    losses,
                    "the engine of the cluster is there again: telling it what this node holds"
                );
            }
            Some(Change::WasAway) => tracing::warn!(
                engine,
                losses,
                "the engine of the cluster was lost for a moment, and the node has joined the cluster again"
            ),
            None => {}
        }
    }

    fn change(&self, state: State) -> Option<Change> {
        match (self.last.phase, state.phase) {
            (Phase::Joined, Phase::Joined) => (state.losses > self.last.losses).then_some(Change::WasAway),
            (before, after) if before == after => None,
            (_, Phase::Joined) => Some(Change::Joined),
            (_, Phase::Away) => Some(Change::Away),
            (_, Phase::Rejoining) => Some(Change::Rejoining),
            (_, Phase::Starting) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once_and_a_loss_between_two_looks_as_well() {
        let now = Instant::now();
        let mut log = StateLog::new("redis://redis:6379", now);
        let mut told = |phase, losses| {
            let state = State { phase, losses, ..State::default() };
            let change = log.change(state);
            log.tell(state, now);
            change
        };
        assert_eq!(told(Phase::Starting, 0), None);
        assert_eq!(told(Phase::Joined, 0), Some(Change::Joined));
        assert_eq!(told(Phase::Joined, 0), None);
        assert_eq!(told(Phase::Away, 1), Some(Change::Away));
        assert_eq!(told(Phase::Away, 1), None);
        assert_eq!(told(Phase::Rejoining, 1), Some(Change::Rejoining));
        assert_eq!(told(Phase::Joined, 1), Some(Change::Joined));
        assert_eq!(told(Phase::Joined, 2), Some(Change::WasAway));
        assert_eq!(told(Phase::Joined, 2), None);
    }
}
