//! Every way a peer can break the rules.

use std::fmt;

use crate::CloseCode;

/// What the peer did wrong. Each has the close code it is answered with and the section it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Violation {
    /// A continuation frame although no message is in progress.
    ContinuationWithoutStart,
    /// A close frame whose payload is a single byte.
    CloseTooShort,
    /// A close code that must not stand on the wire.
    CloseCodeInvalid,
    /// RSV1 on a continuation or control frame: only a message's first frame says that it is compressed.
    CompressedNotFirst,
    /// A control frame in fragments.
    ControlFragmented,
    /// A control frame of more than 125 bytes.
    ControlTooLong,
    /// Compressed data that does not inflate.
    DeflateCorrupt,
    /// A new data frame while a fragmented message is unfinished.
    ExpectedContinuation,
    /// A compressed message that inflates past the message limit.
    InflatedTooBig,
    /// A text message or close reason that is not UTF-8.
    InvalidUtf8,
    /// A length in more bytes than it needs.
    LengthNotMinimal,
    /// A 64-bit length with its highest bit set.
    LengthOverflow,
    /// A masked frame from a server.
    Masked,
    /// A message beyond the limit.
    MessageTooBig,
    /// An opcode that no RFC defines.
    ReservedOpcode,
    /// A reserved bit that no extension gave a meaning.
    ReservedBits,
    /// A compressed message that ends its DEFLATE stream, and begins another, every few bytes.
    TooManyFinalBlocks,
    /// A message in more fragments than the limit allows.
    TooManyFragments,
    /// An unmasked frame from a client.
    Unmasked,
}

impl Violation {
    /// The code our close frame carries (RFC 6455 §7.4.1).
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::InvalidUtf8 | Self::DeflateCorrupt => CloseCode::INVALID_PAYLOAD,
            Self::InflatedTooBig | Self::MessageTooBig => CloseCode::TOO_BIG,
            Self::TooManyFinalBlocks | Self::TooManyFragments => CloseCode::POLICY,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// Where the rule stands.
    pub const fn section(self) -> &'static str {
        match self {
            Self::ContinuationWithoutStart | Self::ExpectedContinuation => "RFC 6455 §5.4",
            Self::CloseTooShort => "RFC 6455 §5.5.1",
            Self::CloseCodeInvalid => "RFC 6455 §7.4",
            Self::CompressedNotFirst => "RFC 7692 §6.1",
            Self::ControlFragmented | Self::ControlTooLong => "RFC 6455 §5.5",
            Self::DeflateCorrupt => "RFC 7692 §7.2.2",
            Self::InvalidUtf8 => "RFC 6455 §8.1",
            Self::LengthNotMinimal | Self::LengthOverflow | Self::ReservedBits | Self::ReservedOpcode => {
                "RFC 6455 §5.2"
            }
            Self::Masked | Self::Unmasked => "RFC 6455 §5.1",
            Self::InflatedTooBig | Self::MessageTooBig | Self::TooManyFinalBlocks | Self::TooManyFragments => {
                "RFC 6455 §10.4"
            }
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::ContinuationWithoutStart => "continuation frame without a message to continue",
            Self::CloseTooShort => "close payload of one byte",
            Self::CloseCodeInvalid => "close code that must not be sent",
            Self::CompressedNotFirst => "RSV1 on a frame that does not begin a message",
            Self::ControlFragmented => "fragmented control frame",
            Self::ControlTooLong => "control frame longer than 125 bytes",
            Self::DeflateCorrupt => "compressed data does not inflate",
            Self::ExpectedContinuation => "new message before the last one was finished",
            Self::InflatedTooBig => "message inflates beyond the limit",
            Self::InvalidUtf8 => "text is not UTF-8",
            Self::LengthNotMinimal => "length not in its shortest form",
            Self::LengthOverflow => "length with its highest bit set",
            Self::Masked => "masked frame from a server",
            Self::MessageTooBig => "message beyond the limit",
            Self::ReservedOpcode => "reserved opcode",
            Self::ReservedBits => "reserved bit without an extension",
            Self::TooManyFinalBlocks => "compressed message in too many final blocks",
            Self::TooManyFragments => "message in too many fragments",
            Self::Unmasked => "unmasked frame from a client",
        }
    }

    /// The close reason we send: what was wrong, without the section.
    pub const fn reason(self) -> &'static str {
        self.sentence()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the peer broke the protocol: {} ({})", self.sentence(), self.section())
    }
}

impl std::error::Error for Violation {}
