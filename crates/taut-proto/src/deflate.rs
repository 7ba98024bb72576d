//! permessage-deflate (RFC 7692): what is agreed in the handshake, and the compressing itself.

#[cfg(feature = "deflate")]
pub(crate) mod codec;

pub use crate::handshake::deflate::*;
