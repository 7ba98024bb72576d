//! The command line.

use lexopt::Parser;

use crate::case::{CASES, Case, Content};
use crate::idle::{IDLE, Idle};

pub(crate) type Arguments = measure::arguments::Arguments<Case, Idle>;

/// Reads a command line; `None` says that help is wanted.
pub(crate) fn read(parser: Parser) -> Result<Option<Arguments>, lexopt::Error> {
    let mut binary = false;
    let own = |name: &str| {
        binary |= name == "binary";
        name == "binary"
    };
    let read = Arguments::read(parser, CASES, IDLE, |idle| &mut idle.connections, own)?;
    Ok(read.map(|mut arguments| {
        if binary {
            arguments.cases.iter_mut().for_each(|case| case.content = Content::Binary);
            arguments.idle.iter_mut().for_each(|idle| idle.content = Content::Binary);
        }
        arguments
    }))
}

/// The beginning of what `--help` prints.
pub(crate) const USAGE: &str = "\
Measures WebSocket echo servers against a raw TCP echo, in one interleaved run. Run it in the folder `bench`.

  --case CxBxF         C connections, B bytes, F in flight; repeatable. A `u` behind the bytes: text that is not ASCII
                                      [100x20x1 200x125x16 10x16384x4 4x1048576x1 10x65536ux2]
  --idle N             idle connections in the memory measurements                 [10000, and 2000 for large messages]
  --binary             binary messages in place of text
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_take_the_kind_of_message_that_is_asked_for() {
        let read = |arguments: &[&str]| read(Parser::from_args(arguments)).unwrap().unwrap();
        let arguments = read(&["--binary", "--case", "3x4x5", "--case=6x7x8"]);
        assert_eq!(arguments.cases.len(), 2);
        assert_eq!(arguments.cases[1].in_flight, 8);
        assert!(arguments.cases.iter().all(|case| case.content == Content::Binary));
        assert!(arguments.idle.iter().all(|idle| idle.content == Content::Binary));
        let arguments = read(&[]);
        assert_eq!((arguments.cases, arguments.idle), (CASES.to_vec(), IDLE.to_vec()));
    }
}
