//! What is wrong with a configuration, all of it.

use std::fmt;

/// Why a configuration cannot be used: every mistake that was found in it, not only the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    mistakes: Vec<Diagnostic>,
}

/// One thing that is wrong. Neither part ever holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where it is: a flag, a variable, a file and its line; empty where it is about the whole.
    pub place: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl ConfigError {
    /// What is wrong, in the order in which it was found; at least one thing.
    pub fn mistakes(&self) -> &[Diagnostic] {
        &self.mistakes
    }

    /// At least one mistake.
    pub(crate) fn of(mistakes: Vec<Diagnostic>) -> Self {
        Self { mistakes }
    }

    /// What is wrong, to be told with more.
    pub fn into_mistakes(self) -> Vec<Diagnostic> {
        self.mistakes
    }

    /// All is well if there are none.
    pub(crate) fn unless_empty(mistakes: Vec<Diagnostic>) -> Result<(), Self> {
        if mistakes.is_empty() { Ok(()) } else { Err(Self { mistakes }) }
    }
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { place: place.into(), reason: reason.into() }
    }
}

impl From<Diagnostic> for ConfigError {
    fn from(mistake: Diagnostic) -> Self {
        Self { mistakes: vec![mistake] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.mistakes.as_slice() {
            return only.fmt(formatter);
        }
        write!(formatter, "there are {} mistakes in the configuration:", self.mistakes.len())?;
        for mistake in &self.mistakes {
            write!(formatter, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(formatter, "{}: ", self.place)?;
        }
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for ConfigError {}
