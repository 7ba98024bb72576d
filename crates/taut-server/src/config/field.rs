//! What the keys of an app's table are described by.

/// A key of an app's table, or of one of the tables in it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name in the file.
    pub name: &'static str,
    /// What the value is, in a word.
    pub value: &'static str,
    /// The value that stands when none is given; empty where that means none.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
}
