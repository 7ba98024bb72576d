//! Decides when a certificate is renewed and when an order may be tried again, without a clock: the time is an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use taut_proto::Backoff;

use crate::certificate::Lifetime;

/// When an authority would like a certificate to be renewed (RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    start: SystemTime,
    end: SystemTime,
}

impl Window {
    /// `None` if it ends before it begins: RFC 9773 §4.2 says that this counts as no answer.
    pub(super) fn new(start: SystemTime, end: SystemTime) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }
}

/// When to renew a certificate: at a time in the window that the authority suggests, else when two thirds of its
/// lifetime have passed. `drawn` is a random number, drawn once for each certificate, that spreads the load on the
/// authority.
pub(super) fn renewal(lifetime: Lifetime, window: Option<Window>, drawn: u32) -> SystemTime {
    let total = lifetime.duration();
    // A window behind the end would leave clients without a certificate.
    let Window { start, end } = window.filter(|window| window.end <= lifetime.end).unwrap_or_else(|| {
        let start = lifetime.start + total * 2 / 3;
        Window { start, end: start + total / SPREAD }
    });
    let share = f64::from(drawn) / f64::from(u32::MAX);
    start + end.duration_since(start).unwrap_or_default().mul_f64(share)
}

/// Whether a certificate ends so soon that somebody has to look.
pub(super) fn is_urgent(lifetime: Lifetime, now: SystemTime) -> bool {
    now + lifetime.duration() / 6 >= lifetime.end
}

/// How old a certificate must be before a window makes it be renewed.
pub(super) fn least_age(lifetime: Lifetime) -> Duration {
    HOUR.min(lifetime.duration() / 6)
}

/// How long to wait after so many failures in a row.
pub(super) fn backoff(failures: u32, random: u64) -> Duration {
    let mut backoff = Backoff::standard();
    backoff.floor = Duration::from_secs(60);
    backoff.base = Duration::from_secs(120);
    backoff.cap = Duration::from_secs(12 * 3600);
    backoff.delay(failures.saturating_sub(1), random)
}

/// How long to wait before the authority is asked again for a window; it says how long (RFC 9773 §4.3).
pub(super) fn ask_again(suggested: Duration) -> Duration {
    suggested.clamp(MINUTE, DAY)
}

/// The last orders. They are kept, so that a server which is restarted again and again does not use up what
/// the authority allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    /// When the last orders began, whatever came of them, at most [`MOST_AN_HOUR`], in seconds since 1970.
    #[serde(default)]
    begun: Vec<u64>,
    /// Until when the authority wants to be left alone.
    #[serde(default)]
    retry_after: u64,
}

impl History {
    /// An order begins. It counts whatever comes of it: the process may end midway, and an authority may ask for one
    /// renewal after the other.
    pub(super) fn begin(&mut self, now: SystemTime) {
        let now = seconds(now);
        // What lies ahead was written by a clock that was wrong.
        self.begun.retain(|&begun| begun <= now);
        self.begun.push(now);
        self.begun.drain(..self.begun.len().saturating_sub(MOST_AN_HOUR));
    }

    /// The order that began last was not sent.
    pub(super) fn take_back(&mut self) {
        self.begun.pop();
    }

    /// An order has led to a certificate: the authority does not want to be left alone.
    pub(super) fn succeed(&mut self) {
        self.retry_after = 0;
    }

    /// The authority has named a time before which it will refuse. It could name one in a year.
    pub(super) fn wait_until(&mut self, time: SystemTime, now: SystemTime) {
        self.retry_after = self.retry_after.max(seconds(time.min(now + LONGEST_RETRY_AFTER)));
    }

