//! The exit codes of the command: one list, for all of its commands.

use std::process::ExitCode;

/// How a command ended. Scripts tell causes apart by the numbers, so none ever changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Done = 0,
    /// The command could not do its work, or a check found something.
    Failed = 1,
    /// The command line or the configuration is wrong: `EX_USAGE` of sysexits.h.
    Usage = 64,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
