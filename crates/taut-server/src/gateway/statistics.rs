//! What is counted of one route.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Failure, Outcome};
use crate::query::Histogram;

/// Counts of one route since it is served as it is.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    connections: AtomicUsize,
    waiting: AtomicUsize,
    results: [AtomicU64; RESULTS.len()],
    durations: Mutex<Histogram>,
}

/// What has come of an event, as metrics and the console call it, in the order of [`result`].
pub(crate) const RESULTS: [&str; 6] = ["answered", "refused", "failed", "late", "busy", "rejected"];

/// An event is under way for as long as this lives.
pub(crate) struct UnderWay<'s>(&'s Statistics);

impl Statistics {
    /// A connection has been let in, and counts until it [has ended](Self::ended).
    pub(crate) fn began(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// An event waits for its turn, or for its answer.
    pub(crate) fn under_way(&self) -> UnderWay<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        UnderWay(self)
    }

    /// An event has its outcome after this time.
    pub(crate) fn record(&self, outcome: &Outcome, took: Duration) {
        self.results[result(outcome)].fetch_add(1, Ordering::Relaxed);
        self.durations.lock().unwrap_or_else(PoisonError::into_inner).record(took);
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many events had each of the [`RESULTS`].
    pub(crate) fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RESULTS.into_iter().zip(&self.results).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    pub(crate) fn durations(&self) -> Histogram {
        *self.durations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which of the [`RESULTS`] an outcome is.
pub(crate) fn result(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Answered(_) | Outcome::Passed(_) => 0,
        Outcome::Refused(_) => 1,
        Outcome::Failed(Failure::Broken) => 2,
        Outcome::Failed(Failure::Late) => 3,
        Outcome::Failed(Failure::Busy) => 4,
        Outcome::Failed(Failure::Rejected) => 5,
    }
}

#[cfg(test)]
mod tests {
    use taut_proto::handshake::Refusal;

    use super::*;

    #[test]
    fn each_outcome_is_counted_under_its_name() {
        let statistics = Statistics::default();
        let outcomes = [
            Outcome::Answered(Box::default()),
            Outcome::Refused(Refusal::with_status(401, "")),
            Outcome::Failed(Failure::Broken),
            Outcome::Failed(Failure::Late),
            Outcome::Failed(Failure::Busy),
            Outcome::Failed(Failure::Rejected),
        ];
        for (number, outcome) in outcomes.iter().enumerate() {
            for _ in 0..=number {
                statistics.record(outcome, Duration::from_micros(3));
            }
        }
        let expected = [("answered", 1), ("refused", 2), ("failed", 3), ("late", 4), ("busy", 5), ("rejected", 6)];
        assert_eq!(statistics.results().collect::<Vec<_>>(), expected);
        let passed = Statistics::default();
        passed.record(&Outcome::Passed(Box::default()), Duration::ZERO);
        assert_eq!(passed.results().next(), Some(("answered", 1)));
        assert_eq!((statistics.durations().counts[1], statistics.durations().sum), (21, 63));
    }

    #[test]
    fn connections_and_events_count_while_they_last() {
        let statistics = Statistics::default();
        statistics.began();
        statistics.began();
        statistics.ended();
        let one = statistics.under_way();
        let two = statistics.under_way();
        assert_eq!((statistics.connections(), statistics.waiting()), (1, 2));
        drop(one);
        assert_eq!(statistics.waiting(), 1);
        drop(two);
        assert_eq!(statistics.waiting(), 0);
    }
}
