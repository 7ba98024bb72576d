//! The command line.

use lexopt::Parser;

use crate::case::{CASES, Case};
use crate::idle::Idle;

pub(crate) type Arguments = measure::arguments::Arguments<Case, Idle>;

/// Reads a command line; `None` says that help is wanted.
pub(crate) fn read(parser: Parser) -> Result<Option<Arguments>, lexopt::Error> {
    Arguments::read(parser, CASES, [Idle { connections: 10_000 }], |idle| &mut idle.connections, |_| false)
}

/// The beginning of what `--help` prints.
pub(crate) const USAGE: &str = "\
Measures servers of channels against a raw fan-out, in one interleaved run. Run it in the folder `bench`.

  --case CxSxP         C channels, S subscribers of each, P publishers; repeatable [1x1000x1 1x1000x8 1x10000x1
  --case connectxN     connects with a subscription, N under way                    1x10000x8 1000x5x8 connectx64]
  --idle N             subscribed connections in the memory measurements           [10000]
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_of_either_kind() {
        let arguments = read(Parser::from_args(["--case", "3x4x5", "--case=connectx7"])).unwrap().unwrap();
        assert_eq!(arguments.cases.len(), 2);
        assert_eq!(arguments.cases[1], Case::Connect { under_way: 7 });
    }
}
