//! The command `taut`.

mod echo;
mod import;
mod log;
mod reload;
mod serve;
mod stop;
mod traces;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use taut_server::config::LogFormat;

/// What a flood has needed is free soon after it, but scattered among what lives on, and glibc's allocator gives back little but the end of its heap:
/// it would keep a hundred megabytes for the next flood. This one gives back each page that has been free for a while; `.cargo/config.toml` says how
/// long. What is measured is in docs/measurements.md.
#[cfg(all(
    feature = "jemalloc",
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "aarch64", target_arch = "x86_64")
))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Serve, and try out, WebSocket connections that stay up
#[derive(Parser)]
#[command(name = "taut", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Echo(echo::Arguments),
    Import(import::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Echo(arguments) => {
            log::start(&std::env::var("TAUT_LOG").unwrap_or_default(), LogFormat::Text);
            echo::run(&arguments)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("taut: {error}");
            ExitCode::FAILURE
        }
    }
}
