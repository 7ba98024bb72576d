//! The configuration of a server, and the sources it is read from.
//!
//! [`SETTINGS`] lists what flags, variables and the file can set. `sources` combines these, `apps` reads an app as a
//! table, `database` reads apps from a database, and `compat`, `soketi`, `dotenv` and `import` read other servers'
//! configurations.

mod acme;
mod apps;
mod cluster;
mod compat;
#[cfg(feature = "database")]
mod database;
mod diagnostic;
mod dotenv;
mod environment;
mod field;
mod file;
mod import;
mod routes;
mod settings;
mod soketi;
mod sources;
mod text;
mod upgrade;
mod value;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::{self, is_loopback};
use crate::app::{AppConfig, InvalidApp, Limits, Secret};
use crate::apps::{Apps, DuplicateApp};
use crate::gateway::RouteConfig;
use crate::webhooks;

pub(crate) use acme::{Terms as AcmeTerms, check_together as acme_mistakes, terms as acme_terms};
pub(crate) use apps::PartialApp;
pub use apps::{APP_FIELDS, WEBHOOK_FIELDS};
pub use diagnostic::{ConfigError, Diagnostic};
pub use dotenv::env_file;
pub use field::Field;
pub use import::{Imported, import_soketi};
pub use routes::ROUTE_FIELDS;
pub use settings::{RETIRED, SETTINGS, Setting};
pub use sources::{Loaded, Sources};
pub use taut_shard::Network;
pub use text::listen_address;
pub use upgrade::UPGRADE_FIELDS;

