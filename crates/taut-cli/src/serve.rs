//! `taut serve`: the realtime server.

use std::error::Error;
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use taut_server::app::{AppConfig, Secret};
use taut_server::config::{Loaded, RETIRED, SETTINGS, Sources};
use taut_server::{Checked, Running, Server, Sockets, StartError};

use crate::descriptors;
use crate::log::{self, Log};
use crate::output;
use crate::reload::{Event, Events};
use crate::service::{self, Supervisor};
use crate::stop::{Requester, Stop};
use crate::traces;

/// Serve channels to browsers and apps with the Pusher protocol
pub(crate) struct Arguments {
    sources: Sources,
    /// Whether to say what would be served, and not to serve it.
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    // Before anything opens a file, which could be in the place of a socket that is missing.
    let sockets = service::sockets()?;
    let (loaded, mistakes) = arguments.sources.read();
    if arguments.check {
        let checked = Server::check(&loaded, mistakes)?;
        return Ok(output::print(&summary(&loaded, &checked))?);
    }
    let log = log::start(&loaded.config.log_level, loaded.config.log_format);
    if !mistakes.is_empty() {
        // It fails, and tells what else is wrong.
        Server::check(&loaded, mistakes)?;
    }
    tracing::info!(version = crate::VERSION, "starting");
    serve(arguments, &loaded, sockets, &log)?;
    tracing::info!("stopped");
    Ok(())
}

/// Serves until it is told to stop.
fn serve(arguments: &Arguments, loaded: &Loaded, sockets: Sockets, log: &Log) -> Result<(), Box<dyn Error>> {
    let Loaded { config, notes, .. } = loaded;
    tell(notes);
    descriptors::allow_most();
    // Spans still unsent are sent when this is dropped, after the server has stopped.
    let _traces = traces::start(|name| std::env::var(name).ok());
    let mut events = Events::watch(Stop::catch()?, config)?;
    let supervisor = Supervisor::find();
    if !sockets.clients.is_empty() {
        tracing::info!("the service manager passes a socket for clients: the setting listen is not used");
    }
    let running = Server::start_on(config, sockets).map_err(|error| match error {
        StartError::Config(error) => StartError::Config(loaded.locate(error)),
        other @ StartError::System(_) => other,
    })?;
    let scheme = if config.speaks_tls() { "https" } else { "http" };
    let mut is_development = greet(&running, scheme, config.console_password.is_some());
    let (mut drain_notice, mut drain_timeout) = (config.drain_notice, config.drain_timeout);
    let status = status(&running, scheme);
    supervisor.ready(&status);
    supervisor.watch(running.liveness());
    let asker = loop {
        if let Event::Stop(asker) = events.next() {
            break asker;
        }
        supervisor.reloading();
        match arguments.sources.load().and_then(|loaded| running.reload(&loaded.config).map(|later| (loaded, later))) {
            Ok((Loaded { config, notes, .. }, later)) => {
                (drain_notice, drain_timeout) = (config.drain_notice, config.drain_timeout);
                log.change_level(&config.log_level);
                events.follow(&config);
                tell(&notes);
                if !later.is_empty() {
                    tracing::warn!("changed, but only from the next start on: {}", later.join(", "));
                }
                tracing::info!("the configuration has been read again");
                supervisor.ready(&status);
                let was_development = std::mem::replace(&mut is_development, running.development_app().is_some());
                if is_development && !was_development {
                    greet_developer(&running, scheme);
                }
            }
            Err(error) => {
                tracing::error!("the configuration stays as it was: {error}");
                supervisor.ready(&format!("{status}; the configuration stays as it was: {error}"));
            }
        }
    };
    supervisor.stopping(drain_notice + drain_timeout + LAST_STEPS);
    if running.announce_end() && asker == Requester::Supervisor && !drain_notice.is_zero() {
        let notice = drain_notice.as_secs();
        output::tell(format_args!(
            "/ready returns 503 for {notice} s before the drain; send the signal again to stop at once"
        ));
        supervisor.tell(&format!("/ready is 503 for {notice} s, then it drains"));
        // A second signal does not wait for it.
        thread::sleep(drain_notice);
    }
    let timeout = drain_timeout.as_secs();
    output::tell(format_args!("stopping, for at most {timeout} s; send the signal again to stop at once"));
    supervisor.tell(&format!("draining {} connections, for at most {timeout} s", running.connections()));
    running.drain(drain_timeout)?;
    Ok(())
}

