//! Who is measured, as data: one row per server.

use measure::peers::{Address, Peer, Row, Version};

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// Bytes come back as they went.
    Raw,
    /// Messages come back, as RFC 6455 frames them.
    WebSocket,
}

impl Speech {
    /// What a server speaks: only the raw echoes have no protocol.
    pub(crate) fn of(peer: &Peer) -> Self {
        if RAW.contains(&peer.name) { Self::Raw } else { Self::WebSocket }
    }
}

/// Those that have no protocol.
const RAW: [&str; 2] = ["raw TCP", "raw TCP, tokio"];

/// The raw echo comes first: all others are measured against it.
pub(crate) const ROWS: [Row; 16] = [
    Row {
        name: RAW[0],
        command: &["target/release/peer-raw"],
        needs: "target/release/peer-raw",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::None,
    },
    Row {
        name: RAW[1],
        command: &["target/release/peer-raw-tokio"],
        needs: "target/release/peer-raw-tokio",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::None,
    },
    Row {
        name: "taut echo",
        command: &["../target/release/taut", "echo", "--listen", "127.0.0.1:0", "--shards", "1"],
        needs: "../target/release/taut",
        remedy: "cargo build --release -p taut-cli, one folder up",
        address: Address::Printed,
        version: Version::Printed(&["../target/release/taut", "--version"]),
    },
    Row {
        name: "taut echo, tokio",
        command: &["../target/release/taut", "echo", "--driver", "tokio", "--listen", "127.0.0.1:0", "--shards", "1"],
        needs: "../target/release/taut",
        remedy: "cargo build --release -p taut-cli, one folder up",
        address: Address::Printed,
        version: Version::Printed(&["../target/release/taut", "--version"]),
    },
    Row {
        name: "taut-proto by hand",
        command: &["target/release/peer-by-hand"],
        needs: "target/release/peer-by-hand",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::None,
    },
    Row {
        name: "tokio-tungstenite",
        command: &["target/release/peer-tokio-tungstenite"],
        needs: "target/release/peer-tokio-tungstenite",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::Pinned("tokio-tungstenite"),
    },
    Row {
        name: "tokio-tungstenite forward",
        command: &["target/release/peer-tokio-tungstenite", "forward"],
        needs: "target/release/peer-tokio-tungstenite",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::Pinned("tokio-tungstenite"),
    },
    Row {
        name: "fastwebsockets",
        command: &["target/release/peer-fastwebsockets"],
        needs: "target/release/peer-fastwebsockets",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::Pinned("fastwebsockets"),
    },
    Row {
        name: "tokio-websockets",
        command: &["target/release/peer-tokio-websockets"],
        needs: "target/release/peer-tokio-websockets",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::Pinned("tokio-websockets"),
    },
    Row {
        name: "tokio-websockets feed",
        command: &["target/release/peer-tokio-websockets", "feed"],
        needs: "target/release/peer-tokio-websockets",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::Pinned("tokio-websockets"),
    },
    Row {
        name: "yawc",
        command: &["target/release/peer-yawc"],
        needs: "target/release/peer-yawc",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::Pinned("yawc"),
    },
    Row {
        name: "yawc batched",
        command: &["target/release/peer-yawc", "batched"],
        needs: "target/release/peer-yawc",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::Pinned("yawc"),
    },
    Row {
        name: "sockudo-ws",
        command: &["target/release/peer-sockudo-ws"],
        needs: "target/release/peer-sockudo-ws",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::Pinned("sockudo-ws"),
    },
    Row {
        name: "sockudo-ws feed",
        command: &["target/release/peer-sockudo-ws", "feed"],
        needs: "target/release/peer-sockudo-ws",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::Pinned("sockudo-ws"),
    },
    Row {
        name: "actix-ws",
        command: &["target/release/peer-actix-ws"],
        needs: "target/release/peer-actix-ws",
        remedy: "cargo build --release",
        address: Address::Printed,
        version: Version::Pinned("actix-ws"),
    },
    Row {
        name: "ws",
        command: &["node", "peers/ws/server.js"],
        needs: "peers/ws/node_modules/ws/package.json",
        remedy: "npm install --no-package-lock, in peers/ws",
        address: Address::Printed,
        version: Version::Printed(&["node", "peers/ws/server.js", "--version"]),
    },
];
