//! `taut health`: checks that a server is healthy. For health checks in containers that have no other program.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use clap::Args;
use taut_server::Config;
use taut_server::config::Sources;

use crate::output::{self, printable};
use crate::serve;

/// Check that a running server is healthy
///
/// The exit code is 0 if it answers with 200, and 1 otherwise. Without a URL, it asks for /up on this machine, where
/// the environment variables of `taut serve` say that it listens: at `TAUT_METRICS_LISTEN` if that is set, or at
/// `TAUT_LISTEN`.
#[derive(Args)]
#[command(after_help = "Examples:\n  taut health\n  taut health http://10.0.0.5:6001/ready")]
pub(crate) struct Arguments {
    /// What to ask for, by plain HTTP. /up: the server runs; /ready: it accepts clients
    url: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let url = match &arguments.url {
        Some(url) => url.clone(),
        None => here(&Sources::new([], serve::environment()?).read().0.config)?,
    };
    let status = ask(&url).map_err(|error| format!("{url}: {error}"))?;
    match status.split(' ').next() {
        Some("200") => Ok(output::print("healthy\n")?),
        _ => Err(format!("{url}: {}", printable(&status)).into()),
    }
}

/// Where the server of this machine is asked.
fn here(config: &Config) -> Result<String, String> {
    if config.metrics_listen.is_none() && config.speaks_tls() {
        return Err(
            "it asks by plain HTTP, and the server has TLS where clients connect: set TAUT_METRICS_LISTEN".to_owned()
        );
    }
    let mut address = config.metrics_listen.unwrap_or(config.listen);
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    Ok(format!("http://{address}/up"))
}

/// Asks, and gives the status of the answer with its reason: `503 Service Unavailable`.
fn ask(url: &str) -> io::Result<String> {
    let invalid = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
    let rest = url.strip_prefix("http://").ok_or_else(|| invalid("a URL begins with http:// here"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') || url.contains(|letter: char| letter.is_ascii_control() || letter == ' ') {
        return Err(invalid("this is not a valid http:// URL"));
    }
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut stream = connect(address.to_socket_addrs()?)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let path = if path.is_empty() { "/" } else { path };
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut head = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut head)?;
    let head = String::from_utf8_lossy(&head);
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.lines().next()?.split_once(' '));
    status.map(|(_, status)| status.to_owned()).ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

/// Connects to the first address that answers: `localhost` may be `::1` first, where the server need not listen.
fn connect(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// For each step. Docker gives a health check 30 seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes; an answer of /up has some hundred.
const LONGEST_ANSWER: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_server_of_this_machine_is_asked_where_its_settings_say_that_it_is() {
        let asked = |listen: &str, metrics: Option<&str>| {
            let config = Config {
                listen: listen.parse().expect(listen),
                metrics_listen: metrics.map(|address| address.parse().expect(address)),
                ..Config::default()
            };
            here(&config)
        };
        assert_eq!(asked("0.0.0.0:7000", None).as_deref(), Ok("http://127.0.0.1:7000/up"));
        assert_eq!(asked("[::]:7000", None).as_deref(), Ok("http://[::1]:7000/up"));
        assert_eq!(asked("10.0.0.1:7000", Some("127.0.0.1:9601")).as_deref(), Ok("http://127.0.0.1:9601/up"));
        let file = Config { tls_certificate: Some("certificate.pem".into()), ..Config::default() };
        let acme = Config { acme: vec!["a.example".to_owned()], ..Config::default() };
        for config in [file, acme] {
            assert!(here(&config).expect_err("TLS").contains("TAUT_METRICS_LISTEN"));
            let config = Config { metrics_listen: Some(SocketAddr::from(([127, 0, 0, 1], 9601))), ..config };
            assert_eq!(here(&config).as_deref(), Ok("http://127.0.0.1:9601/up"));
        }
    }

    #[test]
    fn each_address_is_tried_and_the_last_error_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let good = listener.local_addr().expect("an address");
        let refused = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        assert_eq!(connect([refused, good].into_iter()).expect("the second").peer_addr().expect("a peer"), good);
        let error = connect([refused].into_iter()).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect([].into_iter()).expect_err("no address").kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for url in
            ["https://127.0.0.1/up", "127.0.0.1:6001", "http://me:hunter2@a/", "http://a/\r\nb: c", "http://a/ b"]
        {
            let refused = ask(url).expect_err(url);
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{url}");
        }
    }
}
