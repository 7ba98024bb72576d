//! What is known of the certificate, and what is to be done next. The clocks are arguments.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::schedule::{self, History, Window};
use crate::certificate::Certificate;

/// A moment by two clocks: certificates end by the clock on the wall, which may be set at any time. Pauses are measured
/// by the other one, or a clock that was two months ahead would make a pause of two months.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: SystemTime,
    pub(super) steady: Instant,
}

impl Now {
    pub(super) fn read() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Order a certificate.
    Order,
    /// Ask the authority when to renew.
    Ask,
    /// Nothing for so long, or until the clock was set.
    Rest(Duration),
}

/// What is known at the moment.
pub(super) struct State {
    /// The certificate that is shown.
    pub(super) current: Option<Certificate>,
    /// When the authority would like it to be renewed.
    pub(super) window: Option<Window>,
    pub(super) history: History,
    /// When the authority is asked for a window again.
    ask_window_at: Instant,
    /// Places the renewal within the time for it.
    drawn: u32,
    /// Orders that have failed in a row.
    failures: u32,
    /// Before that nothing is tried again.
    retry_at: Instant,
    /// When the certificate was issued, if it was since the start.
    issued_at: Option<Instant>,
}

impl State {
    /// At the start of the server. `drawn` is random.
    pub(super) fn new(current: Option<Certificate>, drawn: u32, now: Now) -> Self {
        Self {
            current,
            window: None,
            history: History::default(),
            ask_window_at: now.steady,
            drawn,
            failures: 0,
            retry_at: now.steady,
            issued_at: None,
        }
    }

    /// What is to be done for a certificate for these names.
    pub(super) fn next(&self, names: &[String], now: Now) -> Next {
        let (order, question) = (self.until_order(names, now), self.until_question(names, now));
        match question {
            // Before an order, which says what it replaces only if the authority has windows (RFC 9773 §5).
            Some(Duration::ZERO) => Next::Ask,
            _ if order.is_zero() => Next::Order,
            // Not all of it at once: the clock may be set, and the machine may have slept.
            _ => Next::Rest(order.min(question.unwrap_or(Duration::MAX)).min(LONGEST_REST)),
        }
    }

    /// How long it is until the next order may begin.
    pub(super) fn until_order(&self, names: &[String], now: Now) -> Duration {
        let until = |time: SystemTime| time.duration_since(now.wall).unwrap_or_default();
        let wanted = match &self.current {
            Some(current) if current.covers(names) => {
                let renewal = schedule::renewal(current.lifetime, self.window, self.drawn);
                // An authority whose windows are always over would get an order after the other.
                let issued_at = self.issued_at.filter(|_| self.window.is_some());
                let old_enough = issued_at.map(|issued| issued + schedule::least_age(current.lifetime));
                until(renewal).max(old_enough.map(|time| until_steady(time, now)).unwrap_or_default())
            }
            _ => Duration::ZERO,
        };
        wanted.max(until_steady(self.retry_at, now)).max(until(self.history.earliest(now.wall)))
    }

    /// How long it is until the authority is asked for a window; `None` while a certificate is ordered in any case.
    fn until_question(&self, names: &[String], now: Now) -> Option<Duration> {
        let current = self.current.as_ref()?;
        let is_of_use = current.covers(names) && current.lifetime.end > now.wall;
        is_of_use.then(|| until_steady(self.ask_window_at, now))
    }

    /// Whether an order may say what certificate it replaces: only where the authority has windows, and not again after
    /// an order has failed, perhaps because of that.
    pub(super) fn may_name_replaced(&self) -> bool {
        self.window.is_some() && self.failures == 0
    }

    /// The authority has answered when to renew, and when to ask again.
    pub(super) fn answered(&mut self, window: Option<Window>, delay: Duration, now: Now) {
        (self.window, self.ask_window_at) = (window, now.steady + delay);
    }

    /// Somebody has looked into it.
    pub(super) fn hurry(&mut self, now: Now) {
        (self.failures, self.retry_at, self.ask_window_at) = (0, now.steady, now.steady);
    }

    /// An order has failed.
    pub(super) fn failed(&mut self, random: u64, now: Now) {
        self.failures += 1;
        self.retry_at = now.steady + schedule::backoff(self.failures, random);
    }

    /// There is a new certificate. Returns whether it can be renewed in time: by this machine's clock one may be over,
    /// or due at once. Each order would get another such one, so the next waits for long.
    pub(super) fn issued(&mut self, certificate: Option<Certificate>, drawn: u32, now: Now) -> bool {
        let lifetime = certificate.as_ref().map(|certificate| certificate.lifetime);
        let is_due = lifetime.is_none_or(|lifetime| schedule::renewal(lifetime, None, 0) <= now.wall);
        let history = std::mem::take(&mut self.history);
        *self = Self { history, issued_at: Some(now.steady), ..Self::new(certificate, drawn, now) };
        if is_due {
            self.retry_at = now.steady + WRONG_CLOCK;
        }
        !is_due
    }
}

fn until_steady(time: Instant, now: Now) -> Duration {
    time.saturating_duration_since(now.steady)
}

const LONGEST_REST: Duration = Duration::from_secs(60);

