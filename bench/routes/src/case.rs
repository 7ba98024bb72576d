//! What is measured, as data.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// So many connections with one message in flight on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    pub(crate) connections: usize,
}

/// The cases of a run that names none.
pub(crate) const CASES: [Case; 3] = [Case { connections: 1 }, Case { connections: 8 }, Case { connections: 64 }];

/// So many clients that were let in and have been silent since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Idle {
    pub(crate) connections: usize,
}

/// The memory case of a run that names none.
pub(crate) const IDLE: [Idle; 1] = [Idle { connections: 10_000 }];

/// `stream_select` knows no more.
const MOST_CONNECTIONS: usize = 1000;

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections } = self;
        write!(f, "{connections} connection{}", if *connections == 1 { "" } else { "s" })
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(connections) if (1..=MOST_CONNECTIONS).contains(&connections) => Ok(Self { connections }),
            _ => Err(format!("`{text}` is not a number of connections from 1 to {MOST_CONNECTIONS}")),
        }
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} idle", self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_and_written() {
        assert_eq!("64".parse::<Case>().unwrap(), CASES[2]);
        assert_eq!(CASES[0].to_string(), "1 connection");
        for text in ["", "0", "1001", "x", "8x1"] {
            text.parse::<Case>().unwrap_err();
        }
    }
}
