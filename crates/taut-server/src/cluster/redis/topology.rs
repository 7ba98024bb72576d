//! Where the servers are that decide.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, Value, cmd,
};

use super::names::{Names, Partition};
use super::{Doubt, reply, slots};

/// A Redis as it is configured: one server, some servers of a Redis Cluster, or sentinels that know which server is the master.
#[derive(Clone)]
pub(super) enum Topology {
    Servers(Vec<ConnectionInfo>),
    /// The sentinels, what the master is called there, and how to log in at the master.
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        master: Box<str>,
        login: RedisConnectionInfo,
        is_encrypted: bool,
    },
}

/// Which server decides about what.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) names: Names,
    /// The masters that own a partition, or what all nodes agree on.
    pub(super) servers: Vec<Master>,
    /// The one of them that has what all nodes agree on.
    pub(super) meta: usize,
}

#[derive(Debug)]
pub(super) struct Master {
    pub(super) info: ConnectionInfo,
    pub(super) partitions: Vec<Partition>,
}

/// Servers of a Redis Cluster that were masters once. Those that the configuration names may all be gone one day. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<Mutex<Vec<ConnectionInfo>>>);

/// Why a text is not the address of a Redis.
#[derive(Debug)]
pub(crate) struct InvalidUrl(String);

impl fmt::Display for InvalidUrl {
    /// Without the text, which may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}; write redis://[USER:PASSWORD@]HOST[:PORT], with further HOST:PORT behind commas for a Redis Cluster, rediss:// for TLS, unix:///PATH, or redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER",
            self.0
        )
    }
}

impl std::error::Error for InvalidUrl {}

impl Topology {
    /// Reads `redis://…`, `rediss://…`, `unix://…`, `redis+sentinel://…` or `rediss+sentinel://…`.
    pub(super) fn parse(url: &str) -> Result<Self, InvalidUrl> {
        for (scheme, server) in [("redis+sentinel://", "redis"), ("rediss+sentinel://", "rediss")] {
            if let Some(rest) = url.strip_prefix(scheme) {
                return sentinel(rest, server);
            }
        }
        Ok(Self::Servers(servers(url)?))
    }

    /// Who decides now.
    ///
    /// # Cancel safety
    /// Nothing is lost: it only asks.
    pub(super) async fn layout(&self, prefix: &str, known: &Known, timeout: Duration) -> Result<Layout, Doubt> {
        match self {
            Self::Sentinel { .. } => Ok(Layout::single(prefix, self.master(timeout).await?)),
            Self::Servers(configured) => {
                let mut servers = configured.clone();
                servers
                    .extend(known.all().into_iter().filter(|it| configured.iter().all(|its| its.addr() != it.addr())));
                // One that has lost the others still answers: not always the same one is asked first.
                let first = getrandom::u64().unwrap_or_default() as usize % servers.len();
                servers.rotate_left(first);
                let mut last = Doubt::NoCluster;
                for server in &servers {
                    match cluster(server, prefix, timeout).await {
                        Ok(Some(layout)) => {
                            known.learn(&layout);
                            return Ok(layout);
                        }
                        Ok(None) if configured.len() == 1 => return Ok(Layout::single(prefix, server.clone())),
                        Ok(None) => return Err(Doubt::NoCluster),
                        Err(doubt) => last = doubt,
                    }
                }
                Err(last)
            }
        }
    }

    /// The master that sentinels name.
    async fn master(&self, timeout: Duration) -> Result<ConnectionInfo, Doubt> {
        let Self::Sentinel { sentinels, master, login, is_encrypted } = self else { return Err(Doubt::NoMaster) };
        let mut last = Doubt::NoMaster;
        for sentinel in sentinels {
            match asked(sentinel, master, timeout).await {
                Ok((host, port)) => {
                    let info = address(host, port, *is_encrypted).into_connection_info()?;
                    return Ok(tuned(info).set_redis_settings(login.clone()));
                }
                Err(doubt) => last = doubt,
            }
        }
        Err(last)
    }
}

