//! Starts and stops the server.
//!
//! `Prepared` does everything that can fail because of a mistake in the configuration; `serve --check` stops there.

mod liveness;
mod sockets;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use taut_proto::{Heartbeat, deflate};
use taut_shard::{Drain, DrainGroup, Drainer, ProxyProtocol, Shard};
use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::{Notify, watch};
use tracing::field;

use crate::api::{self, ApiAuth, Console, InlineResponder, Readiness};
use crate::app::{AppConfig, Limits, Secret};
use crate::apps::{App, Apps};
use crate::bus::{Mail, NodeOwners, ShardBus};
use crate::close::Reason;
use crate::cluster::{self, Broker, Owners};
use crate::config::{Config, ConfigError, Diagnostic, Loaded};
use crate::connect_auth::{self, ConnectAuth, Outcome, Requester};
use crate::events::EventBus;
use crate::gateway::{self, Asker, Gateway, Jobs, RelaySettings, Routes};
use crate::http::{self, Departure, client::Client};
use crate::node::Node;
use crate::place::ShardIndex;
use crate::refusals;
use crate::reload::Reload;
use crate::shard::PusherHandler;
use crate::tls::Tls;
use crate::transports::{Connector, Transports};
use crate::webhooks::{DataDirectory, Webhooks};
pub use liveness::Liveness;
use sockets::Addresses;
pub use sockets::Sockets;

/// The whole server: shards for clients, and tokio for what backends ask.
///
/// ```
/// use std::time::Duration;
/// use taut_server::{Config, Server};
///
/// let config = Config { listen: "127.0.0.1:0".parse()?, ..Config::default() };
/// let running = Server::start(&config)?;
/// println!("listening on http://{}", running.addresses()[0]);
/// running.drain(Duration::from_secs(1))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Binds the address and starts to serve, on threads of its own.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration, or what the operating system refuses.
    pub fn start(config: &Config) -> Result<Running, StartError> {
        Self::start_on(config, Sockets::default())
    }

    /// Starts to serve on sockets that listen already; what these lack is bound as [`start`](Self::start) does it.
    ///
    /// # Errors
    /// As [`start`](Self::start), and when the sockets cannot be used.
    pub fn start_on(config: &Config, sockets: Sockets) -> Result<Running, StartError> {
        let passed = sockets.addresses().map_err(StartError::Config)?;
        let config = passed.put_into(config);
        let mut running = Self::start_with(&config, sockets, start_engine)?;
        running.passed = passed;
        Ok(running)
    }

    /// Starts with an engine of the cluster that a function gives, or with none.
    fn start_with(
        config: &Config,
        sockets: Sockets,
        engine: impl FnOnce(Cluster<'_>) -> Engine,
    ) -> Result<Running, StartError> {
        let prepared = Prepared::new(config, Purpose::Serve, sockets).map_err(StartError::Config)?;
        prepared.serve(config, engine)
    }

    /// Does everything that [`start`](Self::start) does, but serving: reads the apps and the certificate, binds the address, tries the data directory.
    /// `mistakes` are those that were found before, by [`Sources::read`](crate::config::Sources::read). It leaves nothing behind, and disturbs no server
    /// that runs: where the address or the data directory is in use, that is told and not a mistake, since the configuration may be that server's.
    ///
    /// # Errors
    /// Everything that is wrong, with the places.
    pub fn check(loaded: &Loaded, mistakes: Vec<Diagnostic>) -> Result<Checked, ConfigError> {
        let is_known =
            loaded.place("listen").is_some_and(|place| mistakes.iter().any(|mistake| mistake.place == place));
        let purpose = Purpose::Check { apps: mistakes.is_empty(), listen: !is_known };
        let mut all = mistakes;
        match Prepared::new(&loaded.config, purpose, Sockets::default()) {
            Ok(prepared) if all.is_empty() => {
                return Ok(Checked { stored_apps: prepared.stored_apps, notes: prepared.notes });
            }
            Ok(_) => {}
            Err(error) => {
                let more = loaded.locate(error).into_mistakes();
                let more: Vec<_> = more.into_iter().filter(|mistake| !all.contains(mistake)).collect();
                all.extend(more);
            }
        }
        Err(ConfigError::of(all))
    }
}