/// Between orders while the clock is wrong: Let's Encrypt issues the same certificate five times a week.
const WRONG_CLOCK: Duration = Duration::from_secs(36 * 3600);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::certificate::Lifetime;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn names() -> Vec<String> {
        vec!["a.example".to_owned()]
    }

    fn start() -> Now {
        Now { wall: UNIX_EPOCH + Duration::from_secs(1_790_000_000), steady: Instant::now() }
    }

    /// So much later by both clocks.
    fn after(now: Now, time: Duration) -> Now {
        Now { wall: now.wall + time, steady: now.steady + time }
    }

    /// A certificate for 90 days of which so many have passed.
    fn certificate(age: Duration, now: Now) -> Certificate {
        let start = now.wall - age;
        Certificate { lifetime: Lifetime { start, end: start + 90 * DAY }, names: names() }
    }

    fn over(now: Now) -> Option<Window> {
        Window::new(now.wall - 2 * HOUR, now.wall - HOUR)
    }

    #[test]
    fn without_a_certificate_for_all_names_one_is_ordered_and_nothing_is_asked() {
        let now = start();
        assert_eq!(State::new(None, 0, now).next(&names(), now), Next::Order);
        let more = [names(), vec!["b.example".to_owned()]].concat();
        let kept = State::new(Some(certificate(DAY, now)), 0, now);
        assert_eq!(kept.next(&more, now), Next::Order);
        let expired = State::new(Some(certificate(91 * DAY, now)), 0, now);
        assert_eq!(expired.next(&names(), now), Next::Order);
    }

    // RFC 9773 §5: an order names what it replaces.
    #[test]
    fn the_authority_is_asked_before_a_certificate_that_is_due_is_renewed() {
        let now = start();
        let mut state = State::new(Some(certificate(80 * DAY, now)), 0, now);
        assert_eq!(state.next(&names(), now), Next::Ask);
        assert!(!state.may_name_replaced());
        state.answered(over(now), HOUR, now);
        assert_eq!(state.next(&names(), now), Next::Order);
        assert!(state.may_name_replaced());
        state.failed(0, now);
        assert!(!state.may_name_replaced(), "it may have been refused for that");
    }

    #[test]
    fn a_clock_that_was_ahead_stops_neither_orders_nor_questions() {
        let real = start();
        let ahead = Now { wall: real.wall + 60 * DAY, ..real };
        let mut state = State::new(None, 0, ahead);
        state.failed(0, ahead);
        assert_eq!(state.until_order(&names(), ahead), MINUTE);
        assert_eq!(state.until_order(&names(), real), MINUTE, "the clock was set back");
        assert_eq!(state.next(&names(), after(real, MINUTE)), Next::Order);

        let mut state = State::new(Some(certificate(DAY, real)), 0, ahead);
        state.answered(None, HOUR, ahead);
        assert_eq!(state.next(&names(), after(real, HOUR)), Next::Ask);
    }

    #[test]
    fn an_authority_whose_windows_are_always_over_gets_an_order_an_hour_at_most() {
        let now = start();
        let mut state = State::new(None, 0, now);
        assert!(state.issued(Some(certificate(HOUR, now)), 0, now));
        assert_eq!(state.next(&names(), now), Next::Ask);
        state.answered(over(now), DAY, now);
        assert_eq!(state.until_order(&names(), now), HOUR);
        state.hurry(now);
        assert_eq!(state.until_order(&names(), now), HOUR, "nor for an impatient operator");
        state.answered(over(now), DAY, now);
        assert_eq!(state.next(&names(), after(now, HOUR)), Next::Order);
        // A server that was started again does not know when it was; but what is kept counts its orders.
        let mut state = State::new(Some(certificate(HOUR, now)), 0, now);
        state.answered(over(now), DAY, now);
        assert_eq!(state.next(&names(), now), Next::Order);
        (0..schedule::MOST_AN_HOUR).for_each(|_| state.history.begin(now.wall));
        state.history.succeed();
        assert_eq!(state.until_order(&names(), now), HOUR);
    }

    #[test]
    fn a_certificate_that_is_over_by_this_clock_is_not_ordered_again_soon() {
        let now = start();
        let mut state = State::new(None, 0, now);
        assert!(!state.issued(Some(certificate(70 * DAY, now)), 0, now), "it is due at once");
        assert!(state.until_order(&names(), now) > DAY);
        let corrected = Now { wall: now.wall - 70 * DAY, ..now };
        assert!(state.until_order(&names(), corrected) > 59 * DAY, "by the right clock there is time");
        assert!(!state.issued(Some(certificate(100 * DAY, now)), 0, now));
        assert!(state.until_order(&names(), now) > DAY);
        state.hurry(now);
        assert_eq!(state.next(&names(), now), Next::Order, "somebody has looked into it");
    }

    #[test]
    fn rests_are_short_however_long_there_is_nothing_to_do() {
        let now = start();
        let mut state = State::new(Some(certificate(DAY, now)), 0, now);
        state.answered(None, DAY, now);
        assert_eq!(state.next(&names(), now), Next::Rest(MINUTE));
        state.answered(None, Duration::from_secs(10), now);
        assert_eq!(state.next(&names(), now), Next::Rest(Duration::from_secs(10)));
    }
}
