//! What the table of routes is made of.

use std::sync::Arc;

use axum::routing::MethodRouter;

use super::Context;
use super::openapi::Operation;

/// A path, what its requests are counted by, what answers them, and how they are described.
#[derive(Clone, Copy)]
pub(super) struct Route {
    pub(super) area: Area,
    pub(super) path: &'static str,
    pub(super) label: &'static str,
    pub(super) handlers: fn() -> MethodRouter<Arc<Context>>,
    /// None of what is the server's own business, such as its pages.
    pub(super) operations: &'static [Operation],
}

/// What belongs together: served by the same listeners, behind the same checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    /// Clients and backends, below the path prefix.
    Api,
    /// The chat and its files.
    Chat,
    /// Load balancers: on every listener, and where clients connect below the path prefix as well.
    Health,
    /// Prometheus and whoever looks after the nodes, on every listener.
    Metrics,
    /// Where the console's own listener leads to.
    ConsoleIndex,
    /// What the console shows to those who have logged in.
    ConsoleData,
    /// Logging in.
    ConsoleSession,
    /// The console's files.
    ConsolePages,
}

impl Route {
    pub(super) const fn new(area: Area, path: &'static str, handlers: fn() -> MethodRouter<Arc<Context>>) -> Self {
        Self { area, path, label: path, handlers, operations: &[] }
    }

    /// Counts its requests with those of another path.
    pub(super) const fn counted_as(self, label: &'static str) -> Self {
        Self { label, ..self }
    }

    /// Says what its methods do.
    pub(super) const fn described(self, operations: &'static [Operation]) -> Self {
        Self { operations, ..self }
    }
}
