//! A circuit breaker stops requests to a backend that is down, and probes it after a pause.

use std::time::Duration;

/// One per backend. Time is what has passed since any fixed moment.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: State,
    /// Rises with each change of state: outcomes of requests from before are ignored.
    generation: u64,
    window: Window,
}

/// Must be handed to [`Breaker::record()`] with the outcome of the request.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Permit {
    generation: u64,
}

/// No requests to the backend yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Until the next probe; zero while one is under way.
    pub(crate) remaining: Duration,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The backend answered, whatever it said.
    Alive,
    /// Connect error, deadline, reset, or a status that tells of these.
    Failed,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: Duration,
        /// How often it has opened in a row, less one.
        level: u32,
    },
    Probing {
        since: Duration,
        level: u32,
    },
}

impl Breaker {
    /// Permits a request, or says how long the backend must be left alone. The first permit after a pause is the probe.
    pub(crate) fn admit(&mut self, now: Duration) -> Result<Permit, Open> {
        match self.state {
            State::Closed => {}
            State::Open { until, .. } if now < until => return Err(Open { remaining: until.saturating_sub(now) }),
            State::Probing { since, .. } if now < since + LONGEST_PROBE => {
                return Err(Open { remaining: Duration::ZERO });
            }
            State::Open { level, .. } | State::Probing { level, .. } => {
                self.change(State::Probing { since: now, level });
            }
        }
        Ok(Permit { generation: self.generation })
    }

    /// Takes the outcome of a request. `random` gives the number that shortens a pause by up to a quarter.
    pub(crate) fn record(&mut self, permit: &Permit, outcome: Outcome, now: Duration, random: impl FnOnce() -> u32) {
        if permit.generation != self.generation {
            return;
        }
        match (&self.state, outcome) {
            (State::Closed, Outcome::Alive) => self.window.count(now, false),
            (State::Closed, Outcome::Failed) => {
                self.window.count(now, true);
                if self.window.is_failing() {
                    self.open(0, now, random());
                }
            }
            (&State::Probing { level, .. }, Outcome::Failed) => self.open(level.saturating_add(1), now, random()),
            (State::Probing { .. }, Outcome::Alive) => self.change(State::Closed),
            (State::Open { .. }, _) => {}
        }
    }

    /// Open or probing.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    fn open(&mut self, level: u32, now: Duration, random: u32) {
        self.change(State::Open { until: now + pause(level, random), level });
        self.window = Window::default();
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

impl Outcome {
    /// The outcome that a status stands for. A 500 is one bad handler, and a backend that sends 503 with `Retry-After`
    /// is alive.
    pub(crate) fn of_status(status: u16, has_retry_after: bool) -> Self {
        match status {
            502 | 504 => Self::Failed,
            503 if !has_retry_after => Self::Failed,
            _ => Self::Alive,
        }
    }
}

/// 1, 2, 4 … 30 seconds, less up to a quarter so that nodes do not probe together.
fn pause(level: u32, random: u32) -> Duration {
    let whole = Duration::from_secs(1 << level.min(5)).min(LONGEST_PAUSE);
    whole.mul_f64(1.0 - f64::from(random) / f64::from(u32::MAX) / 4.0)
}

/// Requests of the current second and the nine before.
#[derive(Debug, Default)]
struct Window {
    /// A second and what ended within it, at the index that is the second modulo the length.
    counts: [(u64, Count); SECONDS],
    total: Count,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: u64,
    failed: u64,
}

impl Window {
    fn count(&mut self, now: Duration, is_failed: bool) {
        let second = now.as_secs();
        for (of, count) in &mut self.counts {
            if second.saturating_sub(*of) >= SECONDS as u64 {
                self.total.all -= count.all;
                self.total.failed -= count.failed;
                *count = Count::default();
            }
        }
        let (of, count) = &mut self.counts[(second % SECONDS as u64) as usize];
        // A clock that went back a little counts for the second that is there.
        *of = second.max(*of);
        for count in [count, &mut self.total] {
            count.all += 1;
            count.failed += u64::from(is_failed);
        }
    }

