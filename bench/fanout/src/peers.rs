//! Who is measured, as data: one row per server.

use measure::peers::{Address, Row, Version};

/// What all others are measured against.
const RAW_FAN_OUT: Row = Row {
    name: "raw fan-out",
    command: &["target/release/peer-raw-fanout"],
    needs: "target/release/peer-raw-fanout",
    remedy: "cargo build --release",
    address: Address::Printed,
    version: Version::None,
};

const TAUT: Row = Row {
    name: "taut serve",
    command: &[
        "../target/release/taut",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--app",
        "1:app-key:app-secret",
        "--shards",
        "1",
    ],
    needs: "../target/release/taut",
    remedy: "cargo build --release -p taut-cli, one folder up",
    address: Address::Printed,
    version: Version::Printed(&["../target/release/taut", "--version"]),
};

/// Servers that are alone. The raw fan-out comes first.
pub(crate) const ROWS: [Row; 4] = [
    RAW_FAN_OUT,
    TAUT,
    Row {
        name: "bun",
        command: &["peers/bun/node_modules/bun/bin/bun.exe", "peers/bun/server.js"],
        needs: "peers/bun/node_modules/bun/bin/bun.exe",
        remedy: "npm install --no-package-lock, in peers/bun",
        address: Address::Printed,
        version: Version::Printed(&["peers/bun/node_modules/bun/bin/bun.exe", "--version"]),
    },
    Row {
        name: "sockudo",
        command: &["env", "RUST_LOG=warn", "target/sockudo/bin/sockudo", "--config", "peers/sockudo/config.json"],
        needs: "target/sockudo/bin/sockudo",
        remedy: "peers/sockudo/install",
        address: Address::Told,
        version: Version::Printed(&["target/sockudo/bin/sockudo", "--version"]),
    },
];

/// Three nodes on one engine, beside a server that is alone. The raw fan-out is one process.
pub(crate) const CLUSTER_ROWS: [Row; 5] = [
    RAW_FAN_OUT,
    TAUT,
    Row { name: "taut × 3, redis", command: &["node", "peers/cluster/start.mjs", "taut", "redis", "3"], ..TAUT },
    Row { name: "taut × 3, nats", command: &["node", "peers/cluster/start.mjs", "taut", "nats", "3"], ..TAUT },
    Row {
        name: "sockudo × 3, redis",
        command: &["node", "peers/cluster/start.mjs", "sockudo", "redis", "3"],
        needs: "target/sockudo/bin/sockudo",
        remedy: "peers/sockudo/install",
        address: Address::Printed,
        version: Version::Printed(&["target/sockudo/bin/sockudo", "--version"]),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use measure::peers::RAW;

    #[test]
    fn the_raw_fan_out_is_the_first_row() {
        assert!([&ROWS[..], &CLUSTER_ROWS[..]].iter().all(|rows| rows[RAW].name.starts_with("raw")));
    }
}
