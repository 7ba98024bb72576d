//! What `--expect` waits for.

use regex::bytes::Regex;
use taut::Message;

/// A message that is waited for.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    /// One that holds this text.
    Text(String),
    /// One that matches.
    Pattern(Regex),
}

impl Expect {
    /// Reads a text, or a regular expression between slashes.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            Some(pattern) if !pattern.is_empty() => {
                Regex::new(pattern).map(Self::Pattern).map_err(|error| error.to_string())
            }
            _ => Ok(Self::Text(text.to_owned())),
        }
    }

    pub(super) fn is_met(&self, message: &Message<'_>) -> bool {
        match (self, message.as_text()) {
            (Self::Text(wanted), Some(text)) => text.contains(wanted),
            (Self::Text(wanted), None) => {
                let wanted = wanted.as_bytes();
                wanted.is_empty() || message.as_bytes().windows(wanted.len()).any(|part| part == wanted)
            }
            (Self::Pattern(pattern), _) => pattern.is_match(message.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_looked_for_and_a_pattern_matched() {
        let is_met = |expect: &str, text: &str| Expect::parse(expect).unwrap().is_met(&text.into());
        assert!(is_met("ready", r#"{"state":"ready"}"#) && !is_met("ready", "read"));
        assert!(is_met(r"/^\{.*\d+\}$/", r#"{"n":12}"#) && !is_met(r"/^\d+$/", "12a"));
        // Too short for a pattern.
        assert!(is_met("/", "a/b") && is_met("//", "a//b") && !is_met("//", "a/b"));
        assert!(Expect::parse("/(/").unwrap_err().contains("unclosed group"));
        assert!(Expect::parse("/\\x00/").unwrap().is_met(&Message::from(&[1, 0, 2][..])));
        assert!(Expect::parse("").unwrap().is_met(&Message::from(&b"\xff"[..])) && is_met("", ""));
        let done = Expect::parse("done").unwrap();
        assert!(done.is_met(&Message::from(&b"\x04done\xff"[..])) && !done.is_met(&Message::from(&b"don"[..])));
    }
}