/// What the server does, in a line for a service manager.
fn status(running: &Running, scheme: &str) -> String {
    let clients = running.addresses().iter().map(|address| format!("clients on {scheme}://{address}"));
    let console = running.console_address().map(|address| format!("console on http://{address}"));
    let metrics = running.metrics_address().map(|address| format!("metrics on http://{address}"));
    clients.chain(console).chain(metrics).collect::<Vec<_>>().join(", ")
}

fn tell(notes: &[String]) {
    for note in notes {
        tracing::info!("{note}");
    }
}

/// What would be served, without secrets.
fn summary(Loaded { config, notes, .. }: &Loaded, checked: &Checked) -> String {
    let stored = checked.stored_apps;
    let mut text = "the configuration is good\n".to_owned();
    let tls = if config.speaks_tls() { "with TLS" } else { "without TLS" };
    let _ = writeln!(text, "  listens on {}, {tls}", config.listen);
    if !config.acme.is_empty() {
        let _ = writeln!(text, "  certificate for {}, from {}", config.acme.join(", "), config.acme_directory);
    }
    for (what, address) in [("console", config.console_listen), ("metrics", config.metrics_listen)] {
        if let Some(address) = address {
            let _ = writeln!(text, "  {what} on {address}");
        }
    }
    if let Some(engine) = config.cluster_address() {
        let _ = writeln!(text, "  one of the nodes {} on {engine}", config.cluster_prefix);
    }
    if let Some(file) = &config.file {
        let _ = writeln!(text, "  file: {}", file.display());
    }
    if let Some(file) = &config.env_file {
        let _ = writeln!(text, "  file of variables: {}", file.display());
    }
    if let Some(file) = &config.apps_file {
        let _ = writeln!(text, "  file with more apps: {}", file.display());
    }
    if config.apps_database.is_some() {
        let _ = writeln!(text, "  apps in the table {} of the database: {stored}", config.apps_table);
    }
    if config.apps.is_empty() && config.apps_file.is_none() && config.apps_database.is_none() {
        text.push_str("  no apps configured: serves the development app, on this machine only\n");
    }
    for app in &config.apps {
        let keys: Vec<&str> = app.keys.iter().map(|key| key.key.as_str()).collect();
        let _ = write!(text, "  app {}, key {}", app.id, keys.join(" and "));
        if !app.enabled {
            text.push_str(", switched off");
        }
        if !app.webhooks.is_empty() {
            let _ = write!(text, ", webhooks: {}", app.webhooks.len());
        }
        text.push('\n');
    }
    for note in notes.iter().chain(&checked.notes) {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// Says where the server is, and whether the development app is served. The first line is for programs, and stays as it is.
fn greet(running: &Running, scheme: &str, has_password: bool) -> bool {
    for address in running.addresses() {
        output::announce(format_args!("listening on {scheme}://{address}"));
    }
    if let Some(address) = running.addresses().first().filter(|_| has_password) {
        output::announce(format_args!("console on {scheme}://{address}/console"));
    }
    if let Some(address) = running.console_address() {
        output::announce(format_args!("console on http://{address}/console"));
    }
    if let Some(address) = running.metrics_address() {
        output::announce(format_args!("metrics on http://{address}/metrics"));
    }
    if !has_password && running.console_address().is_none() && running.development_app().is_none() {
        output::announce(format_args!("no /console: console-listen or console-password opens one"));
    }
    greet_developer(running, scheme)
}

/// Says how to use the development app, and whether it is served.
fn greet_developer(running: &Running, scheme: &str) -> bool {
    let (Some(app), Some(address)) = (running.development_app(), running.addresses().first()) else { return false };
    let token = running.console_token().map(Secret::reveal);
    output::announce(development(&app, &format!("{scheme}://{address}"), token));
    true
}

/// What a person needs who has just started a server to try it. The link is for the terminal alone: its token opens the console. It stands behind a `#`,
/// so that no request carries it and no proxy logs it.
fn development(app: &AppConfig, origin: &str, token: Option<&str>) -> String {
    let console = match token {
        Some(token) => format!("{origin}/console#token={token}"),
        None => format!("{origin}/console"),
    };
    format!(
        "\n  Open {origin}/ in two tabs to try it.\n  \
         Look inside: {console}\n\n  \
         No app is configured, so this is the development app, reachable from this machine only:\n\n    \
         app id   {}\n    key      {}\n    secret   {}\n\n  \
         To serve your own app, see: taut serve --help",
        app.id,
        app.key().key,
        app.key().secret.reveal(),
    )
}

// The flags are those of the server's own list of settings, so that each is described in one place.
impl Args for Arguments {
    fn augment_args(command: Command) -> Command {
        let about = "Serve channels to browsers and apps with the Pusher protocol";
        let long = format!(
            "{about}\n\nWithout an app, it serves a development app on this machine only and prints its credentials; open / \
             to try a chat. Every setting can be a flag, an environment variable, or a line of the file given with \
             --config. Flags override variables, and variables override the file."
        );
        let check = Arg::new("check")
            .long("check")
            .help(
                "Check the configuration without serving: print what would be served, or every mistake and where it is",
            )
            .help_heading("Configuration")
            .action(ArgAction::SetTrue);
        let command = RETIRED.iter().fold(command, |command, setting| {
            command.arg(Arg::new(setting.name).long(setting.name).hide(true).action(ArgAction::Append))
        });
        let command = command.about(about).long_about(long).after_help(NOTES).arg(check);
        SETTINGS.iter().fold(command, |command, setting| {
            let default =
                if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
            let action = if setting.repeatable { ArgAction::Append } else { ArgAction::Set };
            command.arg(
                Arg::new(setting.name)
                    .long(setting.name)
                    .value_name(setting.value)
                    .help_heading(setting.heading())
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
        Ok(Self { sources: sources(matches, environment()?), check: matches.get_flag("check") })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What a drain takes at most beside its own time: to leave a cluster, to write the data directory, to end.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// Where those find more who have nothing but the program.
const NOTES: &str = "\
Examples:
  taut serve
  taut serve --app app-id:app-key:app-secret
  taut serve --config taut.toml --check
  taut serve --env-file .env                # the settings of Laravel Reverb
  taut serve --listen '[::]:443' --acme ws.example.com --data-directory /var/lib/taut
  taut serve --config taut.toml --cluster redis://10.0.0.7:6379

The documentation is in the program: `taut docs` lists its pages. `taut docs configuration` has all settings and \
    what the file looks like, `taut docs deploy` how to run it as a service, `taut docs proxies` recipes for proxies.";

fn sources(matches: &ArgMatches, environment: impl IntoIterator<Item = (String, String)>) -> Sources {
    let flags = SETTINGS.iter().chain(RETIRED).flat_map(|setting| {
        matches.get_many::<String>(setting.name).into_iter().flatten().map(move |value| (setting, value.clone()))
    });
    Sources::new(flags, environment)
}

/// The environment. A variable that is not text is not one that we know, but if it is ours that is a mistake: without it, something else would be served.
pub(crate) fn environment() -> Result<Vec<(String, String)>, clap::Error> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => variables.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("TAUT_") => {
                let reason = format!("{name}: the value is not text in UTF-8\n");
                return Err(clap::Error::raw(clap::error::ErrorKind::InvalidUtf8, reason));
            }
            _ => {}
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use taut_server::config::ConfigError;

    use super::*;

    fn parse(flags: &[&str], environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let command = Arguments::augment_args(Command::new("serve"));
        let matches = command.try_get_matches_from([&["serve"], flags].concat()).unwrap();
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        sources(&matches, environment).load()
    }

    #[test]
    fn a_flag_takes_the_place_of_its_variable() {
        let environment = [("TAUT_LISTEN", "127.0.0.1:7001"), ("TAUT_APPS", "1:a:x,2:b:y"), ("TAUT_SHARDS", "3")];
        let config =
            parse(&["--listen", "127.0.0.1:8001", "--app", "3:c:z", "--app", "4:d:w"], &environment).unwrap().config;
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
        let both = parse(&["--listen", "here"], &[("TAUT_SHARDS", "many")]).unwrap_err();
        assert_eq!(both.mistakes().len(), 2, "{both}");
    }

    #[test]
    fn a_flag_that_is_gone_says_what_takes_its_place() {
        let error = parse(&["--metrics", "on"], &[]).unwrap_err().to_string();
        assert!(error.starts_with("--metrics: ") && error.contains("metrics-listen"), "{error}");
    }

    #[test]
    fn the_greeting_has_a_link_that_opens_the_console() {
        let text = development(&AppConfig::development(), "http://127.0.0.1:6001", Some("0123"));
        assert!(text.contains("  Look inside: http://127.0.0.1:6001/console#token=0123\n"), "{text}");
        let text = development(&AppConfig::development(), "http://127.0.0.1:6001", None);
        assert!(text.contains("  Look inside: http://127.0.0.1:6001/console\n"), "{text}");
    }

    #[test]
    fn the_summary_names_apps_and_no_secret() {
        let checked = Checked { stored_apps: 0, notes: vec!["mind the gap".to_owned()] };
        let text = summary(&parse(&["--app", "1:a:hunter2"], &[]).unwrap(), &checked);
        assert!(text.contains("  app 1, key a\n") && text.contains("note: mind the gap\n"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(summary(&parse(&[], &[]).unwrap(), &checked).contains("development app"));
    }
}
