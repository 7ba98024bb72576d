//! Measures WebSocket echo servers side by side, in one interleaved run, against a raw TCP echo.
//!
//! How and why it measures the way it does stands in `bench/README.md`.

mod arguments;
mod case;
mod connect;
mod crowd;
mod frame;
mod idle;
mod peers;
mod report;
mod server;
mod verify;

use std::error::Error;
use std::fmt::Display;
use std::fs;
use std::process::ExitCode;

use arguments::Arguments;
use case::Case;
use crowd::{Crowd, Window};
use idle::IdleMemory;
use peers::Peer;
use report::Report;
use server::{Server, pin_this_thread, raise_open_file_limit};

/// What can go wrong here ends the run; the text says what, where and what to do.
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match Arguments::from_command_line() {
        Ok(None) => {
            print!("{}", arguments::USAGE);
            ExitCode::SUCCESS
        }
        Ok(Some(arguments)) => match run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("error: {error}\n\n{}", arguments::USAGE);
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Outcome<()> {
    let peers = peers::present(&arguments.only)?;
    pin_this_thread(arguments.load_core)?;
    let connections = arguments.cases.iter().map(|case| case.connections);
    let idle = arguments.idle.iter().map(|idle| idle.connections);
    raise_open_file_limit(connections.chain(idle).max().unwrap_or(0))?;

    for peer in &peers {
        let server = Server::start(peer, arguments.server_core)?;
        verify::verify(peer, server.address, &arguments.cases)
            .map_err(|error| format!("{} does not echo as it must: {error}", peer.name))?;
        eprintln!("verified: {} ({})", peer.name, peer.version);
    }

    let windows = measure_cases(&peers, arguments)?;
    let idle = measure_idle(&peers, arguments)?;
    let report = Report::new(arguments, &peers, windows, idle);
    print!("{report}");
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_string_pretty(&report)?)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        eprintln!("every window: {}", path.display());
    }
    Ok(())
}

/// One measured window, and where in the run it stood.
#[derive(serde::Serialize)]
struct Measured {
    round: usize,
    case: usize,
    peer: usize,
    #[serde(flatten)]
    window: Window,
}

/// Measures every case, round after round; every peer's window lies between two windows of the raw echo.
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
                let window = measure(case, &peers[peer], &servers[peer], arguments)
                    .map_err(|error| explain(&peers[peer], &servers[peer], case, &*error))?;
                measured.push(Measured { round, case: number, peer, window });
            }
        }
    }
    Ok(measured)
}

/// `raw, a, raw, b, raw, c, raw`, where each round begins with another of the peers: what drifts, drifts for all.
fn order_of_round(peers: usize, round: usize) -> Vec<usize> {
    let others = peers - 1;
    let mut order = vec![peers::RAW];
    for position in 0..others {
        order.push(1 + (round + position) % others);
        order.push(peers::RAW);
    }
    order
}

fn measure(case: &Case, peer: &Peer, server: &Server, arguments: &Arguments) -> Outcome<Window> {
    // Connections are fresh in every window: none has been idle long enough for a server's heartbeat to ping it, and
    // none carries over what an earlier window has left in its buffers.
    let mut crowd = Crowd::connect(case, peer.speech, server.address)?;
    let window =
        crowd.measure(server, [arguments.server_core, arguments.load_core], arguments.warm_up, arguments.window)?;
    crowd.close()?;
    Ok(window)
}

fn measure_idle(peers: &[Peer], arguments: &Arguments) -> Outcome<Vec<IdleMemory>> {
    let mut measured = Vec::new();
    for start in 0..arguments.idle_starts {
        for (number, idle) in arguments.idle.iter().enumerate() {
            eprintln!("idle memory, {idle}, start {} of {}", start + 1, arguments.idle_starts);
            for (position, peer) in peers.iter().enumerate() {
                let server = Server::start(peer, arguments.server_core)?;
                let memory = idle
                    .measure(peer.speech, &server, arguments.binary)
                    .map_err(|error| explain(peer, &server, idle, &*error))?;
                measured.push(IdleMemory { start, idle: number, peer: position, memory });
            }
        }
    }
    Ok(measured)
}

/// Where it went wrong, with what the server's process has to say to it.
fn explain(peer: &Peer, server: &Server, case: &dyn Display, error: &dyn Error) -> String {
    let ended = if server.has_ended() { " (the server's process has ended)" } else { "" };
    format!("{}, {case}: {error}{ended}", peer.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_of_a_peer_lies_between_two_of_the_raw_echo() {
        for round in 0..5 {
            let order = order_of_round(4, round);
            assert_eq!(order.len(), 7);
            assert!(order.iter().step_by(2).all(|peer| *peer == peers::RAW));
            let mut others: Vec<_> = order.iter().skip(1).step_by(2).copied().collect();
            assert_eq!(others[0], 1 + round % 3);
            others.sort_unstable();
            assert_eq!(others, [1, 2, 3]);
        }
    }

    #[test]
    fn the_raw_echo_alone_is_measured_once_a_round() {
        assert_eq!(order_of_round(1, 3), [peers::RAW]);
    }
}
