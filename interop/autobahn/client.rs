//! The client that the Autobahn testsuite's server puts to the test: opens every case and echoes what comes.
//!
//! ```sh
//! cargo build --release -p taut --example autobahn-client
//! interop/autobahn/run --client
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use taut::tls::ClientTls;
use taut::{Client, Deflate, Settings};

const USAGE: &str = "usage: autobahn-client URL --agent NAME [--deflate] [--ca FILE]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("autobahn-client: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let suite = Suite::parse(std::env::args().skip(1))?;
    let cases = suite.case_count().await?;
    let mut unopened = 0;
    for case in 1..=cases {
        // What is wrong with a case is for the suite to say, and one that could not be opened is none of the others'.
        if let Err(error) = suite.run_case(case).await {
            eprintln!("autobahn-client: case {case} of {cases} could not be opened: {error}");
            unopened += 1;
        }
    }
    suite.update_reports().await?;
    if unopened > 0 { Err(format!("{unopened} of {cases} cases could not be opened").into()) } else { Ok(()) }
}

/// The server of the testsuite: each of its paths is a command to it.
struct Suite {
    /// Its URL, without a slash at the end.
    base: String,
    /// The name under which it reports on this client.
    agent: String,
    deflate: bool,
    tls: ClientTls,
}

impl Suite {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let (mut base, mut agent, mut deflate, mut tls) = (None, None, false, ClientTls::system());
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--agent" => agent = arguments.next(),
                "--deflate" => deflate = true,
                "--ca" => {
                    let file = arguments.next().ok_or_else(|| format!("which file? {USAGE}"))?;
                    let roots = std::fs::read(&file).map_err(|error| format!("--ca {file}: {error}"))?;
                    tls = ClientTls::only_pem(&roots)?;
                }
                _ if base.is_none() && !argument.starts_with('-') => base = Some(argument),
                _ => return Err(format!("{argument} is not understood; {USAGE}").into()),
            }
        }
        let base = base.ok_or_else(|| format!("which server? {USAGE}"))?.trim_end_matches('/').to_owned();
        let agent = agent.ok_or_else(|| format!("under which name? {USAGE}"))?;
        Ok(Self { base, agent, deflate, tls })
    }

    async fn case_count(&self) -> Result<u32, Box<dyn Error>> {
        let mut socket = self.client("getCaseCount").connect().await?;
        let count = socket.recv().await?.ok_or("the server did not say how many cases there are")?;
        let count = count.as_text().ok_or("the number of cases came as bytes")?.parse()?;
        while socket.recv().await?.is_some() {}
        Ok(count)
    }

    /// Echoes until the case is over, however it ends. An error only when the connection could not be opened.
    async fn run_case(&self, case: u32) -> Result<(), taut::Error> {
        let mut socket = self.client(&format!("runCase?case={case}&agent={}", self.agent)).connect().await?;
        while let Ok(Some(message)) = socket.recv().await {
            // In a connection that is closing nothing can be sent; what follows from that `recv` knows.
            let _ = socket.send(message).await;
        }
        Ok(())
    }

    /// Has the reports written, and waits until they are.
    async fn update_reports(&self) -> Result<(), taut::Error> {
        let mut socket = self.client(&format!("updateReports?agent={}", self.agent)).connect().await?;
        while socket.recv().await?.is_some() {}
        Ok(())
    }

    fn client(&self, command: &str) -> Client {
        let mut settings = Settings::client();
        // Cases 9.1.6 and 9.2.6 send 16 MiB, 9.3 and 9.4 up to 65,536 fragments.
        settings.limits.message = 64 << 20;
        settings.limits.fragments = u32::MAX;
        let client = Client::new(&format!("{}/{command}", self.base)).tls(self.tls.clone()).settings(settings);
        let client = client.connect_timeout(SLOWEST_HANDSHAKE);
        if self.deflate { client.deflate(Deflate::default()) } else { client }
    }
}

/// The suite makes all of a case's fragments before its own response to the handshake leaves: on a busy machine that takes
/// longer than the library waits by default.
const SLOWEST_HANDSHAKE: Duration = Duration::from_secs(90);
