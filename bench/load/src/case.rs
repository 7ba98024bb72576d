//! What is measured, as data.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// So many connections, each of which keeps so many messages of one size under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    /// Open connections, all busy.
    pub(crate) connections: usize,
    /// Payload of every message, in bytes.
    pub(crate) payload: usize,
    /// Messages sent and not yet echoed, on each connection.
    pub(crate) in_flight: usize,
    /// What the messages hold.
    pub(crate) content: Content,
}

/// What messages hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Content {
    /// ASCII text, which a server has to check as UTF-8.
    Ascii,
    /// Text of which every character takes two bytes.
    NonAscii,
    /// Binary messages.
    Binary,
}

impl Case {
    const fn text(connections: usize, payload: usize, in_flight: usize) -> Self {
        Self { connections, payload, in_flight, content: Content::Ascii }
    }

    const fn non_ascii(connections: usize, payload: usize, in_flight: usize) -> Self {
        Self { content: Content::NonAscii, ..Self::text(connections, payload, in_flight) }
    }

    /// Whether a server may send a message in several frames, so that its bytes cannot be counted as messages.
    pub(crate) fn may_be_fragmented(&self) -> bool {
        self.payload > MAX_IN_ONE_FRAME
    }
}

/// The cases of a run that names none: chat-like, pipelined, and large messages.
pub(crate) const CASES: [Case; 5] = [
    Case::text(100, 20, 1),
    Case::text(200, 125, 16),
    Case::text(10, 16 << 10, 4),
    Case::text(4, 1 << 20, 1),
    Case::non_ascii(10, 64 << 10, 2),
];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, payload, in_flight, content } = self;
        let note = if *content == Content::NonAscii { " non-ASCII" } else { "" };
        write!(f, "{connections} × {}{note} × {in_flight}", Bytes(*payload))
    }
}

/// Reads `CONNECTIONSxBYTESxIN_FLIGHT`, such as `200x125x16`; a `u` behind the bytes asks for text that is not ASCII.
impl FromStr for Case {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let is_non_ascii = given.split('x').nth(1).is_some_and(|bytes| bytes.ends_with('u'));
        let text = &*if is_non_ascii { given.replacen('u', "", 1) } else { given.to_owned() };
        let numbers: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
        let Ok(&[connections, payload, in_flight]) = numbers.as_deref() else {
            return Err(format!("`{text}` is no case; write CONNECTIONSxBYTESxIN_FLIGHT, such as 200x125x16"));
        };
        if !(1..=20_000).contains(&connections)
            || !(1..=MAX_PAYLOAD).contains(&payload)
            || !(1..=1024).contains(&in_flight)
        {
            return Err(format!(
                "`{text}` is out of range: 1 to 20000 connections, 1 to {MAX_PAYLOAD} bytes, 1 to 1024 in flight"
            ));
        }
        let case = Self::text(connections, payload, in_flight);
        Ok(if is_non_ascii { Self::non_ascii(connections, payload, in_flight) } else { case })
    }
}

/// Servers may send what is longer in several frames.
const MAX_IN_ONE_FRAME: usize = 65_535;

/// The largest message that every server takes with its default settings, or nearly so: 1 MiB.
pub(crate) const MAX_PAYLOAD: usize = 1 << 20;

/// A size as people read it.
pub(crate) struct Bytes(pub(crate) usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => write!(f, "{} MiB", bytes >> 20),
            bytes if bytes >= 1024 && bytes.is_multiple_of(1024) => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{bytes} B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_and_written() {
        let case: Case = "10x16384x4".parse().unwrap();
        assert_eq!(case, CASES[2]);
        assert_eq!(case.to_string(), "10 × 16 KiB × 4");
        assert_eq!(CASES[1].to_string(), "200 × 125 B × 16");
        assert_eq!("4x1048576x1".parse(), Ok(CASES[3]));
        assert_eq!(CASES[3].to_string(), "4 × 1 MiB × 1");
        assert_eq!("10x65536ux2".parse(), Ok(CASES[4]));
        assert_eq!(CASES[4].to_string(), "10 × 64 KiB non-ASCII × 2");
    }

    #[test]
    fn what_is_no_case_is_refused_with_the_form_it_should_have() {
        for text in ["", "10", "10x20", "10x20x1x1", "ax20x1", "10x20xx1", "ax10x20x1", "10ux20x1", "10xux1"] {
            let error = text.parse::<Case>().unwrap_err();
            assert!(error.contains("CONNECTIONSxBYTESxIN_FLIGHT"), "{error}");
        }
        for text in ["0x20x1", "10x0x1", "10x20x0", "10x1048577x1"] {
            let error = text.parse::<Case>().unwrap_err();
            assert!(error.contains("out of range"), "{error}");
        }
    }
}
