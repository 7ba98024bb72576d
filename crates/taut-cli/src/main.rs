//! The command `taut`.

mod echo;
mod serve;
mod stop;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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
}

fn main() -> ExitCode {
    log_to_stderr();
    let outcome = match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Echo(arguments) => echo::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("taut: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the server logs goes to stderr, as `TAUT_LOG` filters it: `info` and above by default.
fn log_to_stderr() {
    let filter = EnvFilter::builder().with_env_var("TAUT_LOG").with_default_directive(LevelFilter::INFO.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