/// What can be set about a server.
///
/// Each field can also be set by its text: [`SETTINGS`] has the name, the environment variable, the default and the description of each.
/// [`Sources`] puts a configuration together from flags, variables and a file.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Config {
    /// The file that the configuration was read from, beside flags and variables; none by default.
    pub file: Option<PathBuf>,
    /// A file of variables that it was read from, such as Laravel's `.env`; none by default.
    pub env_file: Option<PathBuf>,
    /// Where to listen; 127.0.0.1:6001 by default. Port 0 lets the system choose one.
    pub listen: SocketAddr,
    /// The apps that are served. With none, and no file or database with apps, the development app is served, on loopback addresses only.
    pub apps: Vec<AppConfig>,
    /// Paths whose WebSockets are told to a backend, event by event; none by default.
    pub routes: Vec<RouteConfig>,
    /// A file with more apps: one `ID:KEY:SECRET` per line, comments after `#`.
    pub apps_file: Option<PathBuf>,
    /// A database with more apps; none by default. A secret, since a password may stand in it.
    pub apps_database: Option<Secret>,
    /// The table there; `apps` by default.
    pub apps_table: String,
    /// How often that table is read; every 10 seconds by default.
    pub apps_reload: Duration,
    /// Event loops, each a thread of its own; 0, the default, means one per processor core.
    pub shards: usize,
    /// What precedes `/app` and `/apps` in this server's paths, for instance `/realtime`; empty by default.
    pub path_prefix: String,
    /// From where `X-Forwarded-For` and the PROXY protocol are believed; from nowhere by default.
    pub trusted_proxies: Vec<Network>,
    /// Whether trusted proxies put the client's address before each connection; they do not by default.
    pub proxy_protocol: bool,
    /// The certificates for TLS, in PEM; none by default, and then TLS is not spoken.
    pub tls_certificate: Option<PathBuf>,
    /// The private key for TLS, in PEM.
    pub tls_key: Option<PathBuf>,
    /// The domain names that a certificate is obtained for, by ACME; none by default. It needs [`data_directory`](Self::data_directory).
    pub acme: Vec<String>,
    /// The URL of the certificate authority's directory; Let's Encrypt's by default.
    pub acme_directory: String,
    /// A mail address that the authority may write to; none by default.
    pub acme_contact: Option<String>,
    /// The root certificates that the directory's own certificate is checked by, in PEM; those of the system by default.
    pub acme_ca_root: Option<PathBuf>,
    /// The id of the key that binds the account to one that the authority knows already; none by default.
    pub acme_eab_kid: Option<String>,
    /// That key, in base64url.
    pub acme_eab_hmac: Option<Secret>,
    /// What clients are told: the silence after which they ask whether the server is there; 120 seconds by default, never less than one.
    pub activity_timeout: Duration,
    /// Silence after which the server asks whether a client is there, by a WebSocket ping, which browsers answer by themselves; 25 seconds by
    /// default, because common load balancers cut a silent connection after 30 to 60.
    pub ping_interval: Duration,
    /// How long a client may take to answer that ping before its connection is given up; 30 seconds by default.
    pub pong_timeout: Duration,
    /// How long an HTTP connection may be silent between two requests; 75 seconds by default, because whoever sends requests should be the one
    /// who closes, and common load balancers do so after 60.
    pub keep_alive: Duration,
    /// Bytes of a message from a client; 64 KiB by default. A longer one closes its connection with 1009.
    pub message: usize,
    /// How long a client may take over 16 KiB of a message that it has begun; 60 seconds by default. A slower one is closed with 1008.
    pub message_timeout: Duration,
    /// Bytes that clients' unfinished messages may hold together, beyond the first 16 KiB of each; 64 MiB by default, in equal shares for the
    /// shards. Beyond them whoever sends more of one is closed with 1013, to come back later.
    pub unfinished: usize,
    /// Bytes that may wait for a client that reads too slowly; 1 MiB by default. What happens beyond them, [`Limits::slow_reader`] says.
    pub outgoing: usize,
    /// Whether messages are compressed for clients that offer it; they are by default. A broadcast is compressed once, whatever the number of clients.
    pub deflate: bool,
    /// Whether clients that cannot have a WebSocket may come by HTTP, below `/pusher`; they may by default. Each such client takes an HTTP connection
    /// and some 30 KiB. An app can be left out by [`Features::fallback`](crate::app::Features::fallback).
    pub fallback: bool,
    /// Limits of those apps that have none of their own.
    pub limits: Limits,
    /// Where `/metrics`, `/up` and `/ready` are served on a listener of their own, without TLS; none by default.
    pub metrics_listen: Option<SocketAddr>,
    /// Opens `/metrics` on every listener, as a bearer token. With none, the default, `/metrics` is served on listeners of its own and not where
    /// clients connect.
    pub metrics_token: Option<Secret>,
    /// Where the console, `/metrics`, `/up` and `/ready` are served on a listener of their own, without TLS; none by default. On a loopback address it
    /// asks for a password only if one is set; any other address requires [`console_password`](Self::console_password).
    pub console_listen: Option<SocketAddr>,
    /// Opens the console on every listener that has it. With none, the default, there is no console where clients connect, except for the
    /// development app (see [`Running::console_token`](crate::Running::console_token)).
    pub console_password: Option<Secret>,
    /// The engine that several nodes share, to be one server: `redis://` or `rediss://` (TLS), with user, password, port and database as usual. None by
    /// default: the node is alone. A secret, since a password may stand in it.
    pub cluster: Option<Secret>,
    /// How the names of everything begin that the nodes keep in the engine; `taut` by default. Nodes with the same prefix are one cluster.
    pub cluster_prefix: String,
    /// How long a node counts as alive after it was last heard of; 10 seconds by default, between 2 and 60. Within that time after a crash its users leave
    /// their presence channels. A shorter one takes a short pause of the machine for a crash.
    pub cluster_lease: Duration,
    /// What the node is called where operators see it; empty, the default, means the host's name. Nothing depends on it: two nodes may have one name.
    pub cluster_name: String,
    /// Whether `/ready` returns 503 while the engine is away; it does not by default, since all nodes would be taken out of service at once.
    pub cluster_ready: bool,
    /// Where webhooks wait to be delivered, and what [`acme`](Self::acme) obtains is kept; none by default: webhooks wait in memory, and are lost when
    /// the server stops.
    pub data_directory: Option<PathBuf>,
    /// What is logged; `info` by default. Also by part of the program: `info,taut_server=debug`.
    pub log_level: String,
    /// How the log is written; as text by default.
    pub log_format: LogFormat,
    /// How long `/ready` is answered with 503 before a shutdown begins, so that load balancers send nothing more; 5 seconds by default, and none where
    /// nobody has asked for `/ready` in the minute before. See [`Running::announce_end`](crate::Running::announce_end).
    pub drain_notice: Duration,
    /// How long a shutdown may take; 20 seconds by default. Clients are told to come back, and requests in flight are answered, before it is over.
    pub drain_timeout: Duration,
}

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A line of JSON for programs.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: None,
            env_file: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6001)),
            apps: Vec::new(),
            routes: Vec::new(),
            apps_file: None,
            apps_database: None,
            apps_table: "apps".to_owned(),
            apps_reload: Duration::from_secs(10),
            shards: 0,
            path_prefix: String::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            tls_certificate: None,
            tls_key: None,
            acme: Vec::new(),
            acme_directory: acme::PRODUCTION.to_owned(),
            acme_contact: None,
            acme_ca_root: None,
            acme_eab_kid: None,
            acme_eab_hmac: None,
            activity_timeout: Duration::from_secs(120),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            message: 64 * 1024,
            message_timeout: Duration::from_secs(60),
            unfinished: 64 * 1024 * 1024,
            outgoing: 1024 * 1024,
            deflate: true,
            fallback: true,
            limits: Limits::default(),
            metrics_listen: None,
            metrics_token: None,
            console_listen: None,
            console_password: None,
            cluster: None,
            cluster_prefix: "taut".to_owned(),
            cluster_lease: Duration::from_secs(10),
            cluster_name: String::new(),
            cluster_ready: false,
            data_directory: None,
            log_level: "info".to_owned(),
            log_format: LogFormat::Text,
            drain_notice: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