/// A configuration that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// How many apps the database has.
    pub stored_apps: usize,
    /// What whoever runs the server should know.
    pub notes: Vec<String>,
}

/// What something is prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Serve,
    /// To say whether it could be served, as far as it is known what is meant.
    Check {
        apps: bool,
        listen: bool,
    },
}

impl Purpose {
    /// Whether an address may be in use: the server whose configuration is checked may run.
    fn allows(self, error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::AddrInUse && self != Self::Serve
    }
}

/// One thing that is prepared.
type Step = fn(&mut Prepared, &Config, Purpose) -> Result<(), ConfigError>;

/// All that can fail by mistake is done: what is left is to serve, or to let it be.
struct Prepared {
    /// None where the apps are not known.
    live: Option<Reload>,
    routes: Routes,
    /// What is not taken yet of what listens already.
    sockets: Sockets,
    listeners: Vec<TcpListener>,
    tls: Option<Tls>,
    operators: Operators,
    data: Option<DataDirectory>,
    stored_apps: usize,
    notes: Vec<String>,
}

impl Prepared {
    fn new(config: &Config, purpose: Purpose, sockets: Sockets) -> Result<Self, ConfigError> {
        let mut prepared = Self {
            live: None,
            routes: Routes::default(),
            sockets,
            listeners: Vec::new(),
            tls: None,
            operators: Operators::default(),
            data: None,
            stored_apps: 0,
            notes: Vec::new(),
        };
        let mut mistakes = Vec::new();
        let steps: [Step; 5] =
            [Self::read_apps, Self::read_certificate, Self::listen, Self::listen_for_operators, Self::open_data];
        for step in steps {
            if let Err(error) = step(&mut prepared, config, purpose) {
                mistakes.extend(error.into_mistakes());
            }
        }
        ConfigError::unless_empty(mistakes).map(|()| prepared)
    }

    fn read_apps(&mut self, config: &Config, purpose: Purpose) -> Result<(), ConfigError> {
        if matches!(purpose, Purpose::Check { apps: false, .. }) {
            return Ok(());
        }
        let mut stored = config.stored_apps()?;
        self.stored_apps = stored.apps.len();
        let wrong = if purpose == Purpose::Serve {
            // Served without them: one row must not keep all others from being served.
            Vec::new()
        } else {
            self.notes.append(&mut stored.notes);
            std::mem::take(&mut stored.mistakes)
        };
        let live = Reload::with(config, stored)?;
        self.routes = read_routes(config)?;
        self.routes.check_apps(live.apps()).map_err(|reason| Diagnostic::new("routes", reason))?;
        self.live = Some(live);
        ConfigError::unless_empty(wrong)
    }

    fn read_certificate(&mut self, config: &Config, _: Purpose) -> Result<(), ConfigError> {
        self.tls = Tls::read(config)?;
        self.notes.extend(self.tls.as_ref().and_then(Tls::note));
        Ok(())
    }

    fn listen(&mut self, config: &Config, purpose: Purpose) -> Result<(), ConfigError> {
        let address = config.listen;
        let count = match purpose {
            Purpose::Check { listen: false, .. } => return Ok(()),
            Purpose::Check { .. } => 1,
            Purpose::Serve => shards(config),
        };
        if let Some(listeners) = self.sockets.take_clients(count)? {
            self.listeners = listeners;
            return Ok(());
        }
        match taut_shard::listen(address, count) {
            Ok(listeners) => self.listeners = listeners,
            Err(error) if purpose.allows(&error) => self.notes.push(in_use(address)),
            Err(error) => return Err(Diagnostic::new("listen", cannot_listen(address, &error)).into()),
        }
        Ok(())
    }

