//! What the log is told when there are no file descriptors for those who come.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Tells the log, once every ten seconds however many shards try how often, and how many clients were turned away since the last time.
pub(super) fn tell(error: &io::Error, turned_away: usize) {
    static LOG: AcceptBackoff = AcceptBackoff::new();
    static START: OnceLock<Instant> = OnceLock::new();
    let now = START.get_or_init(Instant::now).elapsed().as_secs();
    if let Some(turned_away) = LOG.count(turned_away as u64, now) {
        tracing::warn!(
            %error,
            turned_away,
            "no file descriptor is left for new clients: raise the limit (LimitNOFILE= of systemd, ulimit -n, ulimits of Docker), or set max-connections"
        );
    }
}

/// No lock: shards share it.
struct AcceptBackoff {
    turned_away: AtomicU64,
    /// When the log is told next, in seconds.
    next: AtomicU64,
}

impl AcceptBackoff {
    const fn new() -> Self {
        Self { turned_away: AtomicU64::new(0), next: AtomicU64::new(0) }
    }

    /// Counts; gives the sum when it is time to tell it.
    fn count(&self, turned_away: u64, now: u64) -> Option<u64> {
        self.turned_away.fetch_add(turned_away, Ordering::Relaxed);
        let next = self.next.load(Ordering::Relaxed);
        let is_due =
            now >= next && self.next.compare_exchange(next, now + PAUSE, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        is_due.then(|| self.turned_away.swap(0, Ordering::Relaxed))
    }
}

/// Seconds.
const PAUSE: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_at_once_and_then_every_ten_seconds_with_the_sum() {
        let log = AcceptBackoff::new();
        assert_eq!(log.count(0, 0), Some(0));
        assert_eq!((log.count(3, 1), log.count(4, 9)), (None, None));
        assert_eq!((log.count(1, 10), log.count(1, 10)), (Some(8), None));
        assert_eq!(log.count(0, 60), Some(1));
    }
}
