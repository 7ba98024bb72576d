//! What can go wrong: one opaque type, natively and in a browser.

#[cfg(target_family = "wasm")]
mod browser;
#[cfg(not(target_family = "wasm"))]
mod native;

use std::fmt;
use std::sync::Arc;

#[cfg(target_family = "wasm")]
pub(crate) use browser::{Cause, OVERFLOW};
#[cfg(all(feature = "tls", not(target_family = "wasm")))]
pub(crate) use native::tls;
#[cfg(not(target_family = "wasm"))]
pub(crate) use native::{Cause, ConnectStage, Deadline, Doing, ProxyFailure, may_come_back};

/// Why a call failed.
///
/// Its text says what is wrong and what to do; the methods below are for programs. A clean close is not an error. Once
/// a connection has failed, every later call returns the same error.
#[cfg_attr(
    target_family = "wasm",
    doc = "\nThe methods are those of the native error, although a browser tells a page too little to answer some of \
           them."
)]
#[derive(Clone)]
pub struct Error(Arc<Cause>);

impl Error {
    /// An error of the application itself, such as for the hook of `Client::reconnecting` to fail with. It is the
    /// [`source`](std::error::Error::source), and transient.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Cause::Other(error.into()).into()
    }
}

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        Self(Arc::new(cause))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Error").field(&self.0).finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