    fn listen_for_operators(&mut self, config: &Config, purpose: Purpose) -> Result<(), ConfigError> {
        let Operators { console, metrics } = &mut self.operators;
        let mut mistakes = Vec::new();
        for (setting, address, socket, listener) in [
            ("console-listen", config.console_listen, self.sockets.console.take(), console),
            ("metrics-listen", config.metrics_listen, self.sockets.metrics.take(), metrics),
        ] {
            let Some(address) = address else { continue };
            match socket.map_or_else(|| http::listener::bind(address), http::listener::adopt) {
                Ok(bound) => *listener = Some(bound),
                Err(error) if purpose.allows(&error) => self.notes.push(in_use(address)),
                Err(error) => mistakes.push(Diagnostic::new(setting, cannot_listen(address, &error))),
            }
        }
        ConfigError::unless_empty(mistakes)
    }

    fn open_data(&mut self, config: &Config, purpose: Purpose) -> Result<(), ConfigError> {
        let Some(directory) = config.data_directory.as_deref() else { return Ok(()) };
        let opened = if purpose == Purpose::Serve {
            DataDirectory::open(directory).map(|data| self.data = Some(data))
        } else {
            DataDirectory::probe(directory).map(|note| self.notes.extend(note))
        };
        opened.map_err(|error| Diagnostic::new("data-directory", error.to_string()).into())
    }

