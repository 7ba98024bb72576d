//! The command `taut`.

// `output` prints without a panic.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod api;
mod app;
mod channels;
mod completions;
mod connect;
mod descriptors;
mod dial;
mod docs;
mod echo;
mod exit;
mod health;
mod hex;
mod import;
mod json;
mod log;
mod man;
mod output;
mod printer;
mod publish;
mod queue;
mod reload;
mod route;
mod serve;
mod service;
mod sign;
mod signals;
mod stop;
mod subscribe;
mod traces;

use std::env;
use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use taut_server::config::LogFormat;

use crate::exit::Exit;

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

/// WebSockets that stay up: a realtime server, a client and an echo server
#[derive(Parser)]
#[command(name = "taut", version = VERSION, arg_required_else_help = true)]
#[command(after_help = NOTES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Route(route::Arguments),
    Health(health::Arguments),
    Connect(Box<connect::Arguments>),
    Subscribe(Box<subscribe::Arguments>),
    Publish(Box<publish::Arguments>),
    Channels(Box<channels::Arguments>),
    Sign(Box<sign::Arguments>),
    Echo(echo::Arguments),
    Import(import::Arguments),
    Docs(docs::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// With the commit, where it is known: see `build.rs`.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("TAUT_COMMIT"));

const NOTES: &str = "\
Examples:
  taut serve                            # a server, with a page to try it at http://127.0.0.1:6001/
  taut connect wss://echo.example       # type messages, see what comes back
  taut subscribe news                   # watch a channel
  taut publish news headline '\"hello\"'  # send to it

The documentation is in the program: `taut docs`.";

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain(&error),
    };
    let outcome = match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments).map(|()| Exit::Done),
        Command::Route(arguments) => Ok(route::run(&arguments)),
        Command::Health(arguments) => health::run(&arguments).map(|()| Exit::Done),
        Command::Connect(arguments) => connect::run(*arguments),
        Command::Subscribe(arguments) => subscribe::run(&arguments),
        Command::Publish(arguments) => Ok(publish::run(&arguments)),
        Command::Channels(arguments) => Ok(channels::run(&arguments)),
        Command::Sign(arguments) => Ok(sign::run(&arguments)),
        Command::Import(arguments) => import::run(&arguments).map(|()| Exit::Done),
        Command::Docs(arguments) => docs::run(&arguments).map(|()| Exit::Done),
        Command::Completions(arguments) => {
            completions::run(&arguments, command()).map(|()| Exit::Done).map_err(Into::into)
        }
        Command::Man(arguments) => Ok(man::run(&arguments, command())),
        Command::Echo(arguments) => {
            log::start(&env::var("TAUT_LOG").unwrap_or_default(), log::format_asked_for([""]));
            descriptors::allow_most();
            echo::run(&arguments).map(|()| Exit::Done)
        }
    };
    outcome
        .unwrap_or_else(|error| {
            output::fail(error);
            Exit::Failed
        })
        .into()
}

/// All commands with their arguments.
fn command() -> clap::Command {
    Arguments::command()
}

/// Prints what is wrong with the command line, or the help that was asked for.
fn explain(error: &clap::Error) -> ExitCode {
    let code = ExitCode::from(if error.use_stderr() { Exit::Usage } else { Exit::Done });
    if error.use_stderr() && log::format_asked_for(env::args_os()) == LogFormat::Json {
        log::start("info", LogFormat::Json);
        output::fail(error.to_string().trim_end());
        return code;
    }
    match error.print() {
        Err(failed) if !error.use_stderr() && failed.kind() != ErrorKind::BrokenPipe => {
            output::tell(format_args!("the output cannot be written: {failed}"));
            Exit::Failed.into()
        }
        _ => code,
    }
}