    /// From when on an order may begin.
    pub(super) fn earliest(&self, now: SystemTime) -> SystemTime {
        let retry_after = UNIX_EPOCH.checked_add(Duration::from_secs(self.retry_after));
        // What lies further ahead was written by a clock that was wrong, or is damaged.
        let asked = retry_after.filter(|&time| time <= now + LONGEST_RETRY_AFTER).unwrap_or(UNIX_EPOCH);
        let now = seconds(now);
        let begun = self.begun.iter().filter(|&&begun| begun <= now);
        let limit = match begun.clone().min() {
            Some(&first) if begun.count() >= MOST_AN_HOUR => UNIX_EPOCH + Duration::from_secs(first) + HOUR,
            _ => UNIX_EPOCH,
        };
        asked.max(limit)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Orders within an hour. Let's Encrypt refuses more failures than this for one name.
pub(super) const MOST_AN_HOUR: usize = 5;

/// Which part of the lifetime the renewals of servers are spread over that were started together.
const SPREAD: u32 = 20;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The longest `Retry-After` that is obeyed. The longest limit of Let's Encrypt counts a week.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    /// So many seconds after a day in 2026.
    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seconds)
    }

    const LIFETIME: u64 = 90 * 86_400;

    fn lifetime() -> Lifetime {
        Lifetime { start: at(0), end: at(LIFETIME) }
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_lifetime_with_jitter() {
        assert_eq!(renewal(lifetime(), None, 0), at(LIFETIME * 2 / 3));
        assert_eq!(renewal(lifetime(), None, u32::MAX), at(LIFETIME * 2 / 3 + LIFETIME / 20));
        let short = Lifetime { start: at(0), end: at(30) };
        assert_eq!(renewal(short, None, 0), at(20));
        let none = Lifetime { start: at(30), end: at(30) };
        assert_eq!(renewal(none, None, u32::MAX), at(30));
    }

    // RFC 9773 §4.2: a uniformly random time within the suggested window.
    #[test]
    fn the_window_of_the_authority_goes_before_the_two_thirds() {
        let window = Window::new(at(100), at(300));
        assert_eq!(renewal(lifetime(), window, 0), at(100));
        assert_eq!(renewal(lifetime(), window, u32::MAX), at(300));
        let half = renewal(lifetime(), window, u32::MAX / 2).duration_since(at(100)).expect("later");
        assert!((99..=101).contains(&half.as_secs()), "{half:?}");
        let past = Window::new(at(0) - HOUR, at(0));
        assert!(renewal(lifetime(), past, u32::MAX) <= at(0), "at once");
    }

    #[test]
    fn a_window_that_is_none_or_comes_too_late_is_not_used() {
        assert_eq!(Window::new(at(300), at(300)), None);
        assert_eq!(Window::new(at(300), at(299)), None);
        let late = Window::new(at(0), at(LIFETIME + 1));
        assert_eq!(renewal(lifetime(), late, 0), at(LIFETIME * 2 / 3));
        assert_eq!(renewal(lifetime(), Window::new(at(0), at(LIFETIME)), u32::MAX), at(LIFETIME));
    }

    #[test]
    fn the_last_sixth_of_a_lifetime_is_urgent() {
        assert!(!is_urgent(lifetime(), at(LIFETIME * 5 / 6 - 1)));
        assert!(is_urgent(lifetime(), at(LIFETIME * 5 / 6)));
        assert!(is_urgent(lifetime(), at(LIFETIME + 1)));
    }

    #[test]
    fn failures_are_followed_by_longer_and_longer_waits() {
        let longest = |failures| backoff(failures, u64::MAX).as_secs();
        assert_eq!(backoff(1, 0), MINUTE);
        assert_eq!(backoff(1000, 0), MINUTE);
        assert!((178..=180).contains(&longest(1)), "{}", longest(1));
        assert!((298..=300).contains(&longest(2)), "{}", longest(2));
        assert!((12 * 3600..=12 * 3600 + 60).contains(&longest(1000)), "{}", longest(1000));
    }

    #[test]
    fn a_window_is_asked_for_again_within_a_day_and_not_within_a_minute() {
        assert_eq!(ask_again(Duration::ZERO), MINUTE);
        assert_eq!(ask_again(Duration::from_secs(6 * 3600)), Duration::from_secs(6 * 3600));
        assert_eq!(ask_again(DAY * 30), DAY);
    }

    #[test]
    fn no_more_than_five_orders_begin_within_an_hour() {
        let mut history = History::default();
        for minute in 0..5 {
            assert!(history.earliest(at(minute * 60)) <= at(minute * 60), "{minute}");
            history.begin(at(minute * 60));
        }
        assert_eq!(history.earliest(at(300)), at(3600));
        assert_eq!(history.earliest(at(3599)), at(3600));
        assert!(history.earliest(at(3600)) <= at(3600));
        history.begin(at(3600));
        assert_eq!(history.earliest(at(3601)), at(3660), "of the last hour there are five again");
        history.succeed();
        assert_eq!(history.earliest(at(3602)), at(3660), "also if they lead to certificates");
        history.take_back();
        assert!(history.earliest(at(3602)) <= at(3602), "the last was not sent");
    }

    #[test]
    fn the_history_does_not_grow_and_survives_its_file() {
        let mut history = History::default();
        for second in 0..1000 {
            history.begin(at(second));
        }
        assert_eq!(history.begun.len(), MOST_AN_HOUR);
        let text = serde_json::to_string(&history).expect("JSON");
        assert_eq!(serde_json::from_str::<History>(&text).expect("a history"), history);
        assert_eq!(serde_json::from_str::<History>("{}").expect("a history"), History::default());
    }

    // RFC 8555 §6.6.
    #[test]
    fn the_time_that_the_authority_names_is_waited_for() {
        let mut history = History::default();
        history.wait_until(at(7200), at(0));
        history.wait_until(at(100), at(0));
        assert_eq!(history.earliest(at(0)), at(7200));
        history.wait_until(at(365 * 86_400), at(0));
        assert_eq!(history.earliest(at(0)), at(7 * 86_400), "nobody waits for a year");
        let before = at(0) - HOUR;
        assert!(history.earliest(before) <= before, "the clock was wrong");
        history.succeed();
        assert!(history.earliest(at(0)) <= at(0), "it has issued a certificate");
    }

    #[test]
    fn a_damaged_time_stops_nothing() {
        let history: History =
            serde_json::from_str(r#"{"begun": [18446744073709551615], "retry_after": 18446744073709551615}"#)
                .expect("a history");
        assert!(history.earliest(at(0)) <= at(0));
    }

    #[test]
    fn a_clock_that_was_wrong_does_not_stop_orders() {
        let mut history = History::default();
        for _ in 0..5 {
            history.begin(at(1_000_000));
        }
        assert!(history.earliest(at(0)) <= at(0));
        history.begin(at(0));
        assert_eq!(history.begun, [seconds(at(0))]);
    }
}