    fn serve(self, config: &Config, engine: impl FnOnce(Cluster<'_>) -> Engine) -> Result<Running, StartError> {
        let Self { live: Some(live), routes, listeners, tls, operators, data, .. } = self else {
            unreachable!("the apps are known where a server is started")
        };
        let (apps, live) = (Arc::clone(live.apps()), Arc::new(live));
        let count = listeners.len();
        let addresses = listeners.first().map(TcpListener::local_addr).transpose().map_err(StartError::System)?;
        let (console_address, metrics_address) = (operators.console_address(), operators.metrics_address());

        let settings = shard_settings(config, count, tls.as_ref());
        let bus = Arc::new(ShardBus::new(count).in_cluster(config.cluster.is_some()));
        let (events, recorded) = EventBus::new();
        let node = Arc::new(Node::new(Arc::clone(&apps), Arc::clone(&bus), events.clone()));
        let auth = Arc::new(ApiAuth::new(Arc::clone(&node), &config.path_prefix, config.speaks_tls()));
        let (guard, tasks) = ConnectAuth::new(&config.trusted_proxies);
        let guard = Arc::new(guard);
        let (gateway, jobs) = Gateway::new(routes);
        let (departures, departed) = http::departures();
        let (draining, is_draining) = watch::channel(false);
        let readiness = Arc::new(Readiness::new(config.cluster_ready));
        let mut shards = Vec::with_capacity(count);
        for (number, listener) in listeners.into_iter().enumerate() {
            let departures = departures.clone();
            let sessions = PusherHandler::new(
                ShardIndex::new(number),
                Arc::clone(&apps),
                Arc::clone(&bus),
                events.clone(),
                &config.path_prefix,
                activity_timeout(config),
                config.outgoing,
                move |handover| http::depart(&departures, Departure { shard: number, handover }),
            )
            .with_connect_auth(Arc::clone(&guard))
            .with_gateway(Arc::clone(&gateway), tls.is_some())
            .with_inline_http(InlineResponder::new(
                Arc::clone(&auth),
                Arc::clone(&readiness),
                is_draining.clone(),
                ShardIndex::new(number),
            ));
            shards.push(Shard::new(listener, sessions, settings.clone()).map_err(StartError::System)?);
        }
        drop(departures);
        bus.connect(shards.iter().map(Shard::mailbox).collect());

        let runtime = http_runtime(count).map_err(StartError::System)?;
        join_cluster(config, &apps, &bus, &events, runtime.handle(), engine);
        let client = Client::new();
        let webhooks = Arc::new(Webhooks::start(runtime.handle(), &apps, events, recorded, data, client.clone()));
        let connector = Arc::new(Connector::new(shards.iter().map(Shard::intake).collect()));
        let fallback = config
            .fallback
            .then(|| Arc::new(Transports::new(Arc::clone(&connector), Arc::clone(&apps), config, is_draining.clone())));
        let console = Arc::new(Console::new(config, Instant::now()).map_err(StartError::System)?);
        let context = Arc::new(api::Context::new(
            auth,
            Arc::clone(&webhooks),
            Arc::clone(&console),
            Arc::clone(&gateway),
            connector,
            config,
            is_draining.clone(),
            Arc::clone(&readiness),
            tls.as_ref().map(Tls::shown),
        ));
        let trusted = config.trusted_proxies.clone();
        let service = http::Service {
            router: api::router(&context, fallback),
            intakes: shards.iter().map(Shard::intake).collect(),
            client: Box::new(move |peer, headers| connect_auth::client_of(peer, headers, &trusted)),
            draining: is_draining.clone(),
        };
        let relays = RelaySettings::new(settings.protocol.heartbeat);
        runtime.spawn(serve_routes(jobs, client.clone().offering_http2(), relays, Arc::clone(&bus)));
        runtime.spawn(connect_auth::serve(guard, tasks, client, mail_outcomes(bus)));
        let served = (http::serve(departed, service), operators.serve(context, is_draining));
        let http = runtime.spawn(async move {
            tokio::join!(served.0, served.1);
        });
        let reloaded = follow_changes(runtime.handle(), tls, &live, &node, &draining);
        let mut running = Running {
            passed: Addresses::default(),
            addresses: Vec::from_iter(addresses),
            console_address,
            metrics_address,
            console,
            apps,
            live,
            reloaded,
            node: Arc::clone(&node),
            gateway,
            shards: Vec::new(),
            draining,
            readiness,
            webhooks,
            http: Some((runtime, http)),
        };
        // When one cannot be started, those before it stop as `running` is dropped.
        for (number, shard) in shards.into_iter().enumerate() {
            running.shards.push(run(number, shard).map_err(StartError::System)?);
        }
        running.tell_start(config);
        Ok(running)
    }
}

/// Takes events of routes to their backends, and what has come of them to the shards that asked.
async fn serve_routes(jobs: Jobs, client: Client, relays: RelaySettings, bus: Arc<ShardBus>) {
    let shards = Arc::clone(&bus);
    let tell = move |asker: Asker, outcome| bus.tell(asker.shard, Mail::Routed { whose: asker.whose, outcome });
    let ring = move |shard, connection| shards.tell(shard, Mail::Relayed { connection });
    gateway::serve(jobs, client, relays, tell, ring).await;
}

/// Follows the time, the certificate and the apps of the database. Returns what tells that the certificate is to be
/// looked at now.
fn follow_changes(
    runtime: &Handle,
    tls: Option<Tls>,
    live: &Arc<Reload>,
    node: &Arc<Node>,
    draining: &watch::Sender<bool>,
) -> Arc<Notify> {
    let reloaded = Arc::new(Notify::new());
    runtime.spawn(tick(Arc::clone(node)));
    if let Some(tls) = tls {
        tls.follow(runtime, Arc::clone(&reloaded), draining.subscribe());
    }
    let (live, node) = (Arc::clone(live), Arc::clone(node));
    runtime.spawn(async move { live.follow_database(|| node.apps_changed()).await });
    reloaded
}

/// The routes of a configuration.
fn read_routes(config: &Config) -> Result<Routes, ConfigError> {
    Routes::new(&config.routes).map_err(|reason| Diagnostic::new("routes", reason).into())
}

/// A server that serves. Dropping it ends everything at once; [`drain`](Self::drain) is kinder.
pub struct Running {
    passed: Addresses,
    addresses: Vec<SocketAddr>,
    console_address: Option<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    console: Arc<Console>,
    apps: Arc<Apps>,
    live: Arc<Reload>,
    /// Tells that the certificate is to be looked at now.
    reloaded: Arc<Notify>,
    node: Arc<Node>,
    gateway: Arc<Gateway>,
    shards: Vec<(Drainer, JoinHandle<io::Result<()>>)>,
    draining: watch::Sender<bool>,
    readiness: Arc<Readiness>,
    webhooks: Arc<Webhooks>,
    http: Option<(Runtime, tokio::task::JoinHandle<()>)>,
}

impl Running {
    /// Where it listens: with the port that the system chose, if it was asked to.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the console listens, if it has a listener of its own ([`Config::console_listen`]).
    pub fn console_address(&self) -> Option<SocketAddr> {
        self.console_address
    }

