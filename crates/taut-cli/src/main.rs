//! The command `taut`.

mod echo;
mod stop;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Serve, and try out, WebSocket connections that stay up
#[derive(Parser)]
#[command(name = "taut", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Echo(echo::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
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
