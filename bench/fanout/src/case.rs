//! What is measured, as data.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// What one column of the tables measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Case {
    /// Events are published and every subscriber gets them; deliveries are counted.
    Publish(Publish),
    /// Connections are opened and subscribed, so many at a time; those that are through are counted.
    Connect {
        /// Connections that are on their way at any time.
        under_way: usize,
    },
}

/// So many channels with so many subscribers each, and publishers that go round the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Publish {
    /// Channels, all with subscribers.
    pub(crate) channels: usize,
    /// Subscribers of each channel; each is one connection.
    pub(crate) subscribers: usize,
    /// HTTP connections that publish.
    pub(crate) publishers: usize,
}

impl Publish {
    const fn new(channels: usize, subscribers: usize, publishers: usize) -> Self {
        Self { channels, subscribers, publishers }
    }

    /// Subscribed connections in all.
    pub(crate) fn connections(&self) -> usize {
        self.channels * self.subscribers
    }

    /// Publishes that may have begun and not have reached every subscriber: with each publisher's next one another that
    /// is being delivered, so that the server never waits for the load.
    pub(crate) fn under_way(&self) -> usize {
        2 * self.publishers
    }
}

impl Case {
    /// Most connections that it has open at a time.
    pub(crate) fn connections(&self) -> usize {
        match self {
            Self::Publish(publish) => publish.connections() + publish.publishers,
            Self::Connect { .. } => MOST_ARRIVALS,
        }
    }
}

/// The cases of a run that names none.
pub(crate) const CASES: [Case; 6] = [
    Case::Publish(Publish::new(1, 1000, 1)),
    Case::Publish(Publish::new(1, 1000, 8)),
    Case::Publish(Publish::new(1, 10_000, 1)),
    Case::Publish(Publish::new(1, 10_000, 8)),
    Case::Publish(Publish::new(1000, 5, 8)),
    Case::Connect { under_way: 64 },
];

/// Connections of one window of the case `connect`; it ends early when there are as many.
pub(crate) const MOST_ARRIVALS: usize = 15_000;

/// What the digits of a channel's name can count.
const MOST_CHANNELS: usize = 100_000;

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish(Publish { channels, subscribers, publishers }) => {
                write!(f, "{} × {} × {publishers}", Count(*channels), Count(*subscribers))
            }
            Self::Connect { under_way } => write!(f, "connect × {under_way}"),
        }
    }
}

/// Reads `CHANNELSxSUBSCRIBERSxPUBLISHERS`, such as `1x1000x8`, or `connectxUNDER_WAY`.
impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form =
            || format!("`{text}` is no case; write CHANNELSxSUBSCRIBERSxPUBLISHERS, such as 1x1000x8, or connectx64");
        if let Some(under_way) = text.strip_prefix("connectx") {
            let under_way = under_way.parse().map_err(|_| form())?;
            if !(1..=1000).contains(&under_way) {
                return Err(format!("`{text}` is out of range: 1 to 1000 connections under way"));
            }
            return Ok(Self::Connect { under_way });
        }
        let numbers: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
        let Ok(&[channels, subscribers, publishers]) = numbers.as_deref() else {
            return Err(form());
        };
        if !(1..MOST_CHANNELS).contains(&channels)
            || !(1..=50_000).contains(&(channels.saturating_mul(subscribers)))
            || !(1..=1000).contains(&publishers)
        {
            return Err(format!(
                "`{text}` is out of range: 1 to 50000 subscribers in all, 1 to 1000 publishers, fewer than {MOST_CHANNELS} channels"
            ));
        }
        Ok(Self::Publish(Publish::new(channels, subscribers, publishers)))
    }
}

/// A number as people read it.
pub(crate) struct Count(pub(crate) usize);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            number @ 0..1000 => write!(f, "{number}"),
            number => write!(f, "{},{:03}", Self(number / 1000), number % 1000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_and_written() {
        let case: Case = "1x10000x8".parse().unwrap();
        assert_eq!(case, CASES[3]);
        assert_eq!(case.to_string(), "1 × 10,000 × 8");
        assert_eq!("connectx64".parse::<Case>().unwrap(), CASES[5]);
    }

    #[test]
    fn what_is_no_case_is_refused_with_the_form_it_should_have() {
        for text in ["", "10", "10x20", "10x20x1x1", "ax20x1", "connect", "connectx", "connectxa"] {
            let error = text.parse::<Case>().unwrap_err();
            assert!(error.contains("CHANNELSxSUBSCRIBERSxPUBLISHERS"), "{error}");
        }
        for text in ["0x20x1", "10x0x1", "10x20x0", "1x50001x1", "100000x1x1", "connectx0"] {
            let error = text.parse::<Case>().unwrap_err();
            assert!(error.contains("out of range"), "{error}");
        }
    }
}
