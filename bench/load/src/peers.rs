//! Who is measured, as data: one row per server.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use serde::Serialize;

use crate::Outcome;

/// A server under test: how it is started and what it speaks.
#[derive(Debug, Serialize)]
pub(crate) struct Peer {
    /// Its name in the tables and for `--only`.
    pub(crate) name: &'static str,
    /// The version measured, as its own files or commands tell it.
    pub(crate) version: String,
    /// Program and arguments; paths are relative to the folder `bench`.
    pub(crate) command: &'static [&'static str],
    #[serde(skip)]
    pub(crate) speech: Speech,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// Bytes come back as they went.
    Raw,
    /// Messages come back, as RFC 6455 frames them.
    WebSocket,
}

/// The raw echo comes first: all others are measured against it.
pub(crate) const RAW: usize = 0;

struct Row {
    name: &'static str,
    command: &'static [&'static str],
    /// Without this file it cannot be started.
    needs: &'static str,
    /// What to do when the file is missing.
    remedy: &'static str,
    speech: Speech,
    version: Version,
}

/// Where the version of a peer is found.
enum Version {
    /// It is this bench's own.
    None,
    /// What the peer of this package pins.
    Pinned(&'static str),
    /// The first line that this command prints.
    Printed(&'static [&'static str]),
}

const ROWS: [Row; 13] = [
    Row {
        name: "raw TCP",
        command: &["target/release/peer-raw"],
        needs: "target/release/peer-raw",
        remedy: "cargo build --release",
        speech: Speech::Raw,
        version: Version::None,
    },
    Row {
        name: "taut echo",
        command: &["../target/release/taut", "echo", "--listen", "127.0.0.1:0", "--shards", "1"],
        needs: "../target/release/taut",
        remedy: "cargo build --release -p taut-cli, one folder up",
        speech: Speech::WebSocket,
        version: Version::Printed(&["../target/release/taut", "--version"]),
    },
    Row {
        name: "taut echo, tokio",
        command: &["../target/release/taut", "echo", "--driver", "tokio", "--listen", "127.0.0.1:0", "--shards", "1"],
        needs: "../target/release/taut",
        remedy: "cargo build --release -p taut-cli, one folder up",
        speech: Speech::WebSocket,
        version: Version::Printed(&["../target/release/taut", "--version"]),
    },
    Row {
        name: "tokio-tungstenite",
        command: &["target/release/peer-tokio-tungstenite"],
        needs: "target/release/peer-tokio-tungstenite",
        remedy: "cargo build --release",
        speech: Speech::WebSocket,
        version: Version::Pinned("tokio-tungstenite"),
    },
    Row {
        name: "tokio-tungstenite forward",
        command: &["target/release/peer-tokio-tungstenite", "forward"],
        needs: "target/release/peer-tokio-tungstenite",
        remedy: "cargo build --release",
        speech: Speech::WebSocket,
        version: Version::Pinned("tokio-tungstenite"),
    },
    Row {
        name: "fastwebsockets",
        command: &["target/release/peer-fastwebsockets"],
        needs: "target/release/peer-fastwebsockets",
        remedy: "cargo build --release",
        speech: Speech::WebSocket,
        version: Version::Pinned("fastwebsockets"),
    },
    Row {
        name: "tokio-websockets",
        command: &["target/release/peer-tokio-websockets"],
        needs: "target/release/peer-tokio-websockets",
        remedy: "cargo build --release",
        speech: Speech::WebSocket,
        version: Version::Pinned("tokio-websockets"),
    },
    Row {
        name: "tokio-websockets feed",
        command: &["target/release/peer-tokio-websockets", "feed"],
        needs: "target/release/peer-tokio-websockets",
        remedy: "cargo build --release",
        speech: Speech::WebSocket,
        version: Version::Pinned("tokio-websockets"),
    },
    Row {
        name: "yawc",
        command: &["target/release/peer-yawc"],
        needs: "target/release/peer-yawc",
        remedy: "cargo build --release",
        speech: Speech::WebSocket,
        version: Version::Pinned("yawc"),
    },
    Row {
        name: "yawc batched",
        command: &["target/release/peer-yawc", "batched"],
        needs: "target/release/peer-yawc",
        remedy: "cargo build --release",
        speech: Speech::WebSocket,
        version: Version::Pinned("yawc"),
    },
    Row {
        name: "sockudo-ws",
        command: &["target/release/peer-sockudo-ws"],
        needs: "target/release/peer-sockudo-ws",
        remedy: "cargo build --release",
        speech: Speech::WebSocket,
        version: Version::Pinned("sockudo-ws"),
    },
    Row {
        name: "sockudo-ws feed",
        command: &["target/release/peer-sockudo-ws", "feed"],
        needs: "target/release/peer-sockudo-ws",
        remedy: "cargo build --release",
        speech: Speech::WebSocket,
        version: Version::Pinned("sockudo-ws"),
    },
    Row {
        name: "ws",
        command: &["node", "peers/ws/server.js"],
        needs: "peers/ws/node_modules/ws/package.json",
        remedy: "npm install --no-package-lock, in peers/ws",
        speech: Speech::WebSocket,
        version: Version::Printed(&["node", "peers/ws/server.js", "--version"]),
    },
];