impl Config {
    /// Sets every field whose environment variable is set; `lookup` is usually `|name| std::env::var(name).ok()`. An empty variable is as if it were
    /// not set, but for passwords and tokens.
    pub fn apply_environment(&mut self, lookup: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let mut mistakes = Vec::new();
        for setting in SETTINGS.iter().chain(RETIRED) {
            let given = lookup(setting.environment).filter(|value| setting.secret || !value.trim().is_empty());
            let outcome = given.map_or(Ok(()), |value| setting.apply(self, &value));
            if let Err(reason) = outcome {
                mistakes.push(Diagnostic::new(setting.environment, reason));
            }
        }
        ConfigError::unless_empty(mistakes)
    }

    /// Whether clients connect by TLS.
    pub fn speaks_tls(&self) -> bool {
        self.tls_certificate.is_some() || !self.acme.is_empty()
    }

    /// The engine's URL as it may be shown, without user and password; `None` for a node that is alone.
    pub fn cluster_address(&self) -> Option<String> {
        self.cluster.as_ref().map(|url| address::shown(url.reveal()))
    }

    /// What the node is called: [`cluster_name`](Self::cluster_name), or the host's name.
    pub fn node_name(&self) -> String {
        if self.cluster_name.is_empty() { cluster::host_name() } else { self.cluster_name.clone() }
    }

    /// Collects the apps from the configuration, from the file with apps and from the database, for which it waits.
    ///
    /// With none at all it is the development app, but only where nobody else can reach it, since everybody knows its secret.
    pub fn collect_apps(&self) -> Result<Apps, ConfigError> {
        self.assemble_apps(&self.stored_apps()?)
    }

    /// The apps, with what the database is known to hold.
    pub(crate) fn assemble_apps(&self, stored: &AppsSnapshot) -> Result<Apps, ConfigError> {
        match self.configured_apps(stored)? {
            None => Ok(Apps::development(&self.limits)),
            Some(apps) => Apps::new(apps, &self.limits).map_err(duplicate),
        }
    }

    /// Puts the apps of this configuration in the place of others; nothing changes when it cannot be.
    pub(crate) fn replace_apps(&self, apps: &Apps, stored: &AppsSnapshot) -> Result<(), ConfigError> {
        match self.configured_apps(stored)? {
            None => {
                apps.replace_by_development(&self.limits);
                Ok(())
            }
            Some(configured) => apps.replace(configured, &self.limits).map(drop).map_err(duplicate),
        }
    }

    /// All apps; `None` means the development app.
    fn configured_apps(&self, stored: &AppsSnapshot) -> Result<Option<Vec<AppConfig>>, ConfigError> {
        let mut configured = self.all_apps()?;
        ConfigError::unless_empty(operators_listeners(self))?;
        configured.extend(stored.apps.iter().map(|draft| draft.clone().finish(&self.limits)));
        check_apps(&configured)?;
        Ok(self.names_apps().then_some(configured))
    }

