//! `GET /nodes`, and what the console shows of it: the engine of the cluster, and the nodes.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use serde::Serialize;

use super::Context;
use super::listener::Listener;
use super::metrics::check_access;
use crate::cluster;
use crate::http::answer::{self, ApiError};

/// `GET /nodes`: shows the nodes to whoever may see the metrics.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(crate) async fn show(
    State(context): State<Arc<Context>>,
    Extension(listener): Extension<Listener>,
    request: Request,
) -> Result<Response, ApiError> {
    check_access(&context, listener, &request, "The nodes")?;
    list(&context).await
}

/// `GET /console/api/nodes`: the same for the console.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(crate) async fn of_console(State(context): State<Arc<Context>>) -> Result<Response, ApiError> {
    list(&context).await
}

async fn list(context: &Context) -> Result<Response, ApiError> {
    let node = context.node();
    let nodes = node.nodes().await.unwrap_or_else(|| vec![alone(context)]);
    let engine = node.cluster().map(|state| Engine::new(context.engine.as_deref().unwrap_or_default(), state));
    answer::serialized(&Nodes { engine, nodes: nodes.iter().map(Node::new).collect() })
}

/// This node, where the engine does not tell of any.
fn alone(context: &Context) -> cluster::Node {
    let connections: usize = context.node().apps().all().iter().map(|app| app.connections()).sum();
    cluster::Node {
        incarnation: "".into(),
        name: context.node_name.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        is_here: true,
        connections: connections as u64,
        lease: std::time::Duration::ZERO,
    }
}

#[derive(Serialize)]
struct Nodes<'a> {
    /// `null` where the node is alone.
    engine: Option<Engine<'a>>,
    /// By their names.
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct Engine<'a> {
    /// Without user and password.
    address: &'a str,
    state: &'static str,
    losses: u64,
    waiting: usize,
    /// Seconds.
    lag: f64,
}

impl<'a> Engine<'a> {
    fn new(address: &'a str, cluster::State { phase, losses, waiting, lag, held_back: _ }: cluster::State) -> Self {
        Self { address, state: phase.name(), losses, waiting, lag: lag.as_secs_f64() }
    }
}

#[derive(Serialize)]
struct Node<'a> {
    name: &'a str,
    /// Another one each time that the node comes to the cluster.
    #[serde(skip_serializing_if = "str::is_empty")]
    incarnation: &'a str,
    version: &'a str,
    /// This is the node that was asked.
    here: bool,
    connections: u64,
    /// Seconds until it counts as dead, unless it says more before.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<f64>,
}

impl<'a> Node<'a> {
    fn new(node: &'a cluster::Node) -> Self {
        Self {
            name: &node.name,
            incarnation: &node.incarnation,
            version: &node.version,
            here: node.is_here,
            connections: node.connections,
            lease: (!node.lease.is_zero()).then_some(node.lease.as_secs_f64()),
        }
    }
}