/// The servers to measure: the raw echo, and those of `only` (all, if it is empty) that are there.
///
/// A server whose binary is missing is left out with a loud line; a missing raw echo is an error.
pub(crate) fn present(only: &[String]) -> Outcome<Vec<Peer>> {
    if !Path::new("peers").is_dir() {
        let here = env::current_dir()?;
        return Err(format!("there is no folder `peers` in {}; run this in the folder `bench`", here.display()).into());
    }
    if let Some(unknown) = only.iter().find(|only| ROWS.iter().all(|row| row.name != **only)) {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("no server is called `{unknown}`; there are: {}", names.join("; ")).into());
    }
    let mut peers = Vec::new();
    for (position, row) in ROWS.iter().enumerate() {
        let wanted = only.is_empty() || only.iter().any(|only| only == row.name);
        if position != RAW && !wanted {
            continue;
        }
        if !Path::new(row.needs).exists() {
            let missing = format!("{} is not there ({}); to have it: {}", row.name, row.needs, row.remedy);
            if position == RAW {
                return Err(missing.into());
            }
            eprintln!("!!! SKIPPED: {missing} !!!");
            continue;
        }
        peers.push(Peer { name: row.name, version: row.version.read()?, command: row.command, speech: row.speech });
    }
    Ok(peers)
}

impl Version {
    fn read(&self) -> Outcome<String> {
        match self {
            Self::None => Ok("of this bench, over mio".to_owned()),
            Self::Pinned(package) => {
                // Not from the lock file, which may hold others besides.
                let manifest = format!("peers/{package}/Cargo.toml");
                let text = fs::read_to_string(&manifest).map_err(|error| format!("{manifest}: {error}"))?;
                let version = pinned_version(&text, package);
                Ok(version.ok_or_else(|| format!("{manifest} does not pin {package}"))?.to_owned())
            }
            Self::Printed(command) => {
                let output = Command::new(command[0])
                    .args(&command[1..])
                    .output()
                    .map_err(|error| format!("{}: {error}", command.join(" ")))?;
                let text = String::from_utf8_lossy(&output.stdout);
                Ok(text.lines().next().unwrap_or("?").trim().to_owned())
            }
        }
    }
}

fn pinned_version<'manifest>(manifest: &'manifest str, package: &str) -> Option<&'manifest str> {
    let mut lines = manifest.lines().filter_map(|line| line.split_once(" = "));
    let (_, dependency) = lines.find(|(name, _)| *name == package)?;
    dependency.split_once("\"=")?.1.split_once('"').map(|(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_by_the_whole_name() {
        let manifest = "[dependencies]\nws-extra = \"=9\"\nws = { version = \"=1.2.3\", features = [] }\n";
        assert_eq!(pinned_version(manifest, "ws"), Some("1.2.3"));
        assert_eq!(pinned_version(manifest, "ws-extra"), Some("9"));
        assert_eq!(pinned_version(manifest, "w"), None);
    }

    #[test]
    fn the_raw_echo_is_the_first_and_only_raw_row() {
        for (position, row) in ROWS.iter().enumerate() {
            assert_eq!(row.speech == Speech::Raw, position == RAW, "{}", row.name);
        }
    }
}
