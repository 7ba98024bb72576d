//! Where the server is that decides.

use std::fmt;
use std::time::Duration;

use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError,
};

use super::{Doubt, reply};

/// A Redis as it is configured: one server, or sentinels that know which server is the master.
#[derive(Clone)]
pub(super) enum Topology {
    Single(ConnectionInfo),
    /// The sentinels, what the master is called there, and how to log in at the master.
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        master: Box<str>,
        login: RedisConnectionInfo,
        is_encrypted: bool,
    },
}

/// Why a text is not the address of a Redis.
#[derive(Debug)]
pub(crate) struct InvalidUrl(String);

impl fmt::Display for InvalidUrl {
    /// Without the text, which may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}; write redis://[USER:PASSWORD@]HOST[:PORT], rediss:// for TLS, unix:///PATH, or redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER",
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
        let info = info(url)?;
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Ok(Self::Single(tuned(info).set_redis_settings(redis)))
    }

    /// The server that decides now.
    ///
    /// # Cancel safety
    /// Nothing is lost: it only asks.
    pub(super) async fn master(&self, timeout: Duration) -> Result<ConnectionInfo, Doubt> {
        let Self::Sentinel { sentinels, master, login, is_encrypted } = self else {
            let Self::Single(info) = self else { unreachable!("there are two kinds") };
            return Ok(info.clone());
        };
        let mut last = Doubt::NoMaster;
        for sentinel in sentinels {
            match asked(sentinel, master, timeout).await {
                Ok((host, port)) => {
                    let address = if *is_encrypted {
                        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
                    } else {
                        ConnectionAddr::Tcp(host, port)
                    };
                    let info = address.into_connection_info()?;
                    return Ok(tuned(info).set_redis_settings(login.clone()));
                }
                Err(doubt) => last = doubt,
            }
        }
        Err(last)
    }
}

/// The master that one sentinel knows.
async fn asked(sentinel: &ConnectionInfo, master: &str, timeout: Duration) -> Result<(String, u16), Doubt> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
    let client = Client::open(sentinel.clone())?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut command = ::redis::cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(master);
    match reply::checked(connection.send_packed_command(&command).await?)? {
        ::redis::Value::Nil => Err(Doubt::NoMaster),
        value => {
            let [host, port] = reply::tuple(value)?;
            let port = u16::try_from(reply::number(port)?).map_err(|_| Doubt::Unexpected)?;
            Ok((reply::text(host)?, port))
        }
    }
}

fn info(url: &str) -> Result<ConnectionInfo, InvalidUrl> {
    url.into_connection_info().map_err(|error: RedisError| InvalidUrl(error.to_string()))
}

/// Small writes go out at once.
fn tuned(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info.tcp_settings().clone().set_nodelay(true);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_is_asked_itself() {
        for url in
            ["redis://localhost", "redis://:secret@localhost:6380/2", "rediss://localhost", "unix:///run/redis.sock"]
        {
            let Ok(Topology::Single(info)) = Topology::parse(url) else { panic!("{url}") };
            assert_eq!(info.redis_settings().protocol(), ProtocolVersion::RESP3, "{url}");
        }
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
        ] {
            let Err(invalid) = Topology::parse(url) else { panic!("{url}") };
            let text = invalid.to_string();
            assert!(text.contains("redis://") && !text.contains("secret"), "{url}: {text}");
        }
    }
}