    /// Where the metrics are served, if they have a listener of their own ([`Config::metrics_listen`]).
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// The token that opens the console where clients connect: `/console#token=TOKEN`. There is one while the development app is served and no
    /// [`Config::console_password`] is set, another one after each start. It is secret: show it to the person who started the server, and log it nowhere.
    pub fn console_token(&self) -> Option<&Secret> {
        self.console.token(&self.apps)
    }

    /// The development app, where that is served for want of another.
    pub fn development_app(&self) -> Option<AppConfig> {
        self.apps.development_app().map(|app| app.snapshot().config.clone())
    }

    /// Tells the log what is served: where, which apps, and with which limits those that have none of their own.
    fn tell_start(&self, config: &Config) {
        let Self { addresses, console_address, metrics_address, shards, .. } = self;
        let [console, metrics] = [console_address, metrics_address].map(|address| address.map(field::display));
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(version, ?addresses, console, metrics, shards = shards.len(), "serving");
        if let Some(engine) = config.cluster_address() {
            let (node, lease) = (config.node_name(), config.cluster_lease);
            tracing::info!(engine, prefix = config.cluster_prefix, node, ?lease, "one of the nodes of a cluster");
        }
        let known: Vec<_> = self.apps.all().into_iter().filter(|app| app.snapshot().known).collect();
        let ids: Vec<&str> = known.iter().take(MOST_IDS).map(|app| app.id()).collect();
        let rest = known.len() - ids.len();
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let is_development = self.apps.development_app().is_some();
        tracing::info!(count = known.len(), ids = %format_args!("{}{rest}", ids.join(", ")), is_development, "apps");
        let Limits { connections, subscriptions, channels, client_events, requests, event_data, .. } = config.limits;
        tracing::info!(
            max_connections = connections,
            max_subscriptions = subscriptions,
            max_channels = channels,
            max_client_events = client_events,
            max_requests = requests,
            max_event_data = event_data,
            max_message = config.message,
            max_outgoing = config.outgoing,
            "limits (0: none)"
        );
    }

    /// Goes on with another configuration: its apps, its routes and its limits hold from now on, and clients of apps
    /// and routes that are no more are closed. The files of the certificate are looked at, or what ACME waits for is tried
    /// again. Returns the names of those settings that have changed and hold only from the next start (see
    /// [`Setting::live`](crate::config::Setting::live)).
    ///
    /// # Errors
    /// When it cannot be used; then nothing has changed.
    pub fn reload(&self, config: &Config) -> Result<Vec<&'static str>, ConfigError> {
        let config = &self.passed.put_into(config);
        let routes = read_routes(config)?;
        let later = self.live.reload(config)?;
        if let Err(reason) = routes.check_apps(&self.apps) {
            tracing::warn!(reason, "clients of a route are refused");
        }
        self.gateway.replace(routes);
        self.node.apps_changed();
        self.console.apps_changed(&self.apps);
        self.reloaded.notify_one();
        Ok(later)
    }

    /// Open WebSocket connections, of all apps.
    pub fn connections(&self) -> usize {
        self.apps.all().iter().map(|app| app.connections()).sum()
    }

    /// Tells whether the server still moves; for a watchdog, on a thread of its own.
    pub fn liveness(&self) -> Liveness {
        Liveness::of(Arc::clone(&self.node))
    }

