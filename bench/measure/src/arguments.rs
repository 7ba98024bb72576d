//! The command line, as far as the benchmarks have it in common.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use lexopt::Parser;
use lexopt::prelude::*;
use serde::Serialize;

use crate::Outcome;

/// What a run measures, and how long.
#[derive(Debug, Serialize)]
pub struct Arguments<Case, Idle> {
    /// Rounds; each gives one ratio per case and server.
    pub rounds: usize,
    /// Length of one measured window.
    pub window: Duration,
    /// Load before each window that is not counted.
    pub warm_up: Duration,
    /// Servers to measure beside the raw one; empty for all.
    pub only: Vec<String>,
    /// What is counted in windows.
    pub cases: Vec<Case>,
    /// Memory cases.
    pub idle: Vec<Idle>,
    /// Fresh processes whose memory is measured, per server and memory case.
    pub idle_starts: usize,
    /// The core that all servers are bound to.
    pub server_core: usize,
    /// The core that the load is bound to.
    pub load_core: usize,
    /// Where every single window is written.
    #[serde(skip)]
    pub json: Option<PathBuf>,
}

impl<Case, Idle> Arguments<Case, Idle>
where
    Case: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    /// Reads a command line; `None` says that help is wanted. Without others named, these `cases` and these `idle` ones are measured.
    ///
    /// `connections` is where a memory case has its number, and `own` takes the options that only one benchmark has.
    pub fn read(
        mut parser: Parser,
        cases: impl Into<Vec<Case>>,
        idle: impl Into<Vec<Idle>>,
        connections: impl Fn(&mut Idle) -> &mut usize,
        mut own: impl FnMut(&str) -> bool,
    ) -> Result<Option<Self>, lexopt::Error> {
        let mut arguments = Self {
            rounds: 11,
            window: Duration::from_millis(700),
            warm_up: Duration::from_millis(150),
            only: Vec::new(),
            cases: Vec::new(),
            idle: idle.into(),
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
                    let number = in_range(&mut parser, 1, MOST_IDLE)?;
                    arguments.idle.iter_mut().for_each(|idle| *connections(idle) = number);
                }
                Long("idle-starts") => arguments.idle_starts = in_range(&mut parser, 1, 100)?,
                Long("no-idle") => arguments.idle.clear(),
                Long("no-throughput") => with_throughput = false,
                Long("server-core") => arguments.server_core = in_range(&mut parser, 0, 1023)?,
                Long("load-core") => arguments.load_core = in_range(&mut parser, 0, 1023)?,
                Long("json") => arguments.json = Some(parser.value()?.into()),
                Long("help") | Short('h') => return Ok(None),
                Long(name) if own(name) => {}
                other => return Err(other.unexpected()),
            }
        }
        if arguments.server_core == arguments.load_core {
            return Err("the servers and the load need a core each; --server-core and --load-core name the same".into());
        }
        if !with_throughput {
            arguments.cases.clear();
        } else if arguments.cases.is_empty() {
            arguments.cases = cases.into();
        }
        Ok(Some(arguments))
    }
}

/// A benchmark from its command line to its exit code. `usage` says what it measures and which options are its own.
pub fn main<A>(
    usage: &str,
    read: impl FnOnce(Parser) -> Result<Option<A>, lexopt::Error>,
    run: impl FnOnce(&A) -> Outcome<()>,
) -> ExitCode {
    match read(Parser::from_env()) {
        Ok(None) => {
            print!("{usage}{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(Some(arguments)) => match run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("error: {error}\n\n{usage}{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// The end of what `--help` prints.
const USAGE: &str = "
  --rounds N           rounds, each of which gives one ratio per case and server   [11]
  --window MS          measured time per window, in milliseconds                   [700]
  --warm-up MS         load before each window that is not counted                 [150]
  --only NAME          measure only this server and the raw one; repeatable
  --no-throughput      only memory
  --no-idle            no memory measurements
  --idle-starts N      fresh processes per server in the memory measurements       [3]
  --server-core N      the core of the servers                                     [0]
  --load-core N        the core of the load                                        [1]
  --json FILE          write every window there
";

fn in_range(parser: &mut Parser, least: usize, most: usize) -> Result<usize, lexopt::Error> {
    let number: usize = parser.value()?.parse()?;
    if (least..=most).contains(&number) {
        Ok(number)
    } else {
        Err(format!("{number} is out of range: {least} to {most}").into())
    }
}

fn milliseconds(parser: &mut Parser, least: u64) -> Result<Duration, lexopt::Error> {
    let number: u64 = parser.value()?.parse()?;
    if (least..=60_000).contains(&number) {
        Ok(Duration::from_millis(number))
    } else {
        Err(format!("{number} is out of range: {least} to 60000 milliseconds").into())
    }
}

/// Connections in a memory case.
const MOST_IDLE: usize = 200_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Option<Arguments<u8, usize>>, lexopt::Error> {
        Arguments::read(Parser::from_args(arguments), [1, 2], [10, 20], |idle| idle, |name| name == "binary")
    }

    fn good(arguments: &[&str]) -> Arguments<u8, usize> {
        read(arguments).unwrap().unwrap()
    }

    #[test]
    fn without_arguments_the_cases_of_the_house_are_measured() {
        let arguments = good(&[]);
        assert_eq!((arguments.cases, arguments.idle), (vec![1, 2], vec![10, 20]));
    }

    #[test]
    fn named_cases_replace_those_of_the_house() {
        assert_eq!(good(&["--case", "3", "--binary", "--case=4"]).cases, [3, 4]);
    }

    #[test]
    fn parts_can_be_left_out() {
        let arguments = good(&["--no-throughput", "--idle", "50"]);
        assert_eq!((arguments.cases, arguments.idle), (vec![], vec![50, 50]));
        assert!(good(&["--no-idle"]).idle.is_empty());
        assert!(read(&["--case", "3", "--help"]).unwrap().is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in
            [&["--rounds", "0"][..], &["--window", "1"], &["--case", "x"], &["--load-core", "0"], &["--swiftly"]]
        {
            assert!(read(arguments).is_err(), "{arguments:?}");
        }
    }
}
