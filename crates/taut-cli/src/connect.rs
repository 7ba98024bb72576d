//! `taut connect`: a WebSocket client for the terminal and for pipes.

use std::error::Error;

use crate::dial::DialArguments;
use crate::exit::Exit;
use crate::output;

/// Talk to a WebSocket server
#[derive(clap::Args)]
#[command(after_help = Exit::help())]
pub(crate) struct Arguments {
    /// Where to connect to: a URL, or host:port/path
    url: String,

    #[command(flatten)]
    dial: DialArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Box<dyn Error>> {
    let client = match arguments.dial.client(&arguments.url) {
        Ok(client) => client,
        Err(wrong) => {
            output::fail(wrong);
            return Ok(Exit::Usage);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let received = async {
            let mut socket = arguments.dial.connect(&client).await?;
            while let Some(message) = socket.recv().await? {
                output::announce(message);
            }
            Ok(socket.peer_close().map_or(Exit::Done, |close| Exit::of_close(close.code())))
        };
        Ok(received.await.unwrap_or_else(|error: taut::Error| {
            let exit = Exit::of(&error);
            output::fail(error);
            exit
        }))
    })
}