    fn is_failing(&self) -> bool {
        self.total.failed >= MIN_FAILURES && self.total.failed * 2 >= self.total.all
    }
}

const SECONDS: usize = 10;

/// Fewer say nothing.
const MIN_FAILURES: u64 = 20;

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A probe without an outcome is taken for lost.
const LONGEST_PROBE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn ask(breaker: &mut Breaker, outcome: Outcome, now: Duration) {
        let permit = breaker.admit(now).expect("closed, or a probe");
        breaker.record(&permit, outcome, now, || 0);
    }

    fn opened(now: Duration) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..20 {
            ask(&mut breaker, Outcome::Failed, now);
        }
        assert!(breaker.is_open());
        breaker
    }

    #[test]
    fn it_opens_at_twenty_failures_that_are_half_of_all() {
        let mut breaker = Breaker::default();
        for _ in 0..20 {
            ask(&mut breaker, Outcome::Alive, secs(0.0));
        }
        for _ in 0..19 {
            ask(&mut breaker, Outcome::Failed, secs(9.0));
        }
        assert!(!breaker.is_open());
        ask(&mut breaker, Outcome::Failed, secs(9.9));
        assert!(breaker.is_open());

        let mut breaker = Breaker::default();
        for _ in 0..21 {
            ask(&mut breaker, Outcome::Alive, secs(0.0));
        }
        for _ in 0..20 {
            ask(&mut breaker, Outcome::Failed, secs(0.0));
        }
        assert!(!breaker.is_open(), "20 of 41 are less than half");
        ask(&mut breaker, Outcome::Failed, secs(0.0));
        assert!(breaker.is_open());
    }

    #[test]
    fn what_is_ten_seconds_old_is_forgotten() {
        let mut breaker = Breaker::default();
        for _ in 0..19 {
            ask(&mut breaker, Outcome::Failed, secs(0.5));
        }
        ask(&mut breaker, Outcome::Failed, secs(10.0));
        assert!(!breaker.is_open());
        for _ in 0..18 {
            ask(&mut breaker, Outcome::Failed, secs(19.9));
        }
        assert!(!breaker.is_open());
        ask(&mut breaker, Outcome::Failed, secs(19.9));
        assert!(breaker.is_open());
    }

    #[test]
    fn pauses_double_up_to_thirty_seconds() {
        let mut breaker = opened(secs(100.0));
        let mut now = secs(100.0);
        for pause in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0] {
            assert_eq!(breaker.admit(now), Err(Open { remaining: secs(pause) }));
            now += secs(pause);
            assert_eq!(breaker.admit(now.saturating_sub(secs(0.25))), Err(Open { remaining: secs(0.25) }));
            ask(&mut breaker, Outcome::Failed, now);
        }
    }

    #[test]
    fn chance_shortens_a_pause_by_up_to_a_quarter() {
        for (level, random, expected) in [
            (0, 0, 1.0),
            (0, u32::MAX, 0.75),
            (1, u32::MAX, 1.5),
            (2, 0, 4.0),
            (5, 0, 30.0),
            (5, u32::MAX, 22.5),
            (u32::MAX, 0, 30.0),
        ] {
            assert_eq!(pause(level, random), secs(expected), "{level} {random}");
        }
    }

    #[test]
    fn one_probe_closes_it_and_a_500_is_enough() {
        let mut breaker = opened(secs(0.0));
        let probe = breaker.admit(secs(1.0)).expect("the probe");
        assert_eq!(breaker.admit(secs(1.0)), Err(Open { remaining: Duration::ZERO }));
        breaker.record(&probe, Outcome::of_status(500, false), secs(1.5), || 0);
        assert!(!breaker.is_open());
        for _ in 0..19 {
            ask(&mut breaker, Outcome::Failed, secs(1.5));
        }
        assert!(!breaker.is_open(), "what was before is forgotten");
        ask(&mut breaker, Outcome::Failed, secs(1.5));
        assert_eq!(breaker.admit(secs(1.5)), Err(Open { remaining: secs(1.0) }), "from the beginning");
    }

    #[test]
    fn a_probe_that_is_lost_leaves_room_for_another() {
        let mut breaker = opened(secs(0.0));
        let lost = breaker.admit(secs(2.0)).expect("a probe");
        assert!(breaker.admit(secs(61.9)).is_err());
        let probe = breaker.admit(secs(62.0)).expect("another one");
        breaker.record(&lost, Outcome::Alive, secs(62.0), || 0);
        assert!(breaker.is_open(), "it came too late");
        breaker.record(&probe, Outcome::Failed, secs(62.0), || 0);
        assert_eq!(breaker.admit(secs(62.0)), Err(Open { remaining: secs(2.0) }), "still the second pause");
    }

    #[test]
    fn outcomes_from_before_do_not_count() {
        let mut breaker = Breaker::default();
        let (early, late) = (breaker.admit(secs(0.0)).expect("closed"), breaker.admit(secs(0.0)).expect("closed"));
        for _ in 0..20 {
            ask(&mut breaker, Outcome::Failed, secs(0.0));
        }
        breaker.record(&early, Outcome::Alive, secs(0.5), || 0);
        assert_eq!(breaker.admit(secs(0.5)), Err(Open { remaining: secs(0.5) }));
        let probe = breaker.admit(secs(1.0)).expect("a probe");
        breaker.record(&late, Outcome::Failed, secs(1.0), || 0);
        breaker.record(&probe, Outcome::Alive, secs(1.0), || 0);
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_clock_that_goes_back_does_no_harm() {
        let mut breaker = Breaker::default();
        for second in [100, 95, 3, 100, 0] {
            for _ in 0..3 {
                ask(&mut breaker, Outcome::Failed, Duration::from_secs(second));
            }
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn statuses_tell_whether_the_backend_is_alive() {
        for (status, has_retry_after, outcome) in [
            (200, false, Outcome::Alive),
            (404, false, Outcome::Alive),
            (429, false, Outcome::Alive),
            (500, false, Outcome::Alive),
            (501, false, Outcome::Alive),
            (502, false, Outcome::Failed),
            (502, true, Outcome::Failed),
            (503, false, Outcome::Failed),
            (503, true, Outcome::Alive),
            (504, true, Outcome::Failed),
        ] {
            assert_eq!(Outcome::of_status(status, has_retry_after), outcome, "{status} {has_retry_after}");
        }
    }

    /// Keeps every outcome, and looks at all of them each time.
    #[derive(Default)]
    struct Model {
        outcomes: Vec<(u64, bool)>,
        open: Option<(Duration, u32)>,
        probe: Option<Duration>,
    }

    impl Model {
        fn admits(&mut self, now: Duration) -> bool {
            let Some((until, _)) = self.open else { return true };
            let is_busy = self.probe.is_some_and(|since| now < since + Duration::from_secs(60));
            let admits = now >= until && !is_busy;
            if admits {
                self.probe = Some(now);
            }
            admits
        }

        fn record(&mut self, outcome: Outcome, now: Duration) {
            let second = now.as_secs();
            match (self.open, outcome) {
                (Some((_, level)), Outcome::Failed) => {
                    let level = level + 1;
                    self.open = Some((now + Duration::from_secs([1, 2, 4, 8, 16, 30][level.min(5) as usize]), level));
                }
                (Some(_), Outcome::Alive) => self.open = None,
                (None, _) => {
                    self.outcomes.push((second, outcome == Outcome::Failed));
                    let recent = self.outcomes.iter().filter(|(of, _)| second - of < 10);
                    let (all, failed) = (recent.clone().count(), recent.filter(|(_, failed)| *failed).count());
                    if outcome == Outcome::Failed && failed >= 20 && failed * 2 >= all {
                        self.open = Some((now + Duration::from_secs(1), 0));
                        self.outcomes.clear();
                    }
                }
            }
            self.probe = None;
        }
    }

    proptest! {
        #[test]
        fn it_does_what_a_naive_one_does(
            steps in prop::collection::vec((0u64..1500, 1usize..15, 0u8..8), 0..200),
        ) {
            let (mut breaker, mut model, mut now) = (Breaker::default(), Model::default(), Duration::ZERO);
            for (millis, times, kind) in steps {
                now += Duration::from_millis(millis * if kind == 7 { 30 } else { 1 });
                for _ in 0..times {
                    let permit = breaker.admit(now);
                    prop_assert_eq!(permit.is_ok(), model.admits(now));
                    let outcome = match kind {
                        0 | 1 => Outcome::Alive,
                        // Never recorded: the permit is lost.
                        2 | 3 => continue,
                        _ => Outcome::Failed,
                    };
                    if let Ok(permit) = permit {
                        breaker.record(&permit, outcome, now, || 0);
                        model.record(outcome, now);
                    }
                    prop_assert_eq!(breaker.is_open(), model.open.is_some());
                }
            }
        }
    }
}
