//! The parameters of `permessage-deflate` as text (RFC 7692 §7.1).

use std::fmt;

use crate::handshake::{Offer, Param};

/// The parameters of an offer or of a response (RFC 7692 §7.1), each valid by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The server resets its window before each message.
    pub server_no_context_takeover: bool,
    /// The client does.
    pub client_no_context_takeover: bool,
    /// The largest window of the server, 8 to 15. None means 15 and that a response need not mention it.
    pub server_max_window_bits: Option<u8>,
    /// The largest window of the client, 8 to 15. In an offer none means that the client cannot be asked; without a
    /// value it stands for 15.
    pub client_max_window_bits: Option<u8>,
}

impl Parameters {
    /// Reads what a client offers.
    pub fn from_offer(offer: &Offer<'_>) -> Result<Self, InvalidParameter> {
        Self::read(offer, true)
    }

    /// Reads what a server answers.
    pub fn from_response(response: &Offer<'_>) -> Result<Self, InvalidParameter> {
        Self::read(response, false)
    }

    fn read(offer: &Offer<'_>, is_offer: bool) -> Result<Self, InvalidParameter> {
        let mut read = Self::default();
        // RFC 7692 §7.1: unknown parameters, values that are not allowed and repeats spoil the whole element.
        for param in offer.params() {
            let is_repeated = match param.name {
                "server_no_context_takeover" => std::mem::replace(&mut read.server_no_context_takeover, flag(&param)?),
                "client_no_context_takeover" => std::mem::replace(&mut read.client_no_context_takeover, flag(&param)?),
                "server_max_window_bits" => read.server_max_window_bits.replace(window_bits(&param)?).is_some(),
                "client_max_window_bits" => {
                    // RFC 7692 §7.1.2.2: only in an offer may it stand without a value.
                    let bits = if is_offer && param.value.is_none() { MOST_BITS } else { window_bits(&param)? };
                    read.client_max_window_bits.replace(bits).is_some()
                }
                _ => return Err(InvalidParameter::Unknown),
            };
            if is_repeated {
                return Err(InvalidParameter::Repeated);
            }
        }
        Ok(read)
    }

    /// Appends the extension with these self.
    pub(super) fn write(self, is_offer: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(NAME.as_bytes());
        if self.server_no_context_takeover {
            out.extend_from_slice(b"; server_no_context_takeover");
        }
        if self.client_no_context_takeover {
            out.extend_from_slice(b"; client_no_context_takeover");
        }
        if let Some(bits) = self.server_max_window_bits {
            out.extend_from_slice(format!("; server_max_window_bits={bits}").as_bytes());
        }
        match self.client_max_window_bits {
            None => {}
            // Without a value is how browsers write it, so every server has met it.
            Some(MOST_BITS) if is_offer => out.extend_from_slice(b"; client_max_window_bits"),
            Some(bits) => out.extend_from_slice(format!("; client_max_window_bits={bits}").as_bytes()),
        }
    }
}

/// What is wrong with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidParameter {
    /// RFC 7692 does not define it.
    Unknown,
    /// It occurs twice.
    Repeated,
    /// A flag with a value.
    UnexpectedValue,
    /// Window bits without a value.
    MissingValue,
    /// Window bits that are not a number from 8 to 15, or are written with a leading zero.
    WindowBits,
}

impl fmt::Display for InvalidParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "a parameter that permessage-deflate does not define",
            Self::Repeated => "a parameter of permessage-deflate twice",
            Self::UnexpectedValue => "a value on a parameter of permessage-deflate that takes none",
            Self::MissingValue => "window bits without a value",
            Self::WindowBits => "window bits that are not a number from 8 to 15",
        })
    }
}

impl std::error::Error for InvalidParameter {}

/// RFC 7692 §7.1.1: the context takeover parameters have no value.
fn flag(param: &Param<'_>) -> Result<bool, InvalidParameter> {
    if param.value.is_some() { Err(InvalidParameter::UnexpectedValue) } else { Ok(true) }
}

/// RFC 7692 §7.1.2: a decimal number from 8 to 15 without leading zeros.
fn window_bits(param: &Param<'_>) -> Result<u8, InvalidParameter> {
    match param.value.as_deref().ok_or(InvalidParameter::MissingValue)? {
        "8" => Ok(8),
        "9" => Ok(9),
        "10" => Ok(10),
        "11" => Ok(11),
        "12" => Ok(12),
        "13" => Ok(13),
        "14" => Ok(14),
        "15" => Ok(15),
        _ => Err(InvalidParameter::WindowBits),
    }
}

/// The extension's registered name (RFC 7692 §9).
pub const NAME: &str = "permessage-deflate";

/// The largest window, as a power of two (RFC 7692 §7.1.2).
pub(super) const MOST_BITS: u8 = 15;
