//! Who is measured, as data: one row per stack.

use measure::peers::{Address, Peer, Row, Version};

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// One request per connection, as Taut sends it to php-fpm.
    FastCgi,
    /// Requests behind each other on one connection.
    Http,
    /// Texts, which come back as they went.
    WebSocket,
}

impl Protocol {
    pub(crate) fn of(peer: &Peer) -> Self {
        match peer.name {
            FASTCGI => Self::FastCgi,
            HTTP => Self::Http,
            _ => Self::WebSocket,
        }
    }
}

/// Whether many connections can be open at a time: where there are WebSockets, except for `stream_select`.
pub(crate) fn holds_many(peer: &Peer) -> bool {
    Protocol::of(peer) == Protocol::WebSocket && peer.name != RESIDENT
}

const FASTCGI: &str = "php-fpm alone";
const HTTP: &str = "nginx and php-fpm alone";
const RESIDENT: &str = "resident PHP by hand";

/// As Debian 12 names it.
const FPM: &str = "/usr/sbin/php-fpm8.2";
const NGINX: &str = "/usr/sbin/nginx";
const TAUT: &str = "../target/release/taut";

/// What PHP does without WebSockets comes first: all others are measured against it.
pub(crate) const ROWS: [Row; 6] = [
    Row {
        name: FASTCGI,
        command: &["node", "peers/routes/start.mjs", "fpm"],
        needs: FPM,
        remedy: "../interop/install fpm",
        address: Address::Printed,
        version: Version::Printed(&["node", "peers/routes/start.mjs", "fpm", "--version"]),
    },
    Row {
        name: HTTP,
        command: &["node", "peers/routes/start.mjs", "nginx"],
        needs: NGINX,
        remedy: "../interop/install nginx",
        address: Address::Printed,
        version: Version::Printed(&["node", "peers/routes/start.mjs", "nginx", "--version"]),
    },
    Row {
        name: "taut, fastcgi",
        command: &["node", "peers/routes/start.mjs", "taut-fastcgi"],
        needs: TAUT,
        remedy: "cargo build --release -p taut-cli, one folder up",
        address: Address::Printed,
        version: Version::Printed(&["node", "peers/routes/start.mjs", "taut-fastcgi", "--version"]),
    },
    Row {
        name: "taut, nginx",
        command: &["node", "peers/routes/start.mjs", "taut-http"],
        needs: TAUT,
        remedy: "cargo build --release -p taut-cli, one folder up",
        address: Address::Printed,
        version: Version::Printed(&["node", "peers/routes/start.mjs", "taut-http", "--version"]),
    },
    Row {
        name: "pushpin, nginx",
        command: &["node", "peers/routes/start.mjs", "pushpin"],
        needs: "/usr/bin/pushpin",
        remedy: "../interop/install pushpin",
        address: Address::Printed,
        version: Version::Printed(&["node", "peers/routes/start.mjs", "pushpin", "--version"]),
    },
    Row {
        name: RESIDENT,
        command: &["php", "-d", "opcache.enable_cli=1", "peers/routes/resident.php"],
        needs: "/usr/bin/php",
        remedy: "../interop/install php",
        address: Address::Printed,
        version: Version::Printed(&["php", "-r", "echo 'PHP ', PHP_VERSION;"]),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use measure::peers::RAW;

    #[test]
    fn what_php_does_alone_is_the_first_row() {
        assert_eq!(ROWS[RAW].name, FASTCGI);
        assert!([HTTP, RESIDENT].iter().all(|name| ROWS.iter().any(|row| row.name == *name)));
    }
}
