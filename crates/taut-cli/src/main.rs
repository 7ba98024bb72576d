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