    /// Whether it says which apps there are, were it none. Only if it does not, the development app is served: what was to name an app and fails
    /// to must not lead to one whose secret everybody knows.
    pub(crate) fn names_apps(&self) -> bool {
        !self.apps.is_empty() || self.apps_file.is_some() || self.apps_database.is_some()
    }

    /// Waits for the database, on a thread of its own, since whoever calls may be a thread that must not wait.
    pub(crate) fn stored_apps(&self) -> Result<AppsSnapshot, ConfigError> {
        if self.apps_database.is_none() {
            return Ok(AppsSnapshot::default());
        }
        let failed = |error: std::io::Error| Diagnostic::new("apps-database", error.to_string());
        let read = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
            runtime.block_on(self.read_stored_apps())
        };
        let panicked = |_| Err(failed(std::io::Error::other("the thread that reads it has panicked")));
        std::thread::scope(|scope| scope.spawn(read).join().unwrap_or_else(panicked)).map_err(ConfigError::from)
    }

    /// Reads the table of apps.
    ///
    /// # Cancel safety
    /// When it is dropped midway, the connection to the database is dropped too; nothing is changed there in any case.
    #[cfg(feature = "database")]
    pub(crate) async fn read_stored_apps(&self) -> Result<AppsSnapshot, Diagnostic> {
        database::read(self).await
    }

    #[cfg(not(feature = "database"))]
    #[allow(clippy::unused_async, reason = "with databases it waits")]
    pub(crate) async fn read_stored_apps(&self) -> Result<AppsSnapshot, Diagnostic> {
        Ok(AppsSnapshot::default())
    }

    /// The apps from the configuration and from the file with apps; none means the development app.
    fn all_apps(&self) -> Result<Vec<AppConfig>, ConfigError> {
        let mut apps = self.apps.clone();
        let mut mistakes = Vec::new();
        if let Some(path) = &self.apps_file {
            match read_apps(path) {
                Ok((read, wrong)) => {
                    apps.extend(read.into_iter().map(|(app, _place)| app));
                    mistakes.extend(wrong);
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if let Some(path) = &self.apps_file
            && apps.is_empty()
            && mistakes.is_empty()
            && self.apps_database.is_none()
        {
            let reason = "there is no app in it: write ID:KEY:SECRET on a line; to serve the development app, leave apps-file out";
            mistakes.push(Diagnostic::new(path.display().to_string(), reason));
        }
        mistakes.extend(self.missing_apps());
        ConfigError::unless_empty(mistakes).map(|()| apps)
    }

    /// The development app, whose secret everybody knows, is for this machine alone.
    fn missing_apps(&self) -> Option<Diagnostic> {
        let is_missing = !self.names_apps() && !is_loopback(self.listen.ip());
        is_missing.then(|| Diagnostic::new("", no_app(self.listen)))
    }
}

/// What is wrong with the listeners for operators: one that would open the console to everybody, or two listeners on one address.
fn operators_listeners(config: &Config) -> Vec<Diagnostic> {
    let mut mistakes = Vec::new();
    let is_open = |address: &SocketAddr| !is_loopback(address.ip()) && config.console_password.is_none();
    if let Some(address) = config.console_listen.filter(is_open) {
        let reason = format!(
            "the console on {address} would be open to everybody who can reach it: set console-password, or listen on 127.0.0.1:{}",
            address.port()
        );
        mistakes.push(Diagnostic::new("console-listen", reason));
    }
    let listeners = [
        ("listen", Some(config.listen)),
        ("console-listen", config.console_listen),
        ("metrics-listen", config.metrics_listen),
    ];
    for (number, (name, address)) in listeners.iter().enumerate() {
        let taken = |(_, other): &&(&str, Option<SocketAddr>)| other.zip(*address).is_some_and(|(a, b)| overlap(a, b));
        if let Some((other, _)) = listeners[..number].iter().find(taken) {
            let reason = match *other {
                "console-listen" => {
                    "it is the address of console-listen, where the metrics are already: leave metrics-listen out"
                }
                _ => "it is the address of listen, where clients connect: choose another port",
            };
            mistakes.push(Diagnostic::new(*name, reason));
        }
    }
    mistakes
}

/// Whether the second of two listeners would find its port taken by the first.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && one.port() != 0 && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// Most mistakes are found where they are read, with their places; not those of a program that makes its configuration itself.
fn check_apps(apps: &[AppConfig]) -> Result<(), ConfigError> {
    let mut mistakes = Vec::new();
    for app in apps {
        let mut complain = |reason: String| mistakes.push(Diagnostic::new("", format!("app {:?}: {reason}", app.id)));
        if let Err(invalid) = app.check() {
            complain(invalid.to_string());
        }
        for origin in app.origins.iter().filter(|origin| !crate::origin::is_pattern(origin)) {
            complain(format!("{origin:?} is not an origin, and would let nobody in"));
        }
        for invalid in app.webhooks.iter().filter_map(|webhook| webhooks::check(webhook).err()) {
            complain(invalid.to_string());
        }
    }
    ConfigError::unless_empty(mistakes)
}

#[allow(clippy::needless_pass_by_value, reason = "it takes the place of another error")]
fn duplicate(duplicate: DuplicateApp) -> ConfigError {
    Diagnostic::new("", duplicate.to_string()).into()
}

/// What a table of apps holds: each row an app, or why it is none.
#[derive(Debug, Default)]
pub(crate) struct AppsSnapshot {
    pub(crate) apps: Vec<PartialApp>,
    pub(crate) mistakes: Vec<Diagnostic>,
    /// The ids of those rows that are no apps.
    pub(crate) broken: Vec<String>,
    /// What the apps are served without, and need not have.
    pub(crate) notes: Vec<String>,
}

/// Whether a URL names a database that can be read. The error does not repeat the URL, which may hold a password.
#[cfg(feature = "database")]
fn check_database(url: &str) -> Result<(), String> {
    database::check(url)
}

#[cfg(not(feature = "database"))]
fn check_database(_url: &str) -> Result<(), String> {
    Err("this program was built without databases (the feature `database` of taut-server)".to_owned())
}

/// An app, and where it is configured.
type LocatedApp = (AppConfig, String);

/// The apps of a file with one `ID:KEY:SECRET` per line, each with its place, and what is wrong with the other lines.
fn read_apps(path: &Path) -> Result<(Vec<LocatedApp>, Vec<Diagnostic>), Diagnostic> {
    let text = fs::read_to_string(path).map_err(|error| {
        Diagnostic::new("", format!("the file with the apps, {}, cannot be read: {error}", path.display()))
    })?;
    let mut apps = Vec::new();
    let mut mistakes = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split_once('#').map_or(line, |(line, _comment)| line).trim();
        if !line.is_empty() {
            let place = format!("{}, line {number}", path.display());
            match AppConfig::parse(line) {
                Ok(app) => apps.push((app, place)),
                Err(error) => mistakes.push(Diagnostic::new(place, InvalidApp::to_string(&error))),
            }
        }
    }
    Ok((apps, mistakes))
}

fn no_app(listen: SocketAddr) -> String {
    format!(
        "there is no app to serve on {listen}. Everybody knows the development app's secret, so it is served on loopback addresses only: \
         give an app of your own (--app ID:KEY:SECRET, TAUT_APPS, --apps-file, --apps-database, or [[apps]] in the file of --config), or listen on 127.0.0.1:{}",
        listen.port()
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::app::{PublishAway, SlowReader};
    use crate::gateway::Backend;

    fn set(name: &str, value: &str) -> Result<Config, String> {
        let setting = SETTINGS.iter().find(|setting| setting.name == name).expect(name);
        let mut config = Config::default();
        setting.apply(&mut config, value).map(|()| config)
    }

    #[test]
    fn the_default_that_each_setting_states_is_the_real_one() {
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            // From a configuration in which every field differs, so that a setting that sets nothing is noticed.
            let mut config = different();
            setting.apply(&mut config, setting.default).expect(setting.name);
            assert_ne!(config, different(), "{} sets nothing", setting.name);
            let mut config = Config::default();
            setting.apply(&mut config, setting.default).expect(setting.name);
            assert_eq!(config, Config::default(), "{}", setting.name);
        }
    }

    fn different() -> Config {
        let one = Duration::from_secs(1);
        Config {
            file: Some("x".into()),
            env_file: Some("x".into()),
            listen: SocketAddr::from(([10, 0, 0, 1], 1)),
            apps: vec![AppConfig::development()],
            routes: vec![RouteConfig::new("/", "", Backend::Http { url: String::new() })],
            apps_file: Some("x".into()),
            apps_database: Some("x".into()),
            apps_table: "x".to_owned(),
            apps_reload: one,
            shards: 1,
            path_prefix: "/x".to_owned(),
            trusted_proxies: vec!["::1".parse().expect("an address")],
            proxy_protocol: true,
            tls_certificate: Some("x".into()),
            tls_key: Some("x".into()),
            acme: vec!["x".to_owned()],
            acme_directory: "x".to_owned(),
            acme_contact: Some("x".to_owned()),
            acme_ca_root: Some("x".into()),
            acme_eab_kid: Some("x".to_owned()),
            acme_eab_hmac: Some("x".into()),
            activity_timeout: one,
            ping_interval: one,
            pong_timeout: one,
            keep_alive: one,
            message: 1,
            message_timeout: one,
            unfinished: 1,
            outgoing: 1,
            deflate: false,
            fallback: false,
            limits: Limits {
                connections: 1,
                subscriptions: 1,
                channels: 1,
                channel_name: 1,
                event_name: 1,
                event_data: 1,
                channels_per_publish: 1,
                batch: 1,
                presence_members: 1,
                presence_member: 1,
                user_id: 1,
                client_events: 1,
                requests: 1,
                watchlist: 1,
                cache_ttl: one,
                cache: 1,
                slow_reader: SlowReader::Drop,
                publish_away: PublishAway::Local,
            },
            metrics_listen: Some(SocketAddr::from(([10, 0, 0, 1], 2))),
            metrics_token: Some("x".into()),
            console_listen: Some(SocketAddr::from(([10, 0, 0, 1], 3))),
            console_password: Some("x".into()),
            cluster: Some("x".into()),
            cluster_prefix: "x".to_owned(),
            cluster_lease: one,
            cluster_name: "x".to_owned(),
            cluster_ready: true,
            data_directory: Some("x".into()),
            log_level: "off".to_owned(),
            log_format: LogFormat::Json,
            drain_notice: one,
            drain_timeout: one,
        }
    }

    #[test]
    fn each_setting_has_a_name_and_a_variable_of_its_own() {
        let mut names: Vec<&str> = SETTINGS.iter().flat_map(|setting| [setting.name, setting.environment]).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 2 * SETTINGS.len());
        assert!(SETTINGS.iter().all(|setting| setting.environment.starts_with("TAUT_")));
    }

    #[test]
    fn the_environment_sets_what_it_names() {
        let environment = HashMap::from([
            ("TAUT_LISTEN", "[::1]:80"),
            ("TAUT_APPS", "1:a:x, 2:b:y"),
            ("TAUT_MAX_EVENT_DATA", "10KiB"),
            ("TAUT_PATH_PREFIX", "/realtime/"),
        ]);
        let mut config = Config::default();
        config.apply_environment(|name| environment.get(name).map(ToString::to_string)).expect("all good");
        assert_eq!(config.listen.to_string(), "[::1]:80");
        assert_eq!(config.apps.iter().map(|app| app.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(config.limits.event_data, 10_240);
        assert_eq!(config.path_prefix, "/realtime");
        assert_eq!(config.activity_timeout, Config::default().activity_timeout);
    }

    #[test]
    fn a_bad_variable_is_named_with_what_it_should_be_and_no_secret() {
        let environment = |name: &str| (name == "TAUT_APPS").then(|| "1:a:x,2:hunter2".to_owned());
        let refused = Config::default().apply_environment(environment).expect_err("two parts").to_string();
        assert!(refused.starts_with("TAUT_APPS: app 2 of the list: an app is written ID:KEY:SECRET"), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn an_engine_is_shown_without_its_user_and_password() {
        let mut config = set("cluster", "rediss://me:hunter2@redis.example:6380/1").expect("a URL");
        assert_eq!(config.cluster_address().as_deref(), Some("rediss://redis.example:6380/1"));
        assert_eq!(Config::default().cluster_address(), None);
        assert!(!config.node_name().is_empty(), "the host's");
        config.cluster_name = "a".to_owned();
        assert_eq!(config.node_name(), "a");
    }

    #[test]
    fn bad_values_are_refused_with_what_would_be_good() {
        for (name, value, reason) in [
            ("listen", "example.com", "\"example.com\" is not an address to listen on"),
            ("listen", "65536", "write a port, which is then on 127.0.0.1, or an IP address or host name and a port"),
            ("shards", "-1", "between 0 and 1024"),
            ("shards", "1025", "between 0 and 1024"),
            ("activity-timeout", "0", "whole seconds between 1 and 86400"),
            ("activity-timeout", "2m", "whole seconds between 1 and 86400"),
            ("max-message", "64KB", "write bytes, or a number with KiB or MiB"),
            ("max-message", "0", "between 1 and 1024MiB"),
            ("max-message", "1025MiB", "between 1 and 1024MiB"),
            ("max-message", "99999999999999999999", "between 1 and 1024MiB"),
            ("max-subscriptions", "0", "between 1 and 1000000"),
            ("deflate", "yes", "neither on nor off"),
            ("path-prefix", "realtime", "it must begin with /"),
            ("path-prefix", "/a//b", "single slashes"),
            ("path-prefix", "/a?b", "single slashes"),
        ] {
            let refused = set(name, value).expect_err(value);
            assert!(refused.contains(reason), "{name}={value}: {refused}");
        }
    }

    #[test]
    fn a_console_that_others_can_reach_needs_a_password() {
        let check = |listen: &str, password: Option<&str>| {
            let mut config = set("console-listen", listen).expect(listen);
            config.console_password = password.map(Secret::from);
            config.collect_apps().map(drop).map_err(|error| error.to_string())
        };
        for listen in ["7000", ":7000", "localhost:7000", "127.8.9.10:7000", "[::1]:7000", "[::ffff:127.0.0.1]:7000"] {
            assert_eq!(check(listen, None), Ok(()), "{listen}");
        }
        for listen in ["0.0.0.0:7000", "[::]:7000", "10.0.0.1:7000", "[::ffff:10.0.0.1]:7000"] {
            let refused = check(listen, None).expect_err(listen);
            assert!(refused.contains("console-password") && refused.contains("127.0.0.1:7000"), "{refused}");
            assert_eq!(check(listen, Some("correct horse battery")), Ok(()), "{listen}");
        }
    }

    #[test]
    fn two_listeners_cannot_have_one_address() {
        let check = |listeners: [&str; 3]| {
            let mut config = Config::default();
            for (name, value) in ["listen", "console-listen", "metrics-listen"].iter().zip(listeners) {
                if !value.is_empty() {
                    config = SETTINGS
                        .iter()
                        .find(|setting| setting.name == *name)
                        .map(|setting| setting.apply(&mut config, value).map(|()| config))
                        .expect(name)
                        .expect(value);
                }
            }
            config.collect_apps().map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(check(["127.0.0.1:6001", "6002", "6003"]), Ok(()));
        assert_eq!(check(["127.0.0.1:0", "0", "0"]), Ok(()), "the system chooses three");
        assert_eq!(check(["127.0.0.1:6001", "127.0.0.2:6001", ""]), Ok(()));
        for (listeners, reason) in [
            (["127.0.0.1:6001", "6001", ""], "console-listen: it is the address of listen"),
            (["127.0.0.1:6001", "", "0.0.0.0:6001"], "metrics-listen: it is the address of listen"),
            (["127.0.0.1:6001", "7000", "7000"], "leave metrics-listen out"),
        ] {
            let refused = check(listeners).expect_err(reason);
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn a_setting_that_is_gone_says_what_takes_its_place() {
        for value in ["off", "loopback", "on"] {
            let refused = Config::default()
                .apply_environment(|name| (name == "TAUT_METRICS").then(|| value.to_owned()))
                .expect_err(value)
                .to_string();
            for word in ["TAUT_METRICS: ", "metrics-listen", "metrics-token"] {
                assert!(refused.contains(word), "{refused}");
            }
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("1", 1), ("10240", 10_240), ("64KiB", 65_536), ("1024MiB", 1 << 30), (" 2 MiB", 2 << 20)]
        {
            assert_eq!(set("max-message", text).map(|config| config.message), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn localhost_is_an_address() {
        assert_eq!(set("listen", "localhost:0").map(|config| config.listen.to_string()), Ok("127.0.0.1:0".to_owned()));
    }

    #[test]
    fn without_an_app_a_loopback_address_serves_the_development_app() {
        for listen in ["127.0.0.1:6001", "127.8.9.10:1", "[::1]:6001", "[::ffff:127.0.0.1]:6001"] {
            let apps = set("listen", listen).expect(listen).collect_apps().expect(listen);
            assert_eq!(
                apps.development_app().map(|app| app.snapshot().config.key().key.clone()).as_deref(),
                Some("app-key"),
                "{listen}"
            );
            assert!(apps.by_id("1").is_some());
        }
    }

    #[test]
    fn a_file_without_an_app_is_a_mistake_and_not_the_development_app() {
        let path = std::env::temp_dir().join(format!("taut-no-apps-{}", std::process::id()));
        let mut config = Config { apps_file: Some(path.clone()), ..Config::default() };
        let mut refused = Vec::new();
        for text in ["", "# 1:a:x\n"] {
            fs::write(&path, text).expect("write");
            refused.push(config.collect_apps().map(drop));
        }
        // Beside another app it may be empty.
        config.apps.push(AppConfig::parse("1:a:x").expect("app"));
        let beside = config.collect_apps();
        fs::remove_file(&path).expect("remove");
        for refused in refused {
            let told = refused.expect_err("no app").to_string();
            assert!(
                told.starts_with(&format!("{}: there is no app in it: write ID:KEY:SECRET", path.display())),
                "{told}"
            );
        }
        assert!(beside.expect("one app").development_app().is_none());
    }

    #[test]
    fn apps_of_a_program_are_checked_as_well() {
        let mut app = AppConfig::new("1", "a b", "x");
        app.origins = vec!["https://a.example/".to_owned(), "a.example".to_owned()];
        let refused =
            Config { apps: vec![app], ..Config::default() }.collect_apps().expect_err("two mistakes").to_string();
        assert!(refused.contains("app \"1\": the app's key may hold only"), "{refused}");
        assert!(refused.contains("app \"1\": \"https://a.example/\" is not an origin"), "{refused}");
        assert!(!refused.contains("\"a.example\""), "a host is a pattern: {refused}");
    }

    #[test]
    fn without_an_app_any_other_address_is_refused_with_what_to_do() {
        for listen in ["0.0.0.0:7001", "[::]:7001", "192.168.1.1:7001"] {
            let refused = set("listen", listen).expect(listen).collect_apps().expect_err(listen).to_string();
            assert!(refused.starts_with(&format!("there is no app to serve on {listen}.")), "{refused}");
            assert!(refused.contains("--app ID:KEY:SECRET") && refused.ends_with("127.0.0.1:7001"), "{refused}");
        }
    }

    #[test]
    fn an_app_of_ones_own_is_served_anywhere_and_is_no_development_app() {
        let mut config = set("listen", "0.0.0.0:6001").expect("address");
        config.apps.push(AppConfig::parse("1:a:x").expect("app"));
        let apps = config.collect_apps().expect("one app");
        assert!(apps.by_key("a").is_some() && apps.by_key("app-key").is_none());
        assert!(apps.development_app().is_none());
        config.apps.push(AppConfig::parse("1:b:x").expect("app"));
        assert!(config.collect_apps().expect_err("twice").to_string().contains("two apps have the id"));
    }

    #[test]
    fn the_file_adds_apps_and_its_mistakes_are_found_by_line() {
        let path = std::env::temp_dir().join(format!("taut-apps-{}", std::process::id()));
        let config = Config {
            apps: vec![AppConfig::parse("1:a:x").expect("app")],
            apps_file: Some(path.clone()),
            ..Config::default()
        };
        fs::write(&path, "# ours\n\n 2:b:y  # the shop\r\n3:c:z").expect("write");
        let apps = config.collect_apps();
        fs::write(&path, "2:b:y\n# fine\n3:hunter2\n").expect("write");
        let refused = config.collect_apps();
        fs::remove_file(&path).expect("remove");
        let missing = config.collect_apps();
        assert_eq!(apps.expect("three apps").all().len(), 3);
        let refused = refused.expect_err("line 3").to_string();
        assert!(
            refused.contains(", line 3: an app is written ID:KEY:SECRET") && !refused.contains("hunter2"),
            "{refused}"
        );
        assert!(missing.expect_err("no file").to_string().contains("cannot be read"));
    }
}
