//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;
use serde::Serialize;

use crate::case::{CASES, Case};
use crate::idle::Idle;

/// What a run measures, and how long.
#[derive(Serialize)]
pub(crate) struct Arguments {
    /// Rounds; each gives one ratio per case and server.
    pub(crate) rounds: usize,
    /// Length of one measured window.
    pub(crate) window: Duration,
    /// Load before each window that is not counted.
    pub(crate) warm_up: Duration,
    /// Servers to measure beside the raw fan-out; empty for all.
    pub(crate) only: Vec<String>,
    /// What is counted in windows.
    pub(crate) cases: Vec<Case>,
    /// Memory cases.
    pub(crate) idle: Vec<Idle>,
    /// Fresh processes whose memory is measured, per server and memory case.
    pub(crate) idle_starts: usize,
    /// The core that all servers are bound to.
    pub(crate) server_core: usize,
    /// The core that the load is bound to.
    pub(crate) load_core: usize,
    /// Where every single window is written.
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
}

impl Arguments {
    /// Reads the command line; `None` says that help is wanted.
    pub(crate) fn from_command_line() -> Result<Option<Self>, lexopt::Error> {
        Self::read(lexopt::Parser::from_env())
    }

    fn read(mut parser: lexopt::Parser) -> Result<Option<Self>, lexopt::Error> {
        let mut arguments = Self {
            rounds: 11,
            window: Duration::from_millis(700),
            warm_up: Duration::from_millis(150),
            only: Vec::new(),
            cases: Vec::new(),
            idle: vec![Idle { connections: 10_000 }],
            idle_starts: 3,
            server_core: 0,
            load_core: 1,
            json: None,
        };
        let mut with_throughput = true;
        while let Some(argument) = parser.next()? {
            match argument {
                Long("rounds") => arguments.rounds = in_range(&mut parser, 1, 1000)?,
                Long("window") => arguments.window = milliseconds(&mut parser, 50)?,
                Long("warm-up") => arguments.warm_up = milliseconds(&mut parser, 0)?,
                Long("only") => arguments.only.push(parser.value()?.string()?),
                Long("case") => arguments.cases.push(parser.value()?.parse()?),
                Long("idle") => {
                    arguments.idle = vec![Idle { connections: in_range(&mut parser, 1, 100_000)? }];
                }
                Long("idle-starts") => arguments.idle_starts = in_range(&mut parser, 1, 100)?,
                Long("no-idle") => arguments.idle.clear(),
                Long("no-throughput") => with_throughput = false,
                Long("server-core") => arguments.server_core = in_range(&mut parser, 0, 1023)?,
                Long("load-core") => arguments.load_core = in_range(&mut parser, 0, 1023)?,
                Long("json") => arguments.json = Some(parser.value()?.into()),
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        if arguments.server_core == arguments.load_core {
            return Err("the servers and the load need a core each; --server-core and --load-core name the same".into());
        }
        if !with_throughput {
            arguments.cases.clear();
        } else if arguments.cases.is_empty() {
            arguments.cases = CASES.to_vec();
        }
        Ok(Some(arguments))
    }
}

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
Measures servers of channels against a raw fan-out, in one interleaved run. Run it in the folder `bench`.

  --rounds N           rounds, each of which gives one ratio per case and server   [11]
  --window MS          measured time per window, in milliseconds                   [700]
  --warm-up MS         load before each window that is not counted                 [150]
  --only NAME          measure only this server and the raw fan-out; repeatable
  --case CxSxP         C channels, S subscribers of each, P publishers; repeatable [1x1000x1 1x1000x8 1x10000x1
  --case connectxN     connects with a subscription, N under way                    1x10000x8 1000x5x8 connectx64]
  --no-throughput      only memory
  --idle N             subscribed connections in the memory measurements           [10000]
  --idle-starts N      fresh processes per server in the memory measurements       [3]
  --no-idle            no memory measurements
  --server-core N      the core of the servers                                     [0]
  --load-core N        the core of the load                                        [1]
  --json FILE          write every window there
";

fn in_range(parser: &mut lexopt::Parser, least: usize, most: usize) -> Result<usize, lexopt::Error> {
    let number: usize = parser.value()?.parse()?;
    if (least..=most).contains(&number) {
        Ok(number)
    } else {
        Err(format!("{number} is out of range: {least} to {most}").into())
    }
}

fn milliseconds(parser: &mut lexopt::Parser, least: u64) -> Result<Duration, lexopt::Error> {
    let number: u64 = parser.value()?.parse()?;
    if (least..=60_000).contains(&number) {
        Ok(Duration::from_millis(number))
    } else {
        Err(format!("{number} is out of range: {least} to 60000 milliseconds").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Option<Arguments>, lexopt::Error> {
        Arguments::read(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn without_arguments_the_cases_of_the_house_are_measured() {
        let arguments = read(&[]).unwrap().unwrap();
        assert_eq!(arguments.cases, CASES);
        assert_eq!(arguments.idle, [Idle { connections: 10_000 }]);
    }

    #[test]
    fn named_cases_replace_those_of_the_house() {
        let arguments = read(&["--case", "3x4x5", "--case=connectx7"]).unwrap().unwrap();
        assert_eq!(arguments.cases.len(), 2);
        assert_eq!(arguments.cases[1], Case::Connect { under_way: 7 });
    }

    #[test]
    fn parts_can_be_left_out() {
        let arguments = read(&["--no-throughput", "--idle", "50"]).unwrap().unwrap();
        assert!(arguments.cases.is_empty());
        assert_eq!(arguments.idle, [Idle { connections: 50 }]);
        assert!(read(&["--no-idle"]).unwrap().unwrap().idle.is_empty());
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in
            [&["--rounds", "0"][..], &["--window", "1"], &["--case", "1x1"], &["--load-core", "0"], &["--swiftly"]]
        {
            assert!(read(arguments).is_err(), "{arguments:?}");
        }
    }
}
