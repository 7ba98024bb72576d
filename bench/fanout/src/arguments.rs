//! The command line.

use lexopt::Parser;

use measure::peers::Row;

use crate::case::{CASES, Case};
use crate::idle::Idle;
use crate::peers::{CLUSTER_ROWS, ROWS};

pub(crate) type Arguments = measure::arguments::Arguments<Case, Idle>;

/// Reads a command line, and says which servers it is about; `None` says that help is wanted.
pub(crate) fn read(parser: Parser) -> Result<Option<(Arguments, &'static [Row])>, lexopt::Error> {
    let mut is_cluster = false;
    let own = |name: &str| {
        let is_known = name == "cluster";
        is_cluster |= is_known;
        is_known
    };
    let arguments = Arguments::read(parser, CASES, [Idle { connections: 10_000 }], |idle| &mut idle.connections, own)?;
    let Some(mut arguments) = arguments else { return Ok(None) };
    if !is_cluster {
        return Ok(Some((arguments, &ROWS)));
    }
    // What the first of several processes holds says little.
    arguments.idle.clear();
    Ok(Some((arguments, &CLUSTER_ROWS)))
}

/// The beginning of what `--help` prints.
pub(crate) const USAGE: &str = "\
Measures servers of channels against a raw fan-out, in one interleaved run. Run it in the folder `bench`.

  --case CxSxP         C channels, S subscribers of each, P publishers; repeatable [1x1000x1 1x1000x8 1x10000x1
  --case connectxN     connects with a subscription, N under way                    1x10000x8 1000x5x8 connectx64]
  --idle N             subscribed connections in the memory measurements           [10000]
  --cluster            three nodes on Redis, and on NATS, beside a server that is alone; no memory
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_of_either_kind() {
        let (arguments, rows) = read(Parser::from_args(["--case", "3x4x5", "--case=connectx7"])).unwrap().unwrap();
        assert_eq!(arguments.cases.len(), 2);
        assert_eq!(arguments.cases[1], Case::Connect { under_way: 7 });
        assert!(rows.iter().any(|row| row.name == "bun") && !arguments.idle.is_empty());
    }

    #[test]
    fn a_cluster_has_rows_of_its_own_and_no_memory() {
        let (arguments, rows) = read(Parser::from_args(["--cluster"])).unwrap().unwrap();
        assert!(arguments.idle.is_empty() && !arguments.cases.is_empty());
        assert!(rows.iter().any(|row| row.name == "taut × 3, nats"));
    }
}
