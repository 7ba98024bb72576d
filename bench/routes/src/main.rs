//! Measures WebSockets whose backend is PHP, in one interleaved run, against php-fpm without WebSockets.
//!
//! How and why it measures the way it does stands in `bench/README.md`.

mod arguments;
mod case;
mod crowd;
mod idle;
mod peers;
mod text;
mod verify;

use std::error::Error;
use std::fmt::Display;
use std::fs;
use std::process::ExitCode;

use arguments::Arguments;
use case::Case;
use crowd::Crowd;
use measure::Outcome;
use measure::memory::IdleMemory;
use measure::peers::{Peer, present};
use measure::report::{IdleCase, Report, Words};
use measure::rounds::{Measured, order_of_round};
use measure::server::{Server, pin_this_thread, raise_open_file_limit};
use measure::window::Window;
use peers::{Protocol, ROWS, holds_many};

fn main() -> ExitCode {
    measure::arguments::main(arguments::USAGE, arguments::read, run)
}

fn run(arguments: &Arguments) -> Outcome<()> {
    let peers = present(&ROWS, &arguments.only)?;
    pin_this_thread(arguments.load_core)?;
    let connections = arguments.cases.iter().map(|case| case.connections);
    let idle = arguments.idle.iter().map(|idle| idle.connections);
    raise_open_file_limit(connections.chain(idle).max().unwrap_or(0))?;

    for peer in &peers {
        let server = Server::start(peer, arguments.server_core)?;
        verify::verify(Protocol::of(peer), &server)
            .map_err(|error| format!("{} does not answer as it must: {error}", peer.name))?;
        eprintln!("verified: {} ({})", peer.name, peer.version);
    }

    let windows = measure_cases(&peers, arguments)?;
    let idle = measure_idle(&peers, arguments)?;
    let report = Report::new(arguments, words(arguments), &peers, windows, idle);
    print!("{report}");
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_string_pretty(&report)?)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        eprintln!("every window: {}", path.display());
    }
    Ok(())
}

/// What the tables say.
fn words(arguments: &Arguments) -> Words {
    let Arguments { server_core, load_core, rounds, window, warm_up, .. } = arguments;
    Words {
        introduction: format!(
            "Each stack with its PHP (8 workers) on core {server_core}, load (one thread) on core {load_core}; texts of {} B, \
             one in flight on each connection; {rounds} interleaved rounds\nof {} ms windows after {} ms of warm-up, \
             each window between two windows of php-fpm alone and divided by their mean.",
            text::LENGTH,
            window.as_millis(),
            warm_up.as_millis(),
        ),
        unit: "message",
        cases: arguments.cases.iter().map(ToString::to_string).collect(),
        idle: arguments
            .idle
            .iter()
            .map(|idle| IdleCase { title: idle.to_string(), connections: idle.connections })
            .collect(),
        idle_starts: arguments.idle_starts,
    }
}

/// Measures every case, round after round; every peer's window lies between two windows of php-fpm alone.
fn measure_cases(peers: &[Peer], arguments: &Arguments) -> Outcome<Vec<Measured>> {
    let mut measured = Vec::new();
    if arguments.cases.is_empty() {
        return Ok(measured);
    }
    let servers = peers.iter().map(|peer| Server::start(peer, arguments.server_core)).collect::<Outcome<Vec<_>>>()?;
    for round in 0..arguments.rounds {
        eprintln!("round {} of {}", round + 1, arguments.rounds);
        for (number, case) in arguments.cases.iter().enumerate() {
            for peer in order_of_round(peers.len(), round) {
                let window = measure(*case, &peers[peer], &servers[peer], arguments)
                    .map_err(|error| explain(&peers[peer], &servers[peer], case, &*error))?;
                measured.push(Measured { round, case: number, peer, window });
            }
        }
    }
    Ok(measured)
}

/// Connections are fresh in every window.
fn measure(case: Case, peer: &Peer, server: &Server, arguments: &Arguments) -> Outcome<Window> {
    let cores = [arguments.server_core, arguments.load_core];
    let mut crowd = Crowd::connect(Protocol::of(peer), server, case.connections)?;
    let window = crowd.measure(server, cores, [arguments.warm_up, arguments.window])?;
    crowd.close()?;
    Ok(window)
}

fn measure_idle(peers: &[Peer], arguments: &Arguments) -> Outcome<Vec<IdleMemory>> {
    let mut measured = Vec::new();
    for start in 0..arguments.idle_starts {
        for (number, idle) in arguments.idle.iter().enumerate() {
            eprintln!("memory, {idle}, start {} of {}", start + 1, arguments.idle_starts);
            for (position, peer) in peers.iter().enumerate().filter(|(_, peer)| holds_many(peer)) {
                let server = Server::start(peer, arguments.server_core)?;
                let memory = idle.measure(&server).map_err(|error| explain(peer, &server, idle, &*error))?;
                measured.push(IdleMemory { start, idle: number, peer: position, memory });
            }
        }
    }
    Ok(measured)
}

/// Where it went wrong, with what the stack's process has to say to it.
fn explain(peer: &Peer, server: &Server, case: &dyn Display, error: &dyn Error) -> String {
    let ended = if server.has_ended() { " (the stack's process has ended)" } else { "" };
    format!("{}, {case}: {error}{ended}", peer.name)
}
