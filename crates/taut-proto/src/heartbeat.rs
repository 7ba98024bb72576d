//! When to ping, when to give up.

use std::time::Duration;

use crate::Time;

/// How to find out that a silent peer is gone.
///
/// After `interval` without a byte from the peer a ping is sent; when nothing at all has come `timeout` later,
/// the peer is dead. A busy connection never pings, and a peer that is still sending, however slowly, lives.
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

/// One connection's heartbeat.
#[derive(Debug)]
pub(crate) struct Pulse {
    last_received: Time,
    ping_sent: Option<Time>,
    /// Microseconds; 0 before the first.
    round_trip: u32,
    /// Counts pings, and is the payload by which their pongs are known.
    sequence: u32,
    /// Thousandths by which this connection's interval is spread: 900 to 1100.
    spread: u16,
}

/// What a heartbeat asks for when its deadline has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    Wait,
    Ping([u8; 8]),
    Dead,
}

impl Pulse {
    pub(crate) fn new(now: Time, random: u32) -> Self {
        let spread = 900 + (random % 201) as u16;
        Self { last_received: now, ping_sent: None, round_trip: 0, sequence: 0, spread }
    }

    /// Any received byte is life.
    pub(crate) fn received(&mut self, now: Time) {
        self.last_received = now;
    }

    /// A pong came; gives the round trip if it answers our ping.
    pub(crate) fn pong(&mut self, payload: &[u8], now: Time) -> Option<Duration> {
        let sent = self.ping_sent.filter(|_| payload == self.payload())?;
        self.ping_sent = None;
        let round_trip = now - sent;
        self.round_trip = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX).max(1);
        Some(round_trip)
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        (self.round_trip > 0).then(|| Duration::from_micros(u64::from(self.round_trip)))
    }

    pub(crate) fn deadline(&self, heartbeat: &Heartbeat) -> Option<Time> {
        if heartbeat.is_off() {
            return None;
        }
        Some(match self.ping_sent {
            Some(sent) => sent.max(self.last_received) + heartbeat.timeout,
            None => self.last_received + heartbeat.interval.saturating_mul(u32::from(self.spread)) / 1000,
        })
    }

    pub(crate) fn beat(&mut self, now: Time, heartbeat: &Heartbeat) -> Beat {
        match self.deadline(heartbeat) {
            Some(deadline) if now >= deadline => {}
            _ => return Beat::Wait,
        }
        // Bytes that came after the ping are as good as its pong; a new silence has begun since.
        if self.ping_sent.is_some_and(|sent| sent >= self.last_received) {
            return Beat::Dead;
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.ping_sent = Some(now);
        Beat::Ping(self.payload())
    }

    fn payload(&self) -> [u8; 8] {
        u64::from(self.sequence).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Heartbeat = Heartbeat::standard();

    fn pulse() -> Pulse {
        Pulse::new(Time::ZERO, 100) // spread 1000: exactly the interval
    }

    #[test]
    fn a_silent_peer_is_pinged_once_and_then_given_up() {
        let mut pulse = pulse();
        assert_eq!(pulse.beat(Time::from_millis(19_999), &HEARTBEAT), Beat::Wait);
        assert!(matches!(pulse.beat(Time::from_millis(20_000), &HEARTBEAT), Beat::Ping(_)));
        assert_eq!(pulse.beat(Time::from_millis(39_999), &HEARTBEAT), Beat::Wait);
        assert_eq!(pulse.beat(Time::from_millis(40_000), &HEARTBEAT), Beat::Dead);
    }

    #[test]
    fn any_byte_is_life_even_without_the_pong() {
        let mut pulse = pulse();
        assert!(matches!(pulse.beat(Time::from_millis(20_000), &HEARTBEAT), Beat::Ping(_)));
        pulse.received(Time::from_millis(39_000));
        assert_eq!(pulse.beat(Time::from_millis(40_000), &HEARTBEAT), Beat::Wait);
        assert!(matches!(pulse.beat(Time::from_millis(59_000), &HEARTBEAT), Beat::Ping(_)), "silence begins anew");
        assert_eq!(pulse.beat(Time::from_millis(79_000), &HEARTBEAT), Beat::Dead);
    }

    #[test]
    fn the_round_trip_is_known_by_the_newest_ping_alone() {
        let mut pulse = pulse();
        let Beat::Ping(payload) = pulse.beat(Time::from_millis(20_000), &HEARTBEAT) else { panic!() };
        assert_eq!(pulse.pong(b"unsolicited", Time::from_millis(20_001)), None);
        assert_eq!(pulse.pong(&payload, Time::from_millis(20_030)), Some(Duration::from_millis(30)));
        assert_eq!(pulse.pong(&payload, Time::from_millis(20_040)), None, "answered once");
    }

    #[test]
    fn intervals_are_spread_by_a_tenth() {
        let deadline = |random| Pulse::new(Time::ZERO, random).deadline(&HEARTBEAT).unwrap();
        assert_eq!(deadline(0), Time::from_millis(18_000));
        assert_eq!(deadline(200), Time::from_millis(22_000));
        assert_eq!(Pulse::new(Time::ZERO, 0).deadline(&Heartbeat::off()), None);
    }

    // Whoever writes "a thousand billion years" instead of switching it off gets no overflow.
    #[test]
    fn any_interval_has_a_deadline() {
        for seconds in [1 << 40, u64::MAX / 1000, u64::MAX - 1] {
            let heartbeat = Heartbeat { interval: Duration::from_secs(seconds), timeout: Duration::MAX };
            let mut pulse = pulse();
            assert!(pulse.deadline(&heartbeat) > Some(Time::from_millis(1 << 40)));
            assert_eq!(pulse.beat(Time::from_millis(1 << 40), &heartbeat), Beat::Wait);
        }
    }
}
