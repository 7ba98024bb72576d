//! Who a client is, before its connection is accepted.

use std::sync::Arc;

/// Who a client is, as the application that vouches for it says before its connection is accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user_id: Arc<str>,
    /// JSON text of what the user says of itself.
    pub(crate) user_info: Option<Box<str>>,
}
