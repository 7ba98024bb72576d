//! A window: what was counted in it, and who was busy meanwhile.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Outcome;
use crate::server::{CoreTime, Server, own_processor_time};

/// What one window has shown.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Window {
    /// Messages that came: echoes, deliveries, or whatever else the case counts.
    pub messages: u64,
    /// Length of the window.
    pub seconds: f64,
    /// Processor time of the server in it.
    pub server_seconds: f64,
    /// Processor time of the load in it.
    pub load_seconds: f64,
    /// Share of the window in which the server's core was busy with anything at all.
    pub server_core_busy: f64,
    /// Share of the window in which the load's core was busy with anything at all.
    pub load_core_busy: f64,
    /// Share of the window that the host took away from the two cores.
    pub stolen: f64,
    /// How long a message took, if that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
}

/// From the writing of a message to its reply, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the messages took no longer.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
}

impl Latency {
    /// Of single messages; `None` if there are none.
    pub fn of(mut messages: Vec<Duration>) -> Option<Self> {
        messages.sort_unstable();
        let last = messages.len().checked_sub(1)?;
        let at = |percent: usize| messages[last * percent / 100].as_secs_f64();
        Some(Self { p50: at(50), p99: at(99) })
    }
}

impl Window {
    /// Messages per second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// Messages per second of the server's processor time.
    pub fn rate_of_processor_time(&self) -> f64 {
        self.messages as f64 / self.server_seconds
    }

    /// The server's processor time per message, in seconds.
    pub fn server_cost(&self) -> f64 {
        self.server_seconds / self.messages as f64
    }

    /// The load's processor time per message, in seconds.
    pub fn load_cost(&self) -> f64 {
        self.load_seconds / self.messages as f64
    }
}

/// All the counters at one moment.
#[derive(Debug)]
pub struct Reading {
    /// When it was taken.
    pub at: Instant,
    messages: u64,
    server: u64,
    load: u64,
    cores: [CoreTime; 2],
}

impl Reading {
    /// Reads the counters; `messages` is what has been counted so far, `cores` are the server's and the load's.
    pub fn take(server: &Server, [server_core, load_core]: [usize; 2], messages: u64) -> Outcome<Self> {
        Ok(Self {
            server: server.processor_time()?,
            load: own_processor_time()?,
            cores: [CoreTime::of(server_core)?, CoreTime::of(load_core)?],
            messages,
            at: Instant::now(),
        })
    }

    /// The window that began with an earlier reading.
    pub fn since(&self, before: &Self) -> Window {
        let busy = |core: usize| {
            let (now, then) = (self.cores[core], before.cores[core]);
            share(now.busy - then.busy, now.total - then.total)
        };
        let sum = |count: fn(&CoreTime) -> u64| {
            let total = |reading: &Self| reading.cores.iter().map(count).sum::<u64>();
            total(self) - total(before)
        };
        Window {
            messages: self.messages - before.messages,
            seconds: (self.at - before.at).as_secs_f64(),
            server_seconds: (self.server - before.server) as f64 / 1e9,
            load_seconds: (self.load - before.load) as f64 / 1e9,
            server_core_busy: busy(0),
            load_core_busy: busy(1),
            stolen: share(sum(|core| core.stolen), sum(|core| core.total)),
            latency: None,
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_messages_in_order() {
        let messages = (1..=101).rev().map(Duration::from_millis).collect();
        assert_eq!(Latency::of(messages), Some(Latency { p50: 0.051, p99: 0.1 }));
        assert_eq!(Latency::of(Vec::new()), None);
    }
}
