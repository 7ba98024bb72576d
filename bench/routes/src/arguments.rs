//! The command line.

use lexopt::Parser;

use crate::case::{CASES, Case, IDLE, Idle};

pub(crate) type Arguments = measure::arguments::Arguments<Case, Idle>;

/// Reads a command line; `None` says that help is wanted.
pub(crate) fn read(parser: Parser) -> Result<Option<Arguments>, lexopt::Error> {
    Arguments::read(parser, CASES, IDLE, |idle| &mut idle.connections, |_| false)
}

/// The beginning of what `--help` prints.
pub(crate) const USAGE: &str = "\
Measures WebSockets whose backend is PHP against php-fpm alone, in one interleaved run. Run it in the folder `bench`.

  --case N             N connections, one message in flight on each; repeatable    [1 8 64]
  --idle N             silent connections in the memory measurements               [10000]
";
