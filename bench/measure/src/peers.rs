//! Who is measured: rows of a table, of which those that are installed become peers.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use serde::Serialize;

use crate::Outcome;

/// A server under test: how it is started.
#[derive(Debug, Serialize)]
pub struct Peer {
    /// Its name in the tables and for `--only`.
    pub name: &'static str,
    /// The version measured, as its own files or commands tell it.
    pub version: String,
    /// Program and arguments; paths are relative to the folder `bench`.
    pub command: &'static [&'static str],
    /// How it is known to listen.
    #[serde(skip)]
    pub address: Address,
}

/// The raw server comes first: all others are measured against it.
pub const RAW: usize = 0;

/// One line of a benchmark's table of servers.
#[derive(Debug)]
pub struct Row {
    /// Its name in the tables and for `--only`.
    pub name: &'static str,
    /// Program and arguments.
    pub command: &'static [&'static str],
    /// Without this file it cannot be started.
    pub needs: &'static str,
    /// What to do when the file is missing.
    pub remedy: &'static str,
    /// How it is known to listen.
    pub address: Address,
    /// Where its version is found.
    pub version: Version,
}

/// How it is known where a server listens, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Its first line is `listening on ADDRESS`; the system has chosen the port.
    Printed,
    /// It can only be told a port, and is by the environment's `PORT`; it listens once it can be connected to.
    Told,
}

/// Where the version of a peer is found.
#[derive(Clone, Copy, Debug)]
pub enum Version {
    /// It is this bench's own.
    None,
    /// What the peer of this package pins.
    Pinned(&'static str),
    /// The first line that this command prints.
    Printed(&'static [&'static str]),
}

/// The servers to measure: the raw one, and those of `only` (all, if it is empty) that are there.
///
/// A server whose binary is missing is left out with a loud line; a missing raw server is an error.
pub fn present(rows: &[Row], only: &[String]) -> Outcome<Vec<Peer>> {
    if !Path::new("peers").is_dir() {
        let here = env::current_dir()?;
        return Err(format!("there is no folder `peers` in {}; run this in the folder `bench`", here.display()).into());
    }
    if let Some(unknown) = only.iter().find(|only| rows.iter().all(|row| row.name != **only)) {
        let names: Vec<_> = rows.iter().map(|row| row.name).collect();
        return Err(format!("no server is called `{unknown}`; there are: {}", names.join("; ")).into());
    }
    let mut peers = Vec::new();
    for (position, row) in rows.iter().enumerate() {
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
        peers.push(Peer { name: row.name, version: row.version.read()?, command: row.command, address: row.address });
    }
    Ok(peers)
}

impl Version {
    fn read(&self) -> Outcome<String> {
        match self {
            Self::None => Ok("of this bench".to_owned()),
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
}
