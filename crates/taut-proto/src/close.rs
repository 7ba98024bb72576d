//! How a connection is closed: a code and a reason (RFC 6455 §5.5.1).

use std::fmt;

use crate::close_code::CloseCode;
use crate::frame::MAX_CONTROL_PAYLOAD;
use crate::violation::Violation;

/// How a connection was ended: a code and a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    code: CloseCode,
    reason: String,
}

impl Close {
    /// A close with a reason. A reason of more than 123 bytes is cut at a character (RFC 6455 §5.5).
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        reason.truncate(boundary_at_most(&reason, MAX_CONTROL_PAYLOAD - 2));
        Self { code, reason }
    }

    /// The code; [`CloseCode::NO_STATUS`] when the frame carried none.
    pub fn code(&self) -> CloseCode {
        self.code
    }

    /// The reason, often empty.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Reads a close frame's payload.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Violation> {
        // RFC 6455 §5.5.1: the body may be empty; if it is not, it begins with a two-byte code.
        let (code, reason) = match payload {
            [] => return Ok(Self { code: CloseCode::NO_STATUS, reason: String::new() }),
            [_] => return Err(Violation::CloseTooShort),
            [high, low, reason @ ..] => (CloseCode::new(u16::from_be_bytes([*high, *low])), reason),
        };
        if !code.is_sendable() {
            return Err(Violation::CloseCodeInvalid);
        }
        // RFC 6455 §5.5.1: the rest is UTF-8.
        let reason = std::str::from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
        Ok(Self { code, reason: reason.to_owned() })
    }

    /// The close frame's payload: empty without a code.
    pub(crate) fn payload(&self) -> Vec<u8> {
        if !self.code.is_sendable() {
            return Vec::new();
        }
        let mut payload = Vec::with_capacity(2 + self.reason.len());
        payload.extend_from_slice(&self.code.as_u16().to_be_bytes());
        payload.extend_from_slice(self.reason.as_bytes());
        payload
    }
}

impl From<CloseCode> for Close {
    fn from(code: CloseCode) -> Self {
        Self { code, reason: String::new() }
    }
}

impl From<Violation> for Close {
    fn from(violation: Violation) -> Self {
        Self::new(violation.close_code(), violation.reason())
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason.is_empty() { self.code.fmt(f) } else { write!(f, "{} {}", self.code, self.reason) }
    }
}

/// The last character boundary at or before `index`.
fn boundary_at_most(text: &str, index: usize) -> usize {
    if index >= text.len() {
        return text.len();
    }
    (0..=index).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 6455 §7.4.1: 1004, 1005, 1006 and 1015 are not set as a code in a close frame.
    // RFC 6455 §7.4.2: 0-999 are not used; 1016-2999 are for later revisions of the protocol.
    #[test]
    fn only_codes_that_may_stand_on_the_wire_are_accepted() {
        let accepted = |code: u16| Close::parse(&code.to_be_bytes()).is_ok();
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert!(accepted(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!accepted(code), "{code}");
        }
    }

    // RFC 6455 §5.5.1: a body begins with a two-byte code; the reason after it is UTF-8.
    #[test]
    fn a_close_payload_is_empty_or_a_code_and_utf_8() {
        assert_eq!(Close::parse(b"").unwrap().code(), CloseCode::NO_STATUS);
        assert_eq!(Close::parse(b"\x03"), Err(Violation::CloseTooShort));
        assert_eq!(Close::parse(b"\x03\xe8bye").unwrap(), Close::new(CloseCode::NORMAL, "bye"));
        assert_eq!(Close::parse(b"\x03\xe8\xce\xba\xe1"), Err(Violation::InvalidUtf8));
    }

    // RFC 6455 §5.5: a control frame carries at most 125 bytes, two of them the code.
    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let close = Close::new(CloseCode::NORMAL, "ü".repeat(100));
        assert_eq!(close.reason().len(), 122);
        assert_eq!(Close::parse(&close.payload()).unwrap(), close);
    }
}