impl Layout {
    /// One server decides about everything.
    fn single(prefix: &str, info: ConnectionInfo) -> Self {
        Self { names: Names::new(prefix), servers: vec![Master { info, partitions: vec![0] }], meta: 0 }
    }

    /// Masters that own ranges of slots decide.
    fn sharded(prefix: &str, ranges: &[Range]) -> Result<Self, Doubt> {
        let mut layout = Self { names: Names::sharded(prefix), servers: Vec::new(), meta: 0 };
        for at in 0..layout.names.count() {
            let server = layout.server(slots::slot(layout.names.of(at)), ranges)?;
            layout.servers[server].partitions.push(at);
        }
        layout.meta = layout.server(slots::slot(layout.names.meta()), ranges)?;
        Ok(layout)
    }

    /// The number of the master that owns a slot.
    fn server(&mut self, slot: u16, ranges: &[Range]) -> Result<usize, Doubt> {
        let range = ranges.iter().find(|it| (it.first..=it.last).contains(&slot)).ok_or(Doubt::Uncovered)?;
        let known = self.servers.iter().position(|it| it.info.addr() == range.master.addr());
        Ok(known.unwrap_or_else(|| {
            self.servers.push(Master { info: range.master.clone(), partitions: Vec::new() });
            self.servers.len() - 1
        }))
    }
}

impl Known {
    fn all(&self) -> Vec<ConnectionInfo> {
        self.0.lock().expect("nothing panics while it is locked").clone()
    }

    fn learn(&self, layout: &Layout) {
        let mut known = self.0.lock().expect("nothing panics while it is locked");
        for master in &layout.servers {
            if known.iter().all(|it| it.addr() != master.info.addr()) {
                known.insert(0, master.info.clone());
            }
        }
        known.truncate(MOST_KNOWN);
    }
}

/// Slots of a Redis Cluster, and the master that owns them.
struct Range {
    first: u16,
    last: u16,
    master: ConnectionInfo,
}

/// What a server knows of its Redis Cluster; `None` if it is not in one.
async fn cluster(server: &ConnectionInfo, prefix: &str, timeout: Duration) -> Result<Option<Layout>, Doubt> {
    let mut connection = connect(server, timeout).await?;
    // One that may not be asked is taken for a single one, as before there were others.
    let info = match connection.send_packed_command(cmd("INFO").arg("cluster")).await? {
        Value::ServerError(_) => String::new(),
        Value::VerbatimString { text, .. } => text,
        value => reply::text(value)?,
    };
    if !info.lines().any(|line| line.trim_end() == "cluster_enabled:1") {
        return Ok(None);
    }
    let slots = ask(&mut connection, cmd("CLUSTER").arg("SLOTS")).await?;
    let ranges = reply::list(slots)?.into_iter().map(|value| range(value, server)).collect::<Result<Vec<_>, _>>()?;
    Layout::sharded(prefix, &ranges).map(Some)
}

/// One entry of `CLUSTER SLOTS`: the first slot, the last one, the master, and its replicas.
fn range(value: Value, asked: &ConnectionInfo) -> Result<Range, Doubt> {
    let mut fields = reply::list(value)?.into_iter();
    let mut next = || fields.next().ok_or(Doubt::Unexpected);
    let (first, last, master) = (next()?, next()?, next()?);
    let mut fields = reply::list(master)?.into_iter();
    let mut next = || fields.next().ok_or(Doubt::Unexpected);
    let (host, port) = (next()?, number(next()?)?);
    // One that does not know by what name others reach it is reached as it was this time.
    let host = match host {
        Value::Nil => String::new(),
        host => reply::text(host)?,
    };
    let (known, is_encrypted) = match asked.addr() {
        ConnectionAddr::Tcp(host, _) => (&**host, false),
        ConnectionAddr::TcpTls { host, .. } => (&**host, true),
        _ => ("localhost", false),
    };
    let host = if host.is_empty() || host == "?" { known.to_owned() } else { host };
    let info = address(host, port, is_encrypted).into_connection_info()?;
    let master = tuned(info).set_redis_settings(asked.redis_settings().clone());
    Ok(Range { first: number(first)?, last: number(last)?, master })
}

