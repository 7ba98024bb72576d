//! When to ping, and when to give up.

use std::time::Duration;

use crate::Time;

/// How to find out that a silent peer is gone.
///
/// After `interval` without a byte from the peer a ping is sent; when nothing at all has come `timeout` later,
/// the peer is dead. A silent peer that answers is pinged once an `interval`, whichever of the two is longer. A busy
/// connection never pings. How slowly a message may come is bounded by
/// [`Limits::message_timeout`](crate::Limits::message_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Silence before a ping, spread by ±10 % from connection to connection; 20 seconds, because common load
    /// balancers cut a connection after 30 to 60. Costs 10 bytes a time.
    pub interval: Duration,
    /// Silence after the ping before the peer is given up; 20 seconds.
    pub timeout: Duration,
}

impl Heartbeat {
    /// 20 seconds and 20 seconds.
    pub const fn standard() -> Self {
        Self { interval: Duration::from_secs(20), timeout: Duration::from_secs(20) }
    }

    /// For clients on batteries: 50 seconds (below the 55 after which some platforms cut) and 20.
    pub const fn mobile() -> Self {
        Self { interval: Duration::from_secs(50), timeout: Duration::from_secs(20) }
    }

    /// Within one data centre: 5 seconds and 5.
    pub const fn lan() -> Self {
        Self { interval: Duration::from_secs(5), timeout: Duration::from_secs(5) }
    }

    /// No pings. A dead peer is noticed when the kernel notices, which may be never.
    pub const fn off() -> Self {
        Self { interval: Duration::MAX, timeout: Duration::MAX }
    }

    const fn is_off(&self) -> bool {
        self.interval.as_secs() == u64::MAX
    }
}

/// One connection's heartbeat: when the peer was heard last, and the ping that waits for its pong.
#[derive(Debug)]
pub(crate) struct Keepalive {
    last_received: Time,
    /// When the last ping was sent.
    ping_sent: Time,
    /// When the deadline was handled last, while that ping had no answer.
    checked: Time,
    /// Microseconds; 0 before the first.
    round_trip: u32,
    /// Counts pings, and is the payload by which their pongs are known.
    sequence: u32,
    /// Thousandths by which this connection's interval is spread: 900 to 1100.
    spread: u16,
    /// The pong of the last ping has not come.
    awaits_pong: bool,
}

/// What to do when the heartbeat's deadline has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepaliveAction {
    Wait,
    Ping([u8; 8]),
    TimedOut,
}

impl Keepalive {
    pub(crate) fn new(now: Time, random: u32) -> Self {
        let spread = 900 + (random % 201) as u16;
        Self {
            last_received: now,
            ping_sent: now,
            checked: now,
            round_trip: 0,
            sequence: 0,
            spread,
            awaits_pong: false,
        }
    }

    /// Any received byte shows that the peer is alive.
    pub(crate) fn received(&mut self, now: Time) {
        self.last_received = now;
    }

