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
    /// Binary messages; else text, which a server has to check as UTF-8.
    pub(crate) binary: bool,
}

impl Case {
    const fn text(connections: usize, payload: usize, in_flight: usize) -> Self {
        Self { connections, payload, in_flight, binary: false }
    }
}

/// The cases of a run that names none: chat-like, pipelined, and large messages.
pub(crate) const CASES: [Case; 3] = [Case::text(100, 20, 1), Case::text(200, 125, 16), Case::text(10, 16 * 1024, 4)];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, payload, in_flight, .. } = self;
        write!(f, "{connections} × {} × {in_flight}", Bytes(*payload))
    }
}

/// Reads `CONNECTIONSxBYTESxIN_FLIGHT`, such as `200x125x16`.
impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
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
        Ok(Self::text(connections, payload, in_flight))
    }
}

/// Servers may send what is longer in several frames; bytes could then not be counted as messages.
pub(crate) const MAX_PAYLOAD: usize = 65_535;

/// A size as people read it.
pub(crate) struct Bytes(pub(crate) usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 1024 && bytes.is_multiple_of(1024) => {
                write!(f, "{} KiB", bytes / 1024)
            }
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
    }

    #[test]
    fn what_is_no_case_is_refused_with_the_form_it_should_have() {
        for text in ["", "10", "10x20", "10x20x1x1", "ax20x1", "10x20xx1", "ax10x20x1"] {
            let error = text.parse::<Case>().unwrap_err();
            assert!(error.contains("CONNECTIONSxBYTESxIN_FLIGHT"), "{error}");
        }
        for text in ["0x20x1", "10x0x1", "10x20x0", "10x65536x1"] {
            let error = text.parse::<Case>().unwrap_err();
            assert!(error.contains("out of range"), "{error}");
        }
    }
}
