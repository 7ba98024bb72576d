//! What each route of the HTTP API does.

use super::{Access, Operation};

const NOTHING: Operation = Operation {
    method: "get",
    id: "",
    summary: "",
    description: "",
    query: &[],
    body: None,
    answers: &[(200, "Done")],
    errors: &[],
    access: Access::Signed,
};

pub(in crate::api) const PUBLISH: Operation = Operation {
    method: "post",
    id: "publishEvent",
    summary: "Publish an event to one channel or several",
    description: "Success means that the event is on its way; a channel without subscribers is a success too. All of \
        the channels get the event or none. With `info`, the answer has the attributes of each channel.",
    body: Some("Event"),
    answers: &[(200, "Published")],
    ..NOTHING
};

pub(in crate::api) const PUBLISH_BATCH: Operation = Operation {
    method: "post",
    id: "publishBatch",
    summary: "Publish several events",
    description: "If one of the events cannot be published, none is.",
    body: Some("Batch"),
    answers: &[(200, "PublishedBatch")],
    ..NOTHING
};

pub(in crate::api) const LIST_CHANNELS: Operation = Operation {
    id: "listChannels",
    summary: "List the channels that have subscribers",
    description: "`user_count` can only be asked for with a `filter_by_prefix` of presence channels.",
    query: &["filter_by_prefix", "info"],
    answers: &[(200, "Channels")],
    ..NOTHING
};

pub(in crate::api) const SHOW_CHANNEL: Operation = Operation {
    id: "showChannel",
    summary: "Tell whether a channel has subscribers, and more if `info` asks for it",
    query: &["info"],
    answers: &[(200, "Channel")],
    ..NOTHING
};

pub(in crate::api) const LIST_USERS: Operation = Operation {
    id: "listChannelUsers",
    summary: "List the users in a presence channel",
    answers: &[(200, "Users")],
    ..NOTHING
};

pub(in crate::api) const COUNT_CONNECTIONS: Operation = Operation {
    id: "countConnections",
    summary: "Count the connections of an app on this node",
    answers: &[(200, "Connections")],
    ..NOTHING
};

pub(in crate::api) const TERMINATE_USER: Operation = Operation {
    method: "post",
    id: "terminateUserConnections",
    summary: "Close all connections that are signed in as a user",
    description: "A user without connections is a success too. In a cluster, every node has done it.",
    ..NOTHING
};

pub(in crate::api) const TERMINATE_USER_BY_KEY: Operation = Operation {
    id: "terminateUserConnectionsByKey",
    summary: "Close all connections that are signed in as a user of the app that `auth_key` names",
    description: "Pusher's package for Python asks like this.",
    ..TERMINATE_USER
};

pub(in crate::api) const SEND_TO_USER: Operation = Operation {
    method: "post",
    id: "sendToUser",
    summary: "Send a message to all connections of a user",
    description: "WebSockets of routes get the body as it is. Pusher's clients get a text as the event `message` of \
        their user.",
    body: Some("Message"),
    access: Access::SignedOrKeyed,
    ..NOTHING
};

pub(in crate::api) const SHOW_CONNECTION: Operation = Operation {
    id: "showConnection",
    summary: "Tell whether a connection of a route is open",
    answers: &[(200, "Done"), (202, "Elsewhere")],
    errors: &[410],
    access: Access::SignedOrKeyed,
    ..NOTHING
};

pub(in crate::api) const SEND_TO_CONNECTION: Operation = Operation {
    method: "post",
    id: "sendToConnection",
    summary: "Send a message to one connection of a route",
    body: Some("Message"),
    ..SHOW_CONNECTION
};

pub(in crate::api) const CLOSE_CONNECTION: Operation = Operation {
    method: "post",
    id: "closeConnection",
    summary: "Close one connection of a route",
    body: Some("Close"),
    ..SHOW_CONNECTION
};

pub(in crate::api) const SHOW_API_GATEWAY: Operation =
    Operation { id: "showConnectionOfApiGateway", ..SHOW_CONNECTION };

pub(in crate::api) const SEND_API_GATEWAY: Operation = Operation {
    id: "sendToConnectionOfApiGateway",
    description: "As Amazon's API Gateway has it.",
    ..SEND_TO_CONNECTION
};

pub(in crate::api) const DELETE_API_GATEWAY: Operation = Operation {
    method: "delete",
    id: "deleteConnectionOfApiGateway",
    summary: "Close one connection of a route",
    ..SHOW_CONNECTION
};

pub(in crate::api) const PUBLISH_ITEMS: Operation = Operation {
    method: "post",
    id: "publishItems",
    summary: "Publish items of GRIP to the connections of routes",
    description: "All of the items are published or none. An item whose `id` came within the last minute is not \
        published again.",
    body: Some("Items"),
    answers: &[(200, "ItemsPublished")],
    access: Access::SignedOrKeyed,
    ..NOTHING
};

pub(in crate::api) const LIST_FAILED_WEBHOOKS: Operation = Operation {
    id: "listFailedWebhooks",
    summary: "List the webhooks that were given up, the newest first",
    answers: &[(200, "FailedWebhooks")],
    ..NOTHING
};

pub(in crate::api) const RETRY_WEBHOOK: Operation =
    Operation { method: "post", id: "retryWebhook", summary: "Try a webhook that was given up again", ..NOTHING };

pub(in crate::api) const CONNECT: Operation = Operation {
    id: "connect",
    summary: "Open a WebSocket of the Pusher protocol",
    description: "With `Upgrade: websocket`, the connection becomes a WebSocket: `asyncapi.json` has its messages.",
    query: &["protocol", "client", "version"],
    answers: &[(101, "Upgraded")],
    errors: &[426],
    access: Access::Everybody,
    ..NOTHING
};

pub(in crate::api) const UP: Operation = Operation {
    id: "up",
    summary: "Tell that the server is there",
    answers: &[(200, "Healthy")],
    access: Access::Everybody,
    ..NOTHING
};

pub(in crate::api) const LIVE: Operation =
    Operation { id: "live", description: "The same as `/up`, by Sockudo's name.", ..UP };

pub(in crate::api) const UP_APP: Operation =
    Operation { id: "upApp", summary: "Tell whether the server serves an app", errors: &[404], ..UP };

pub(in crate::api) const READY: Operation = Operation {
    id: "ready",
    summary: "Tell whether the server takes clients and publishers",
    description: "503 while it goes down, cannot reach its cluster, or has more to do than it can.",
    answers: &[(200, "Ready")],
    errors: &[503],
    ..UP
};

pub(in crate::api) const ACCEPT_TRAFFIC: Operation =
    Operation { id: "acceptTraffic", description: "The same as `/ready`, by Soketi's name.", ..READY };

pub(in crate::api) const METRICS: Operation = Operation {
    id: "metrics",
    summary: "Show the metrics for Prometheus",
    answers: &[(200, "Metrics")],
    access: Access::Operator,
    ..NOTHING
};

pub(in crate::api) const NODES: Operation = Operation {
    id: "nodes",
    summary: "Show the nodes of the cluster and its engine",
    answers: &[(200, "Nodes")],
    access: Access::Operator,
    ..NOTHING
};

/// What load balancers ask, by each of its names.
pub(in crate::api) fn of_probe(path: &str) -> &'static [Operation] {
    match path {
        "/up" => &[UP],
        "/live" => &[LIVE],
        "/ready" => &[READY],
        "/accept-traffic" => &[ACCEPT_TRAFFIC],
        _ => &[],
    }
}
