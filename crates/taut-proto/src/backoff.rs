//! How long to wait before connecting again: exponential with full jitter (RFC 6455 §7.2.3).
//!
//! Without jitter all clients of a server that restarts come back in the same instant, and keep coming back together.

use std::time::Duration;

/// The delays between attempts to connect. It draws no random number: each delay is made from one that is passed in,
/// which must come from a source seeded by the operating system, not by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// Added to every delay but the first after an abnormal close, so that no attempt follows another at once; 100 ms.
    pub floor: Duration,
    /// The window of the first delay; it doubles with each failed attempt; 500 ms.
    pub base: Duration,
    /// The largest window; 30 s. With N clients waiting, N / cap attempts reach the server in a second.
    pub cap: Duration,
    /// The window of the first delay after a connection was lost; 5 s. RFC 6455 §7.2.3 gives this figure: all the
    /// server's clients are likely to have lost theirs in the same instant.
    pub first_after_abnormal: Duration,
    /// Takes the place of the window of the first delay of either kind; none. With 250 ms a lost connection is back
    /// sooner, and a server that restarts gets its clients back in a quarter of a second.
    pub eager_first: Option<Duration>,
    /// How long a connection must have been open for the next failure to count as the first; 5 s, or the last delay
    /// if that was longer, so that a server which accepts and then drops is not asked ever faster.
    pub stable: Duration,
    /// The longest `Retry-After` that is obeyed; 10 min. A server, or a proxy in front of it, could name a year.
    pub retry_after_cap: Duration,
}

impl Backoff {
    /// The delays that this library recommends.
    pub const fn standard() -> Self {
        Self {
            floor: Duration::from_millis(100),
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            first_after_abnormal: Duration::from_secs(5),
            eager_first: None,
            stable: Duration::from_secs(5),
            retry_after_cap: Duration::from_secs(600),
        }
    }

    /// The delay before an attempt, where `attempt` of them have failed since the last stable connection:
    /// `floor + U(0, min(cap, base · 2^attempt))`, U drawn by `random`, which is uniform over all of `u64`.
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        match self.eager_first {
            Some(window) if attempt == 0 => jitter(window, random),
            _ => self.floor.saturating_add(jitter(self.window(attempt), random)),
        }
    }

    /// The first delay after a connection was lost or its server went away (close codes 1001, 1006, 1011, 1012 and
    /// 1013, or no answer to a ping): `U(0, first_after_abnormal)`.
    pub fn delay_after_loss(&self, random: u64) -> Duration {
        jitter(self.eager_first.unwrap_or(self.first_after_abnormal), random)
    }

    fn window(&self, attempt: u32) -> Duration {
        1_u32.checked_shl(attempt).map_or(self.cap, |factor| self.base.saturating_mul(factor).min(self.cap))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::standard()
    }
}

/// Where one client stands in its [`Backoff`]: how many attempts have failed, and whether the last connection lasted.
///
/// There is no limit on attempts; to set one, compare [`attempt`](Self::attempt).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconnect {
    backoff: Backoff,
    attempt: u32,
    last_delay: Duration,
    is_open: bool,
}

impl Reconnect {
    /// Nothing has failed yet.
    pub const fn new(backoff: Backoff) -> Self {
        Self { backoff, attempt: 0, last_delay: Duration::ZERO, is_open: false }
    }

    /// An attempt failed, or a connection ended that is to be replaced: how long to wait before the next attempt. For
    /// a connection that was open, call [`closed_after`](Self::closed_after) first. `was_abnormal` says that it was
    /// lost or its server went away (see [`Backoff::delay_after_loss`]); it matters for the first delay only.
    pub fn failed(&mut self, random: u64, was_abnormal: bool) -> Duration {
        let delay = if was_abnormal && self.attempt == 0 {
            self.backoff.delay_after_loss(random)
        } else {
            self.backoff.delay(self.attempt, random)
        };
        self.attempt = self.attempt.saturating_add(1);
        self.last_delay = delay;
        self.is_open = false;
        delay
    }

    /// The server refused with a `Retry-After`. The usual delay is added to it, or all the clients that it told the
    /// same would come back together.
    pub fn refused(&mut self, random: u64, retry_after: Duration) -> Duration {
        let told = retry_after.min(self.backoff.retry_after_cap);
        self.last_delay = self.failed(random, false).saturating_add(told);
        self.last_delay
    }

    /// A connection is open. It does not count as a success until it has lasted.
    pub fn opened(&mut self) {
        self.is_open = true;
    }

    /// The open connection ended after `uptime`. If it was stable, the next failure counts as the first. Without
    /// [`opened`](Self::opened) before it, nothing changes: time spent on an attempt is not uptime.
    pub fn closed_after(&mut self, uptime: Duration) {
        if self.is_open && uptime >= self.backoff.stable.max(self.last_delay) {
            self.attempt = 0;
            self.last_delay = Duration::ZERO;
        }
        self.is_open = false;
    }