fn number(value: Value) -> Result<u16, Doubt> {
    u16::try_from(reply::number(value)?).map_err(|_| Doubt::Unexpected)
}

fn address(host: String, port: u16, is_encrypted: bool) -> ConnectionAddr {
    if is_encrypted {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

async fn connect(server: &ConnectionInfo, timeout: Duration) -> Result<MultiplexedConnection, Doubt> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
    Ok(Client::open(server.clone())?.get_multiplexed_async_connection_with_config(&config).await?)
}

async fn ask(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, Doubt> {
    reply::checked(connection.send_packed_command(command).await?)
}

/// The master that one sentinel knows.
async fn asked(sentinel: &ConnectionInfo, master: &str, timeout: Duration) -> Result<(String, u16), Doubt> {
    let mut connection = connect(sentinel, timeout).await?;
    match ask(&mut connection, cmd("SENTINEL").arg("get-master-addr-by-name").arg(master)).await? {
        Value::Nil => Err(Doubt::NoMaster),
        value => {
            let [host, port] = reply::tuple(value)?;
            Ok((reply::text(host)?, number(port)?))
        }
    }
}

/// `SCHEME://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, or several of `HOST[:PORT]` with commas between.
fn servers(url: &str) -> Result<Vec<ConnectionInfo>, InvalidUrl> {
    let (start, hosts) = match url.split_once("://") {
        Some((scheme, rest)) => {
            let (login, hosts) = rest.rsplit_once('@').map_or(("", rest), |(login, hosts)| (login, hosts));
            let at = if login.is_empty() { "" } else { "@" };
            (format!("{scheme}://{login}{at}"), hosts)
        }
        None => (String::new(), url),
    };
    let server = |host: &str| {
        let info = info(&format!("{start}{host}"))?;
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Ok(tuned(info).set_redis_settings(redis))
    };
    if !hosts.contains(',') || url.starts_with("unix:") {
        return server(hosts).map(|it| vec![it]);
    }
    if hosts.contains('/') || hosts.split(',').any(str::is_empty) {
        return Err(InvalidUrl(
            "between commas there are hosts of a Redis Cluster, which has no numbered databases".to_owned(),
        ));
    }
    hosts.split(',').map(server).collect()
}

fn info(url: &str) -> Result<ConnectionInfo, InvalidUrl> {
    url.into_connection_info().map_err(|error: RedisError| InvalidUrl(error.to_string()))
}

/// Small writes go out at once. A connection that is given up takes along what it has not sent: once the network is back, the kernel would bring it to
/// Redis behind what was sent by the next connection.
fn tuned(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info.tcp_settings().clone().set_nodelay(true).set_linger_time(Duration::ZERO);
    info.set_tcp_settings(settings)
}

/// `[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER`: the login is the master's.
fn sentinel(rest: &str, scheme: &str) -> Result<Topology, InvalidUrl> {
    let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
    let (hosts, master) = rest.split_once('/').unwrap_or((rest, ""));
    if master.is_empty() || master.contains('/') {
        return Err(InvalidUrl("the name of the master is missing".to_owned()));
    }
    let at = if login.is_empty() { String::new() } else { format!("{login}@") };
    let login = info(&format!("{scheme}://{at}master"))?.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let address = |host: &str| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        info(&if has_port { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:26379") })
    };
    let sentinels = hosts.split(',').map(address).collect::<Result<_, _>>()?;
    Ok(Topology::Sentinel { sentinels, master: master.into(), login, is_encrypted: scheme == "rediss" })
}

/// A Redis Cluster has few masters.
const MOST_KNOWN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_is_asked_itself() {
        for url in
            ["redis://localhost", "redis://:secret@localhost:6380/2", "rediss://localhost", "unix:///run/redis.sock"]
        {
            let Ok(Topology::Servers(servers)) = Topology::parse(url) else { panic!("{url}") };
            assert_eq!(servers.len(), 1, "{url}");
            assert_eq!(servers[0].redis_settings().protocol(), ProtocolVersion::RESP3, "{url}");
        }
    }

    #[test]
    fn several_servers_share_a_login() {
        let Ok(Topology::Servers(servers)) = Topology::parse("redis://user:p%40ss@one:7000,two,[::1]:7002") else {
            panic!("it is a good one")
        };
        let addresses: Vec<_> = servers.iter().map(|it| it.addr().to_string()).collect();
        assert_eq!(addresses, ["one:7000", "two:6379", "::1:7002"]);
        assert!(servers.iter().all(|it| it.redis_settings().password() == Some("p@ss")));
    }

    fn ranges(shares: &[(u16, u16, &str)]) -> Vec<Range> {
        let range = |(first, last, host): &(u16, u16, &str)| {
            let master = info(&format!("redis://{host}")).expect("a good one");
            Range { first: *first, last: *last, master }
        };
        shares.iter().map(range).collect()
    }

    #[test]
    fn each_partition_is_where_its_slot_is() {
        let shares = [(0, 5460, "a"), (5461, 10922, "b"), (10923, 16000, "c"), (16001, 16383, "a")];
        let layout = Layout::sharded("taut", &ranges(&shares)).expect("all slots are there");
        let partitions: Vec<_> =
            layout.servers.iter().map(|it| (it.info.addr().to_string(), it.partitions.clone())).collect();
        let [(a, of_a), (b, of_b), (c, of_c)] = &partitions[..] else { panic!("{partitions:?}") };
        assert_eq!([&**a, &**b, &**c], ["a:6379", "b:6379", "c:6379"]);
        assert_eq!(
            (of_a.len() + of_b.len() + of_c.len(), of_a.contains(&63), of_b[0]),
            (64, true, of_a[of_a.len() - 2] + 1)
        );
    }

    #[test]
    fn slots_without_a_master_are_a_doubt() {
        let missing = Layout::sharded("taut", &ranges(&[(0, 5460, "a"), (10923, 16383, "c")]));
        assert!(matches!(missing, Err(Doubt::Uncovered)), "{missing:?}");
    }

    #[test]
    fn sentinels_have_ports_and_the_master_a_login() {
        let parsed = Topology::parse("redis+sentinel://user:p%40ss@one:1,two/mymaster");
        let Ok(Topology::Sentinel { sentinels, master, login, is_encrypted: false }) = parsed else {
            panic!("it is a good one")
        };
        let addresses: Vec<_> = sentinels.iter().map(|it| it.addr().to_string()).collect();
        assert_eq!(addresses, ["one:1", "two:26379"]);
        assert_eq!((&*master, login.username(), login.password()), ("mymaster", Some("user"), Some("p@ss")));
        assert!(sentinels.iter().all(|it| it.redis_settings().password().is_none()), "it is the master's");
        let encrypted = Topology::parse("rediss+sentinel://one/mymaster");
        assert!(matches!(encrypted, Ok(Topology::Sentinel { is_encrypted: true, .. })));
    }

    #[test]
    fn what_is_not_an_address_is_refused_without_repeating_it() {
        for url in [
            "",
            "localhost",
            "http://:secret@localhost",
            "redis+sentinel://:secret@one:1",
            "redis+sentinel:///m",
            "redis://",
            "redis://:secret@one,two/1",
            "redis://:secret@one,,two",
        ] {
            let Err(invalid) = Topology::parse(url) else { panic!("{url}") };
            let text = invalid.to_string();
            assert!(text.contains("redis://") && !text.contains("secret"), "{url}: {text}");
        }
    }
}