    /// Tells load balancers to send nothing more: `/ready` is answered with 503 from now on, while everybody is served as before. They need some time to
    /// notice, after which [`drain`](Self::drain) is to follow.
    ///
    /// Gives whether there is anybody to notice: whether `/ready` has been asked for within the last minute.
    pub fn announce_end(&self) -> bool {
        // Before it is red, or a first one who asks in between would count.
        let asked = self.readiness.last_asked();
        self.readiness.leave();
        asked.is_some_and(|asked| asked.elapsed() < LONGEST_CHECK)
    }

    /// Stops: takes no more connections, tells the clients to come back, answers the requests that are under way, delivers the webhooks, and returns
    /// when all of that is done, or when `deadline` has passed.
    ///
    /// Pusher's clients come back after a second, without jitter, so with many of them the closes are spread over up to half of the time. A part of it
    /// is kept for requests, and another for webhooks, whatever the clients do. No event loop ends before all have closed their clients and have told
    /// each other what came of it. Webhooks that cannot be delivered in time are left to the next run in the data directory; without one they are
    /// lost, and the log says how many.
    ///
    /// # Errors
    /// When a shard had failed before.
    pub fn drain(mut self, deadline: Duration) -> io::Result<()> {
        let until = Instant::now() + deadline;
        let over = PER_CLOSE.saturating_mul(u32::try_from(self.connections()).unwrap_or(u32::MAX)).min(deadline / 2);
        tracing::info!(connections = self.connections(), "draining");
        // Clients that do not answer take all the time that they are given, and so do requests.
        let last_words = (deadline / 4).min(LAST_WORDS);
        let before_webhooks = until.checked_sub(last_words / 2).unwrap_or(until);
        let failed = self.stop(over, deadline.saturating_sub(last_words), |now| {
            before_webhooks.saturating_duration_since(now).max(SETTLING)
        });
        if let Some((runtime, http)) = self.http.take() {
            let rest = before_webhooks.saturating_duration_since(Instant::now());
            if runtime.block_on(async { tokio::time::timeout(rest, http).await }).is_err() {
                tracing::warn!("the time to drain is over: requests that are under way are given up");
            }
            // The clients have gone, so the others need not wait for the lease. Before the webhooks, of which some may still come from the engine.
            let rest = before_webhooks.saturating_duration_since(Instant::now()).clamp(LEAVING, LONGEST_LEAVING);
            if runtime.block_on(async { tokio::time::timeout(rest, self.node.leave_cluster()).await }).is_err() {
                tracing::warn!(
                    "the engine of the cluster did not answer in time: the node counts as alive until its lease lapses"
                );
            }
            // Last, since closes and publishes are what webhooks tell. Beyond the deadline it only writes to the data directory, whose disk may hang.
            let rest = until.saturating_duration_since(Instant::now());
            if runtime
                .block_on(async { tokio::time::timeout(rest + CLOSING, self.webhooks.flush(rest)).await })
                .is_err()
            {
                tracing::error!(
                    "the data directory could not be written in time: webhooks that were not delivered may be lost"
                );
            }
            // Waited for, so that the store is closed: the next server may want it at once.
            runtime.shutdown_timeout(CLOSING);
        }
        failed
    }