    /// Attempts that failed since the last stable connection.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

/// `U(0, window)`: uniform, at least zero, less than the window.
fn jitter(window: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
    // The upper half of a 64 by 64 bit product scales without the bias of a remainder.
    Duration::from_nanos(((u128::from(nanos) * u128::from(random)) >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NEAR: Duration = Duration::from_nanos(100);

    #[test]
    fn windows_double_up_to_the_cap() {
        let backoff = Backoff::default();
        for (attempt, window) in
            [(0, 500), (1, 1_000), (2, 2_000), (5, 16_000), (6, 30_000), (31, 30_000), (32, 30_000)]
        {
            assert_eq!(backoff.delay(attempt, 0), backoff.floor);
            let most = backoff.floor + Duration::from_millis(window);
            let delay = backoff.delay(attempt, u64::MAX);
            assert!(delay < most && delay + NEAR > most, "attempt {attempt}: {delay:?} of {most:?}");
            let middle = backoff.floor + Duration::from_millis(window) / 2;
            assert_eq!(backoff.delay(attempt, 1 << 63), middle);
        }
        assert_eq!(backoff.delay(u32::MAX, 1 << 63), backoff.floor + backoff.cap / 2);
    }

    // RFC 6455 §7.2.3: the first attempt after an abnormal close waits a random time; 0 to 5 s is the RFC's example.
    // RFC 6455 §7.2.3: later attempts wait longer and longer, by truncated binary exponential backoff.
    #[test]
    fn the_first_delay_after_a_loss_is_spread_over_five_seconds() {
        let mut reconnect = Reconnect::new(Backoff::default());
        assert_eq!(reconnect.failed(0, true), Duration::ZERO);
        let mut reconnect = Reconnect::new(Backoff::default());
        assert_eq!(reconnect.failed(1 << 63, true), Duration::from_millis(2_500));
        assert_eq!(reconnect.failed(1 << 63, true), Duration::from_millis(100 + 500));
        assert_eq!(reconnect.failed(1 << 63, false), Duration::from_millis(100 + 1_000));
        assert_eq!(reconnect.attempt(), 3);
    }

    #[test]
    fn an_eager_first_delay_replaces_both_kinds() {
        let backoff = Backoff { eager_first: Some(Duration::from_millis(250)), ..Backoff::default() };
        assert_eq!(Reconnect::new(backoff).failed(1 << 63, true), Duration::from_millis(125));
        assert_eq!(Reconnect::new(backoff).failed(1 << 63, false), Duration::from_millis(125));
        let mut reconnect = Reconnect::new(backoff);
        reconnect.failed(0, true);
        assert_eq!(reconnect.failed(0, true), backoff.floor);
    }

    #[test]
    fn a_server_that_accepts_and_then_drops_is_not_asked_ever_faster() {
        let mut reconnect = Reconnect::new(Backoff::default());
        for attempt in 0..8 {
            assert_eq!(reconnect.attempt(), attempt);
            reconnect.failed(u64::MAX, false);
            reconnect.opened();
            reconnect.closed_after(Duration::from_millis(4_999));
        }
        // The last delay was 30.1 s, so five seconds of uptime are not enough to forget it.
        for (uptime, attempt) in [(5, 8), (30, 8), (31, 0)] {
            reconnect.opened();
            reconnect.closed_after(Duration::from_secs(uptime));
            assert_eq!(reconnect.attempt(), attempt, "after {uptime} s");
        }
    }

    #[test]
    fn time_spent_on_an_attempt_is_not_uptime() {
        let mut reconnect = Reconnect::new(Backoff::default());
        reconnect.failed(0, false);
        reconnect.closed_after(Duration::from_secs(60));
        assert_eq!(reconnect.attempt(), 1);
        reconnect.opened();
        reconnect.closed_after(Duration::from_secs(60));
        assert_eq!(reconnect.attempt(), 0);
    }

    #[test]
    fn a_retry_after_is_obeyed_up_to_its_cap_and_spread() {
        let mut reconnect = Reconnect::new(Backoff::default());
        assert_eq!(reconnect.refused(0, Duration::from_secs(20)), Duration::from_millis(20_100));
        assert_eq!(reconnect.refused(1 << 63, Duration::from_secs(20)), Duration::from_millis(20_600));
        assert_eq!(reconnect.refused(0, Duration::MAX), Duration::from_millis(600_100));
    }

    #[test]
    fn no_setting_makes_it_overflow() {
        let most = Duration::MAX;
        let backoff = Backoff { floor: most, base: most, cap: most, first_after_abnormal: most, ..Backoff::default() };
        let mut reconnect = Reconnect::new(backoff);
        assert!(reconnect.failed(u64::MAX, true) > Duration::from_secs(1 << 33));
        assert_eq!(reconnect.failed(u64::MAX, true), most);
        assert_eq!(reconnect.refused(u64::MAX, most), most);
    }

    proptest! {
        #[test]
        fn a_delay_lies_within_its_window(attempt: u32, random: u64) {
            let backoff = Backoff::default();
            let window = Duration::from_millis(500_u64.saturating_mul(1 << attempt.min(20))).min(backoff.cap);
            let delay = backoff.delay(attempt, random);
            prop_assert!(delay >= backoff.floor && delay < backoff.floor + window);
        }
    }
}
