//! `taut serve`: the realtime server.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::SocketAddr;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use taut_server::app::App;
use taut_server::config::{ConfigError, SETTINGS};
use taut_server::{Config, Running, Server};

use crate::stop::Stop;

/// Serve channels to browsers and apps, by the Pusher protocol
///
/// With no app given, a development app is served and printed, on this machine only, and `/` is a chat to try it with.
/// Every setting can be a flag or an environment variable; a flag wins.
pub(crate) struct Arguments {
    config: Box<Config>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let stop = Stop::catch()?;
    let running = Server::start(&arguments.config)?;
    greet(&running);
    stop.wait();
    eprintln!("taut: stopping, for at most {} s; again to stop at once", arguments.config.drain_timeout.as_secs());
    running.drain(arguments.config.drain_timeout)?;
    Ok(())
}

/// Says where the server is. The first line is for programs, and stays as it is.
fn greet(running: &Running) {
    for address in running.addresses() {
        println!("listening on http://{address}");
    }
    let (Some(app), Some(address)) = (running.development_app(), running.addresses().first()) else { return };
    println!("{}", development(&app, *address));
}

fn development(app: &App, address: SocketAddr) -> String {
    format!(
        "\n  Open http://{address}/ in two tabs to try it.\n\n  \
         No app was given, so the development app is served, on this machine only:\n\n    \
         app id   {}\n    key      {}\n    secret   {}\n\n  \
         For your own, see: taut serve --help",
        app.id,
        app.key().key,
        app.key().secret.reveal(),
    )
}

// The flags are those of the server's own list of settings, so that each is described in one place.
impl Args for Arguments {
    fn augment_args(command: Command) -> Command {
        let about = "Serve channels to browsers and apps, by the Pusher protocol";
        let long = format!(
            "{about}\n\nWith no app given, a development app is served and printed, on this machine only, and / is a chat \
             to try it with. Every setting can be a flag or an environment variable; a flag wins."
        );
        SETTINGS.iter().fold(command.about(about).long_about(long), |command, setting| {
            let default =
                if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
            let action = if setting.repeatable { ArgAction::Append } else { ArgAction::Set };
            command.arg(
                Arg::new(setting.name)
                    .long(setting.name)
                    .value_name(setting.value)
                    .help(format!("{}{default} [env: {}]", setting.help, setting.environment))
                    .action(action),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Arguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        config(matches, |name| std::env::var(name).ok())
            .map(|config| Self { config: Box::new(config) })
            .map_err(|error| clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{error}\n")))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn config(matches: &ArgMatches, environment: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let flags: BTreeSet<&str> = SETTINGS
        .iter()
        .filter(|setting| matches.contains_id(setting.name))
        .map(|setting| setting.environment)
        .collect();
    // A flag takes the place of its variable, lists included.
    config.apply_environment(|name| environment(name).filter(|_| !flags.contains(name)))?;
    for setting in SETTINGS {
        for value in matches.get_many::<String>(setting.name).into_iter().flatten() {
            let place = format!("--{}", setting.name);
            setting.apply(&mut config, value).map_err(|reason| ConfigError::Value { place, reason })?;
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn parse(flags: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let command = Arguments::augment_args(Command::new("serve"));
        let matches = command.try_get_matches_from([&["serve"], flags].concat()).unwrap();
        config(&matches, |name| {
            environment.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_flag_takes_the_place_of_its_variable() {
        let environment = [("TAUT_LISTEN", "127.0.0.1:7001"), ("TAUT_APPS", "1:a:x,2:b:y"), ("TAUT_SHARDS", "3")];
        let config = parse(&["--listen", "127.0.0.1:8001", "--app", "3:c:z", "--app", "4:d:w"], &environment).unwrap();
        assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 8001)));
        let ids: Vec<&str> = config.apps.iter().map(|app| app.id.as_str()).collect();
        assert_eq!(ids, ["3", "4"]);
        assert_eq!(config.shards, 3);
    }

    #[test]
    fn an_error_says_which_flag_or_variable() {
        let error = parse(&["--listen", "here"], &[]).unwrap_err().to_string();
        assert!(error.starts_with("--listen: "), "{error}");
        let error = parse(&[], &[("TAUT_SHARDS", "many")]).unwrap_err().to_string();
        assert!(error.starts_with("TAUT_SHARDS: "), "{error}");
        assert!(parse(&["--apps-file", "apps"], &[]).unwrap().apps_file == Some(PathBuf::from("apps")));
    }
}
