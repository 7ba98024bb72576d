//! The two ends of a connection.

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We connected: our frames are masked.
    Client,
    /// We accepted.
    Server,
}