    /// Ends the shards, in phases. `settling` says how long what they have to tell each other may take, once their connections are closed.
    fn stop(
        &mut self,
        over: Duration,
        deadline: Duration,
        settling: impl FnOnce(Instant) -> Duration,
    ) -> io::Result<()> {
        self.draining.send_replace(true);
        let close = Reason::GOING_DOWN.close();
        let mut group = DrainGroup::new(self.shards.iter().map(|(drainer, _)| drainer.clone()));
        group.close(&Drain { close, over, deadline });
        group.wait_closed();
        let until = Instant::now() + settling(Instant::now());
        // Backends are told of every end.
        while !self.gateway.is_idle() && Instant::now() < until {
            thread::sleep(GLANCE);
        }
        if !self.gateway.is_idle() {
            tracing::warn!(
                "the time to drain is over: backends of routes are not told of all connections that have ended"
            );
        }
        let mut settle = || group.settle(until.saturating_duration_since(Instant::now()));
        // Owners have heard of every end before they are told that nobody comes back.
        let mut settles = || {
            settle() && {
                self.node.end_grace();
                settle()
            }
        };
        if until > Instant::now() && !settles() {
            tracing::error!(
                "the event loops had still something to tell each other when the time to drain was over: webhooks may be missing"
            );
        }
        group.end();
        let mut stopped = Ok(());
        for (_, thread) in self.shards.drain(..) {
            let outcome = thread.join().unwrap_or_else(|_| Err(io::Error::other("a shard's thread panicked")));
            stopped = stopped.and(outcome);
        }
        stopped
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Duration::ZERO, Duration::ZERO, |_| Duration::ZERO) {
            tracing::error!(%error, "a shard had failed");
        }
        if let Some((runtime, _)) = self.http.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Running").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Why a server could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The configuration cannot be used: all that is wrong with it. Where nothing else says so, the place is the setting's name.
    Config(ConfigError),
    /// The operating system refused a thread or what a thread needs.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(formatter),
            Self::System(error) => {
                write!(formatter, "the operating system did not give what the server needs: {error}")
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::System(error) => Some(error),
        }
    }
}

/// What an engine of a cluster is started with.
struct Cluster<'s> {
    config: &'s Config,
    apps: Arc<Apps>,
    owners: Arc<dyn Owners>,
    runtime: &'s Handle,
}

/// The engine, or none where the node is alone.
type Engine = Option<Arc<dyn Broker>>;

/// Starts the engine, if there is to be one. Not before the shards can be reached: what it tells them must not be lost.
fn join_cluster(
    config: &Config,
    apps: &Arc<Apps>,
    bus: &Arc<ShardBus>,
    events: &EventBus,
    runtime: &Handle,
    engine: impl FnOnce(Cluster<'_>) -> Engine,
) {
    let owners = Arc::new(NodeOwners { bus: Arc::clone(bus), events: events.clone() });
    if let Some(broker) = engine(Cluster { config, apps: Arc::clone(apps), owners, runtime }) {
        bus.set_broker(broker);
    }
}

/// Starts the engine that the configuration names.
fn start_engine(Cluster { config, apps, owners, runtime }: Cluster<'_>) -> Engine {
    let url = config.cluster.as_ref()?;
    let settings = cluster::Settings {
        url: url.reveal().to_owned(),
        address: config.cluster_address().unwrap_or_default(),
        prefix: config.cluster_prefix.clone(),
        name: config.node_name(),
        lease: config.cluster_lease,
        ..cluster::Settings::default()
    };
    cluster::start(settings, apps, owners, runtime)
}

/// The listeners for operators, as far as there are any.
#[derive(Default)]
struct Operators {
    console: Option<(TcpListener, SocketAddr)>,
    metrics: Option<(TcpListener, SocketAddr)>,
}

impl Operators {
    fn console_address(&self) -> Option<SocketAddr> {
        self.console.as_ref().map(|(_, address)| *address)
    }

    fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(_, address)| *address)
    }

    /// Serves them until they have drained.
    async fn serve(self, context: Arc<api::Context>, draining: watch::Receiver<bool>) {
        let serve = async |listener: Option<(TcpListener, SocketAddr)>, router| {
            if let Some((listener, _)) = listener {
                http::listener::serve(listener, router, draining.clone()).await;
            }
        };
        let (console, metrics) = (api::console_router(&context), api::metrics_router(&context));
        tokio::join!(serve(self.console, console), serve(self.metrics, metrics));
    }
}

/// Runs an event loop on a thread of its own.
fn run(number: usize, shard: Shard<PusherHandler>) -> io::Result<(Drainer, JoinHandle<io::Result<()>>)> {
    let drainer = shard.drainer();
    let thread = thread::Builder::new().name(format!("taut-shard-{number}")).spawn(move || shard.run())?;
    Ok((drainer, thread))
}