    /// A pong came; gives the round trip if it answers our ping.
    pub(crate) fn pong(&mut self, payload: &[u8], now: Time) -> Option<Duration> {
        if !self.awaits_pong || payload != self.payload() {
            return None;
        }
        self.awaits_pong = false;
        let round_trip = now - self.ping_sent;
        self.round_trip = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX).max(1);
        Some(round_trip)
    }

    /// The peer has read some of what lies before an unanswered ping. That shows that it is alive too, so the wait for
    /// its answer restarts.
    pub(crate) fn read(&mut self, now: Time) {
        if self.is_unanswered() {
            (self.ping_sent, self.checked) = (now, now);
            // The round trip of that ping would be meaningless.
            self.sequence = self.sequence.wrapping_add(1);
        }
    }

    /// The payload of the ping whose pong has not come.
    pub(crate) fn awaited_pong(&self) -> Option<[u8; 8]> {
        self.awaits_pong.then(|| self.payload())
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        (self.round_trip > 0).then(|| Duration::from_micros(u64::from(self.round_trip)))
    }

    /// When to call [`handle_deadline`](Self::handle_deadline). Received bytes never make it sooner: they may make a
    /// ping due one interval later, so while an answer is awaited the driver checks at least once an interval.
    pub(crate) fn deadline(&self, heartbeat: &Heartbeat) -> Option<Time> {
        if heartbeat.is_off() {
            return None;
        }
        let interval = heartbeat.interval.saturating_mul(u32::from(self.spread)) / 1000;
        Some(if self.is_unanswered() {
            (self.ping_sent + heartbeat.timeout).min(self.checked + interval)
        } else {
            self.last_received + interval
        })
    }

    pub(crate) fn handle_deadline(&mut self, now: Time, heartbeat: &Heartbeat) -> KeepaliveAction {
        match self.deadline(heartbeat) {
            Some(deadline) if now >= deadline => {}
            _ => return KeepaliveAction::Wait,
        }
        if self.is_unanswered() {
            self.checked = now;
            return if now >= self.ping_sent + heartbeat.timeout {
                KeepaliveAction::TimedOut
            } else {
                KeepaliveAction::Wait
            };
        }
        self.sequence = self.sequence.wrapping_add(1);
        (self.ping_sent, self.checked, self.awaits_pong) = (now, now, true);
        KeepaliveAction::Ping(self.payload())
    }

    /// Whether nothing has come since the last ping. Any bytes are as good as its pong.
    fn is_unanswered(&self) -> bool {
        self.awaits_pong && self.last_received < self.ping_sent
    }

    fn payload(&self) -> [u8; 8] {
        u64::from(self.sequence).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Heartbeat = Heartbeat::standard();

    fn keepalive() -> Keepalive {
        Keepalive::new(Time::ZERO, 100) // spread 1000: exactly the interval
    }

    #[test]
    fn a_silent_peer_is_pinged_once_and_then_given_up() {
        let mut keepalive = keepalive();
        assert_eq!(keepalive.handle_deadline(Time::from_millis(19_999), &HEARTBEAT), KeepaliveAction::Wait);
        assert!(matches!(keepalive.handle_deadline(Time::from_millis(20_000), &HEARTBEAT), KeepaliveAction::Ping(_)));
        assert_eq!(keepalive.handle_deadline(Time::from_millis(39_999), &HEARTBEAT), KeepaliveAction::Wait);
        assert_eq!(keepalive.handle_deadline(Time::from_millis(40_000), &HEARTBEAT), KeepaliveAction::TimedOut);
    }

    #[test]
    fn any_byte_is_life_even_without_the_pong() {
        let mut keepalive = keepalive();
        assert!(matches!(keepalive.handle_deadline(Time::from_millis(20_000), &HEARTBEAT), KeepaliveAction::Ping(_)));
        keepalive.received(Time::from_millis(39_000));
        assert_eq!(keepalive.handle_deadline(Time::from_millis(40_000), &HEARTBEAT), KeepaliveAction::Wait);
        assert!(
            matches!(keepalive.handle_deadline(Time::from_millis(59_000), &HEARTBEAT), KeepaliveAction::Ping(_)),
            "silence begins anew"
        );
        assert_eq!(keepalive.handle_deadline(Time::from_millis(79_000), &HEARTBEAT), KeepaliveAction::TimedOut);
    }

    /// When a peer is pinged that answers each ping `delay` later and is silent otherwise, and that a driver looks
    /// after which sets its timer anew only when it has fired: in milliseconds.
    fn pings(interval: u64, timeout: u64, delay: u64, answers_by_pong: bool) -> Vec<u64> {
        let heartbeat =
            Heartbeat { interval: Duration::from_millis(interval), timeout: Duration::from_millis(timeout) };
        let (mut keepalive, mut pings) = (keepalive(), Vec::new());
        let mut answers: Vec<(u64, [u8; 8])> = Vec::new();
        let mut timer = keepalive.deadline(&heartbeat).unwrap();
        for now in 0..100_000 {
            let time = Time::from_millis(now);
            if let Some((_, payload)) = answers.pop_if(|(at, _)| *at == now) {
                keepalive.received(time);
                if answers_by_pong {
                    assert!(keepalive.pong(&payload, time).is_some());
                }
            }
            if time < timer {
                continue;
            }
            match keepalive.handle_deadline(time, &heartbeat) {
                KeepaliveAction::Wait => {}
                KeepaliveAction::Ping(payload) => {
                    pings.push(now);
                    answers.push((now + delay, payload));
                }
                KeepaliveAction::TimedOut => panic!("given up at {now} although it answers"),
            }
            timer = keepalive.deadline(&heartbeat).unwrap();
            assert!(timer > time, "a driver would spin");
        }
        pings
    }

    // The period became the timeout where that was longer: 25 and 30 seconds were a ping every 30.
    #[test]
    fn a_silent_peer_that_answers_is_pinged_once_an_interval_whatever_the_timeout() {
        for (interval, timeout) in
            [(20_000, 5_000), (20_000, 20_000), (25_000, 30_000), (2_000, 6_000), (1_000, 60_000)]
        {
            for (delay, answers_by_pong) in [(1, true), (900, true), (900, false)] {
                let pings = pings(interval, timeout, delay, answers_by_pong);
                assert_eq!(pings[0], interval);
                let periods: Vec<u64> = pings.windows(2).map(|pair| pair[1] - pair[0]).collect();
                assert!(periods.iter().all(|&period| period == interval + delay), "{interval}/{timeout}: {periods:?}");
                assert_eq!(periods.len() as u64, (100_000 - interval - 1) / (interval + delay));
            }
        }
    }

    #[test]
    fn an_answer_later_than_several_intervals_is_waited_for() {
        // Looked at after 1, 2, 3 and 4 seconds; answered after 4.5, and pinged again a second later.
        assert_eq!(pings(1_000, 6_000, 4_500, true)[..3], [1_000, 6_500, 12_000]);
    }

    #[test]
    fn a_silent_peer_is_given_up_after_the_timeout_however_long_that_is() {
        for (interval, timeout) in [(2_000, 500), (2_000, 2_000), (2_000, 6_000), (2_000, 7_100)] {
            let heartbeat =
                Heartbeat { interval: Duration::from_millis(interval), timeout: Duration::from_millis(timeout) };
            let (mut keepalive, mut pinged) = (keepalive(), 0);
            let dead = loop {
                let now = keepalive.deadline(&heartbeat).unwrap();
                match keepalive.handle_deadline(now, &heartbeat) {
                    KeepaliveAction::Wait => {}
                    KeepaliveAction::Ping(_) => pinged += 1,
                    KeepaliveAction::TimedOut => break now,
                }
            };
            assert_eq!((dead, pinged), (Time::from_millis(interval + timeout), 1));
        }
    }

    #[test]
    fn an_answer_in_the_very_moment_of_the_ping_is_one() {
        let mut keepalive = keepalive();
        let now = Time::from_millis(20_000);
        assert!(matches!(keepalive.handle_deadline(now, &HEARTBEAT), KeepaliveAction::Ping(_)));
        keepalive.received(now);
        assert_eq!(keepalive.deadline(&HEARTBEAT), Some(Time::from_millis(40_000)));
        assert!(matches!(keepalive.handle_deadline(Time::from_millis(40_000), &HEARTBEAT), KeepaliveAction::Ping(_)));
    }

    #[test]
    fn a_peer_that_reads_is_waited_for_anew() {
        let mut keepalive = keepalive();
        let KeepaliveAction::Ping(payload) = keepalive.handle_deadline(Time::from_millis(20_000), &HEARTBEAT) else {
            panic!()
        };
        keepalive.read(Time::from_millis(39_000));
        assert_eq!(keepalive.handle_deadline(Time::from_millis(58_999), &HEARTBEAT), KeepaliveAction::Wait);
        assert_eq!(keepalive.pong(&payload, Time::from_millis(58_999)), None, "it was behind what was read");
        assert_eq!(keepalive.handle_deadline(Time::from_millis(59_000), &HEARTBEAT), KeepaliveAction::TimedOut);
        // Without a ping there is nothing to wait for.
        let mut keepalive = Keepalive::new(Time::ZERO, 100);
        keepalive.read(Time::from_millis(10_000));
        assert!(matches!(keepalive.handle_deadline(Time::from_millis(20_000), &HEARTBEAT), KeepaliveAction::Ping(_)));
    }

    #[test]
    fn the_round_trip_is_known_by_the_newest_ping_alone() {
        let mut keepalive = keepalive();
        let KeepaliveAction::Ping(payload) = keepalive.handle_deadline(Time::from_millis(20_000), &HEARTBEAT) else {
            panic!()
        };
        assert_eq!(keepalive.pong(b"unsolicited", Time::from_millis(20_001)), None);
        assert_eq!(keepalive.round_trip(), None, "there was none yet");
        assert_eq!(keepalive.pong(&payload, Time::from_millis(20_030)), Some(Duration::from_millis(30)));
        assert_eq!(keepalive.pong(&payload, Time::from_millis(20_040)), None, "answered once");
        assert_eq!(keepalive.round_trip(), Some(Duration::from_millis(30)));
    }

    #[test]
    fn intervals_are_spread_by_a_tenth() {
        let deadline = |random| Keepalive::new(Time::ZERO, random).deadline(&HEARTBEAT).unwrap();
        assert_eq!(deadline(0), Time::from_millis(18_000));
        assert_eq!(deadline(200), Time::from_millis(22_000));
        assert_eq!(Keepalive::new(Time::ZERO, 0).deadline(&Heartbeat::off()), None);
    }

    // Whoever writes "a thousand billion years" instead of switching it off gets no overflow.
    #[test]
    fn any_interval_has_a_deadline() {
        for seconds in [1 << 40, u64::MAX / 1000, u64::MAX - 1] {
            let heartbeat = Heartbeat { interval: Duration::from_secs(seconds), timeout: Duration::MAX };
            let mut keepalive = keepalive();
            assert!(keepalive.deadline(&heartbeat) > Some(Time::from_millis(1 << 40)));
            assert_eq!(keepalive.handle_deadline(Time::from_millis(1 << 40), &heartbeat), KeepaliveAction::Wait);
        }
    }
}
