//! What can go wrong: one opaque type, natively and in a browser.

#[cfg(target_family = "wasm")]
mod browser;
#[cfg(not(target_family = "wasm"))]
mod native;

use std::fmt;
use std::sync::Arc;

use taut_proto::NotText;

#[cfg(target_family = "wasm")]
pub(crate) use browser::{Cause, OVERFLOW};
#[cfg(all(feature = "tls", not(target_family = "wasm")))]
pub(crate) use native::tls;
#[cfg(not(target_family = "wasm"))]
pub(crate) use native::{Cause, ConnectStage, Deadline, Doing, ProxyFailure, may_come_back};

/// Why a call failed.
///
/// Its text says what is wrong and what to do, and so does `Debug`: a `main` that returns one prints it as people can
/// read it. The methods below are for programs. A clean close is not an error. Once a connection has failed, every later
/// call returns the same error.
///
/// The text has everything: [`source`](std::error::Error::source) is what caused the error below, not that error again,
/// so a report that prints the chain repeats nothing. For programs there is [`inner`](Self::inner).
#[cfg_attr(
    target_family = "wasm",
    doc = "\nThe methods are those of the native error, although a browser tells a page too little to answer some of \
           them."
)]
#[derive(Clone)]
pub struct Error(Arc<Cause>);

impl Error {
    /// An error of the application itself, such as for the hook of `Client::reconnecting` to fail with. It is the
    /// [`inner`](Self::inner) one, and transient.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Cause::Other(error.into()).into()
    }

    /// The error that this one is about, to be told apart by its type: an [`std::io::Error`], rustls' error, what
    /// [`other`](Self::other) was given. Its text is part of ours.
    ///
    /// ```no_run
    /// # async fn run() {
    /// use std::io;
    ///
    /// let Err(error) = taut::connect("ws://127.0.0.1:9001/").await else { return };
    /// if let Some(error) = error.inner().and_then(|inner| inner.downcast_ref::<io::Error>()) {
    ///     println!("{:?}", error.kind());
    /// }
    /// # }
    /// ```
    pub fn inner(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.inner()
    }
}

/// A binary message where text was expected.
impl From<NotText> for Error {
    fn from(error: NotText) -> Self {
        Self::other(error)
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

/// The text, since that is what Rust prints when `main` returns an error and when `unwrap` meets one; below it the
/// [`source`](std::error::Error::source)s, if there are any. `{:#?}` shows the structure.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f.debug_tuple("Error").field(&self.0).finish();
        }
        fmt::Display::fmt(&self.0, f)?;
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            write!(f, "\n  caused by: {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // What is within is told already.
        self.inner()?.source()
    }
}
