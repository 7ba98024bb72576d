//! `taut import`: another server's configuration, written down as one for Taut.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use taut_server::config::import_soketi;

use crate::output;

/// Convert another server's configuration for Taut
///
/// Reads a soketi configuration in JSON. Settings without a counterpart become comments and are reported. Laravel Reverb
/// needs no conversion: given its config/reverb.php, the command lists the variables that Taut reads.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The file to read: soketi's JSON, or config/reverb.php
    file: PathBuf,
    /// The file to write; it must not be there yet. Without it, the configuration is printed
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let place = arguments.file.display();
    if arguments.file.extension().is_some_and(|extension| extension == "php") {
        return Ok(output::print(REVERB)?);
    }
    let json = fs::read_to_string(&arguments.file).map_err(|error| format!("{place} cannot be read: {error}"))?;
    let imported = import_soketi(&json).map_err(|reason| format!("{place}: {reason}"))?;
    match &arguments.output {
        None => output::print(&imported.toml)?,
        Some(output) => {
            let written = create(output).and_then(|mut file| file.write_all(imported.toml.as_bytes()));
            written.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    format!("{} is there already, and stays as it is: choose another --output", output.display())
                }
                _ => format!("{} cannot be written: {error}", output.display()),
            })?;
            let output = output.display();
            output::tell(format_args!("wrote {output}; try it with: taut serve --config {output} --check"));
        }
    }
    for warning in &imported.warnings {
        output::tell(warning);
    }
    Ok(())
}

/// For its owner alone, as far as the system knows that: secrets stand in it.
fn create(path: &PathBuf) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

const EXAMPLES: &str = "\
Examples:
  taut import soketi.json --output taut.toml
  taut import config/reverb.php";

const REVERB: &str = "\
Reverb's configuration is a PHP program that takes nearly everything from the environment: the application's .env.

  taut serve --env-file .env

Taut reads these variables, unless its own settings say otherwise:

  REVERB_APP_ID, REVERB_APP_KEY, REVERB_APP_SECRET   the app
  REVERB_APP_MAX_CONNECTIONS                         its limit of connections
  REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM               members, or none
  REVERB_SERVER_HOST, REVERB_SERVER_PORT             --listen
  REVERB_SERVER_PATH                                 --path-prefix
  REVERB_APP_PING_INTERVAL                           --ping-interval
  REVERB_APP_ACTIVITY_TIMEOUT                        --activity-timeout
  REVERB_APP_MAX_MESSAGE_SIZE                        --max-message
  REVERB_MAX_REQUEST_SIZE                            --max-event-data
  REVERB_SCALING_ENABLED, REDIS_URL or REDIS_HOST, … --cluster
  REVERB_SCALING_CHANNEL                             --cluster-prefix

What they leave unset has Reverb's default, such as port 8080 on all addresses.

Copy settings from the file itself into a taut.toml by hand. allowed_origins becomes origins, without \"*\" (with none, all
pages may connect) and with a scheme (https://example.com). Each app becomes a table [[apps]]. A certificate in options.tls
becomes tls-certificate and tls-key.

REVERB_HOST, REVERB_PORT and REVERB_SCHEME tell Laravel and its pages where the server is. Leave them as they are.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_already_is_not_written_over() {
        let folder = std::env::temp_dir().join(format!("taut-import-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (file, output) = (folder.join("soketi.json"), folder.join("taut.toml"));
        fs::write(&file, r#"{"host": "127.0.0.1", "port": 7001}"#).unwrap();
        let arguments = Arguments { file: file.clone(), output: Some(output.clone()) };
        run(&arguments).unwrap();
        let written = fs::read_to_string(&output).unwrap();
        assert!(written.contains("listen = \"127.0.0.1:7001\""), "{written}");
        fs::write(&file, "{}").unwrap();
        let refused = run(&arguments).unwrap_err().to_string();
        assert!(refused.contains("is there already"), "{refused}");
        assert_eq!(fs::read_to_string(&output).unwrap(), written);
        fs::write(&file, "{").unwrap();
        assert!(run(&Arguments { output: None, file }).unwrap_err().to_string().contains("line 1, column"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