fn http_runtime(shards: usize) -> io::Result<Runtime> {
    let mut builder = runtime::Builder::new_multi_thread();
    builder.worker_threads(shards.min(MOST_HTTP_THREADS)).thread_name("taut-http").enable_all().build()
}

/// Mails the outcome of a client's check to the shard that asked.
fn mail_outcomes(bus: Arc<ShardBus>) -> impl Fn(Requester, &App, Outcome) + Send + Sync + 'static {
    move |asker, app, outcome| {
        bus.tell(asker.shard, Mail::Authorized { asker, app: app.index(), outcome: Box::new(outcome) });
    }
}

/// Tells the shards of each second that has passed.
async fn tick(node: Arc<Node>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        node.tick();
        refusals::tell_suppressed();
    }
}

fn in_use(address: SocketAddr) -> String {
    format!("something listens on {address} already: all is well if that is the server whose configuration this is")
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "Another program listens there: stop it, or choose another port",
        io::ErrorKind::PermissionDenied => {
            "Ports below 1024 need a right or a socket of systemd (see `taut docs deploy`), or choose another port"
        }
        _ => "Choose an address of this machine",
    };
    format!("cannot listen on {address}: {error}. {remedy}")
}

fn shards(config: &Config) -> usize {
    match config.shards {
        // Elsewhere two listeners cannot share a port.
        0 if !cfg!(unix) => 1,
        0 => thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

fn shard_settings(config: &Config, shards: usize, tls: Option<&Tls>) -> taut_shard::Settings {
    let mut settings = taut_shard::Settings::default();
    settings.outgoing = config.outgoing;
    settings.keep_alive = config.keep_alive;
    settings.deflate = config.deflate.then(deflate::Config::standard);
    settings.tls = tls.map(|tls| Arc::clone(&tls.config));
    if config.proxy_protocol {
        settings.proxy_protocol = ProxyProtocol::Accept { from: config.trusted_proxies.clone() };
    }
    settings.unfinished = config.unfinished / shards;
    settings.protocol.limits.message = config.message;
    settings.protocol.limits.message_timeout = config.message_timeout;
    settings.protocol.heartbeat = Heartbeat { interval: config.ping_interval, timeout: config.pong_timeout };
    settings.protocol.heartbeat_code = Reason::PONG_NOT_RECEIVED.code();
    settings
}

/// Seconds; never 0, at which pusher-js gives up for good.
fn activity_timeout(config: &Config) -> u32 {
    u32::try_from(config.activity_timeout.as_secs()).unwrap_or(u32::MAX).max(1)
}

/// Apps that the log names at the start.
const MOST_IDS: usize = 20;

/// What is kept of the time to drain, a quarter of it at most, for what comes after the clients: one half for requests, the other for webhooks.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long the event loops may take to tell each other what came of the last closes, however little time is left. It takes them milliseconds.
const SETTLING: Duration = Duration::from_secs(1);

/// How long it may take to leave the cluster, however little time is left, and however much. The engine takes milliseconds for each hundred users.
const LEAVING: Duration = Duration::from_secs(1);

const LONGEST_LEAVING: Duration = Duration::from_secs(5);

/// Between two questions of a load balancer whether a server is ready; they commonly ask every 2 to 30 seconds.
const LONGEST_CHECK: Duration = Duration::from_secs(60);

/// How long the threads of the HTTP side may take to let go of everything, once nothing is under way, and the data directory to take the last write.
const CLOSING: Duration = Duration::from_secs(2);

/// Signatures and JSON for publishers take little beside what the shards do with it.
const MOST_HTTP_THREADS: usize = 4;

/// What each connection adds to the time over which the closes of a drain are spread: 1,000 come back per second.
const PER_CLOSE: Duration = Duration::from_millis(1);

/// Between two looks at whether backends are told everything.
const GLANCE: Duration = Duration::from_millis(5);
