//! How the commands that are WebSocket clients connect: their common arguments, and the client made of them.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use taut::tls::ClientTls;
use taut::{Client, Deflate, Error, Heartbeat, Proxy, Settings, WebSocket};

/// The arguments that say how to connect, for `#[command(flatten)]`.
#[derive(clap::Args, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct DialArguments {
    /// A header of the handshake; @FILE reads one from each line of a file
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", help_heading = "Handshake")]
    pub(crate) headers: Vec<String>,

    /// Send Authorization: Bearer; @FILE reads the token from a file
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TAUT_BEARER",
        hide_env_values = true,
        conflicts_with = "basic",
        help_heading = "Handshake"
    )]
    pub(crate) bearer: Option<String>,

    /// Send Authorization: Basic; @FILE reads user and password from a file
    #[arg(long, value_name = "USER:PASSWORD", help_heading = "Handshake")]
    pub(crate) basic: Option<String>,

    /// Send a cookie, or several with ; between them; @FILE reads them from a file
    #[arg(short = 'b', long = "cookie", value_name = "NAME=VALUE", help_heading = "Handshake")]
    pub(crate) cookies: Vec<String>,

    /// Offer a subprotocol; the server may choose one of those offered
    #[arg(short, long = "subprotocol", value_name = "NAME", value_delimiter = ',', help_heading = "Handshake")]
    pub(crate) subprotocols: Vec<String>,

    /// Send an Origin, as a browser does for its page
    #[arg(short, long, value_name = "URL", help_heading = "Handshake")]
    pub(crate) origin: Option<String>,

    /// Offer permessage-deflate, so that both sides may compress
    #[arg(long, help_heading = "Handshake")]
    pub(crate) deflate: bool,

    /// Connect through a proxy: http://, https://, socks5:// or socks5h://, with user:password@ if it asks for them;
    /// by default the one that the environment names
    #[arg(long, value_name = "URL", conflicts_with = "no_proxy", help_heading = "Network")]
    pub(crate) proxy: Option<String>,

    /// Connect directly, whatever the environment says
    #[arg(long, help_heading = "Network")]
    pub(crate) no_proxy: bool,

    /// Connect to a Unix socket instead of the URL's host
    #[cfg(unix)]
    #[arg(long, value_name = "PATH", conflicts_with = "proxy", help_heading = "Network")]
    pub(crate) unix: Option<PathBuf>,

    /// How long connecting may take, with redirects and the handshake
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, help_heading = "Network")]
    pub(crate) connect_timeout: Option<Duration>,

    /// Ping after so long a silence; 0 turns it off
    #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = duration, help_heading = "Network")]
    pub(crate) ping_interval: Option<Duration>,

    /// Give the peer up when it stays silent for so long after a ping
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration, help_heading = "Network")]
    pub(crate) ping_timeout: Option<Duration>,

    /// The largest message to accept, in bytes; K, M and G multiply by 1024
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size, help_heading = "Network")]
    pub(crate) max_size: Option<usize>,

    /// Trust these roots instead of the system's: a PEM file, which may be the server's own self-signed certificate
    #[arg(long, value_name = "FILE", conflicts_with = "insecure", help_heading = "TLS")]
    pub(crate) cacert: Option<PathBuf>,

    /// Show the server this certificate: a PEM file with its chain
    #[arg(long, value_name = "FILE", requires = "key", help_heading = "TLS")]
    pub(crate) cert: Option<PathBuf>,

    /// The key of --cert: a PEM file
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "TLS")]
    pub(crate) key: Option<PathBuf>,

    /// Expect the certificate to be for this name, and not for the URL's host
    #[arg(long, value_name = "NAME", help_heading = "TLS")]
    pub(crate) server_name: Option<String>,

    /// Accept any certificate; anyone on the network path can then read and change everything
    #[arg(short = 'k', long, help_heading = "TLS")]
    pub(crate) insecure: bool,

    /// Show addresses, TLS, the heads of the handshake, pings, and the size of each message
    #[arg(short, long, help_heading = "Output")]
    pub(crate) verbose: bool,
}

impl DialArguments {
    /// The client for a URL as people write it: see [`websocket_url`].
    ///
    /// # Errors
    /// What is wrong with an argument, for people. What only shows when connecting is an error then.
    pub(crate) fn client(&self, url: &str) -> Result<Client, String> {
        let mut client = Client::new(&websocket_url(url)?).settings(self.settings()).tls(self.tls()?);
        for header in self.headers()? {
            client = with_header(client, &header)?;
        }
        if let Some(token) = &self.bearer {
            client = client.bearer(&text_or_file("--bearer", token)?);
        }
        if let Some(pair) = &self.basic {
            let pair = text_or_file("--basic", pair)?;
            let (user, password) = pair.split_once(':').ok_or("--basic needs USER:PASSWORD")?;
            client = client.basic(user, password);
        }
        for cookies in &self.cookies {
            client = client.header("Cookie", &text_or_file("--cookie", cookies)?);
        }
        for name in &self.subprotocols {
            client = client.subprotocol(name.trim());
        }
        if let Some(origin) = &self.origin {
            client = client.origin(origin);
        }
        if self.deflate {
            client = client.deflate(Deflate::default());
        }
        if let Some(timeout) = self.connect_timeout {
            client = client.connect_timeout(timeout);
        }
        if let Some(url) = &self.proxy {
            client = client.proxy(proxy(url)?);
        }
        Ok(if self.no_proxy { client.no_proxy() } else { client })
    }

    /// Connects with a client made by [`client`](Self::client).
    pub(crate) async fn connect(&self, client: &Client) -> Result<WebSocket, Error> {
        #[cfg(unix)]
        if let Some(path) = &self.unix {
            return client.connect_unix(path).await;
        }
        client.connect().await
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::client();
        settings.limits.message = self.max_size.unwrap_or(settings.limits.message);
        settings.heartbeat = match (self.ping_interval, self.ping_timeout) {
            (Some(Duration::ZERO), _) => Heartbeat::off(),
            (interval, timeout) => {
                let usual = settings.heartbeat;
                Heartbeat { interval: interval.unwrap_or(usual.interval), timeout: timeout.unwrap_or(usual.timeout) }
            }
        };
        settings
    }

    fn tls(&self) -> Result<ClientTls, String> {
        let mut tls = match &self.cacert {
            _ if self.insecure => ClientTls::dangerously_accept_any_certificate(),
            Some(path) => ClientTls::only_pem(&file(path)?).map_err(|error| format!("--cacert: {error}"))?,
            None => ClientTls::system(),
        };
        if let (Some(certificate), Some(key)) = (&self.cert, &self.key) {
            tls = tls.client_certificate_pem(&file(certificate)?, &file(key)?).map_err(|error| error.to_string())?;
        }
        if let Some(name) = &self.server_name {
            tls = tls.server_name(name).map_err(|error| format!("--server-name: {error}"))?;
        }
        tls.log_keys().map_err(|error| error.to_string())
    }

    /// The headers as they were given, those in files among them.
    fn headers(&self) -> Result<Vec<String>, String> {
        let mut headers = Vec::new();
        for header in &self.headers {
            match header.strip_prefix('@') {
                None => headers.push(header.clone()),
                Some(path) => {
                    let text = text_of(path)?;
                    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                    headers.extend(lines.map(str::to_owned));
                }
            }
        }
        Ok(headers)
    }
}

/// A WebSocket's URL, made of what people write: `http://` and `https://` are taken for `ws://` and `wss://`. Without a
/// scheme it is `ws://` on this machine (`localhost`, a loopback address, or a port alone as `:9001`), else `wss://`.
///
/// # Errors
/// The URL holds a user, which belongs to another argument.
pub(crate) fn websocket_url(text: &str) -> Result<String, String> {
    let url = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => format!("ws://{rest}"),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => format!("wss://{rest}"),
        Some(_) => text.to_owned(),
        None if text.starts_with(':') => format!("ws://127.0.0.1{text}"),
        None if is_this_machine(authority(text)) => format!("ws://{text}"),
        None => format!("wss://{text}"),
    };
    match url.split_once("://") {
        Some((_, rest)) if authority(rest).contains('@') => {
            Err("a user and password in the URL are not sent; use --basic USER:PASSWORD".to_owned())
        }
        _ => Ok(url),
    }
}

/// Reads a duration: a number with `ms`, `s`, `m` or `h`; seconds without.
///
/// # Errors
/// It is not one.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(NO_DURATION.to_owned()),
    };
    let number: f64 = digits.trim_end().parse().map_err(|_| NO_DURATION)?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| NO_DURATION.to_owned())
}

/// Reads a number of bytes: `K`, `M` and `G` multiply by 1024.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        _ => return Err(NO_SIZE.to_owned()),
    };
    let number: usize = digits.parse().map_err(|_| NO_SIZE)?;
    number.checked_mul(1 << shift).filter(|&bytes| bytes > 0).ok_or_else(|| NO_SIZE.to_owned())
}

/// Sets a header, also one that the handshake writes itself.
fn with_header(client: Client, header: &str) -> Result<Client, String> {
    // Not the value in the error: it may be a secret.
    let (name, value) = header.split_once(':').ok_or("a header is written as NAME: VALUE")?;
    let (name, value) = (name.trim(), value.trim());
    Ok(match name.to_ascii_lowercase().as_str() {
        "origin" => client.origin(value),
        "sec-websocket-protocol" => value.split(',').map(str::trim).fold(client, Client::subprotocol),
        "sec-websocket-extensions" => return Err("Sec-WebSocket-Extensions is set by --deflate".to_owned()),
        _ => client.header(name, value),
    })
}

fn proxy(url: &str) -> Result<Proxy, String> {
    let made = if url.starts_with("socks") { Proxy::socks5(url) } else { Proxy::http(url) };
    made.map_err(|error| format!("--proxy: {error}"))
}

/// The value of an argument, which may be in a file, so that a secret need not be on the command line.
fn text_or_file(argument: &str, value: &str) -> Result<String, String> {
    let text = match value.strip_prefix('@') {
        None => value.to_owned(),
        Some(path) => text_of(path).map_err(|error| format!("{argument}: {error}"))?,
    };
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn text_of(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))
}

fn file(path: &PathBuf) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// Host and port of a URL without its scheme.
fn authority(rest: &str) -> &str {
    &rest[..rest.find(['/', '?']).unwrap_or(rest.len())]
}

/// Whether `host` or `host:port` is this machine, by what is written.
pub(crate) fn is_this_machine(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

const NO_DURATION: &str = "this is not a duration; write 500ms, 10s, 1.5m or 1h";

const NO_SIZE: &str = "this is not a size; write a number of bytes, as 65536, or 64K, 16M, 1G";

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    #[test]
    fn a_url_may_lack_its_scheme_or_have_that_of_the_web() {
        for (text, url) in [
            ("ws://a.example/x", "ws://a.example/x"),
            ("https://a.example/x", "wss://a.example/x"),
            ("HTTP://a.example", "ws://a.example"),
            ("a.example/x?y=z", "wss://a.example/x?y=z"),
            ("a.example:8443", "wss://a.example:8443"),
            ("localhost:9001/x", "ws://localhost:9001/x"),
            ("app.localhost", "ws://app.localhost"),
            ("127.0.0.2:9001", "ws://127.0.0.2:9001"),
            ("[::1]:9001/x", "ws://[::1]:9001/x"),
            (":9001/x", "ws://127.0.0.1:9001/x"),
            // A path may hold an @.
            ("a.example/@me", "wss://a.example/@me"),
        ] {
            assert_eq!(websocket_url(text).as_deref(), Ok(url));
        }
        let error = websocket_url("wss://me:s3cret@a.example/").unwrap_err();
        assert!(error.contains("--basic") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn durations_and_sizes_have_units() {
        for (text, millis) in [("500ms", 500), ("10s", 10_000), ("1.5m", 90_000), ("1h", 3_600_000), ("0.25", 250)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "10 parsecs", "-1s", "1e400", "nan"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(
            (size("65536"), size("64k"), size("16MiB"), size("1G")),
            (Ok(65536), Ok(65536), Ok(16 << 20), Ok(1 << 30))
        );
        for text in ["", "0", "-1", "M", "1T", "99999999999999999999"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_may_be_in_a_file_and_is_in_no_error() {
        let folder = std::env::temp_dir().join(format!("taut-dial-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            format!("@{}", path.display())
        };
        assert_eq!(text_or_file("--bearer", &write("token", "t0ken\n")).as_deref(), Ok("t0ken"));
        let headers = vec!["X-A: 1".to_owned(), write("headers", "# of ours\nX-B: 2\n\n  X-C: 3\n")];
        let dial = DialArguments { headers, ..DialArguments::default() };
        assert_eq!(dial.headers().unwrap(), ["X-A: 1", "X-B: 2", "X-C: 3"]);
        fs::remove_dir_all(&folder).unwrap();
        assert!(text_or_file("--bearer", "@/nowhere/token").unwrap_err().contains("--bearer: /nowhere/token"));
        let dial = DialArguments { headers: vec!["s3cret".to_owned()], ..DialArguments::default() };
        let error = dial.client("ws://a.example/").err().unwrap();
        assert!(error.contains("NAME: VALUE") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn roots_are_read_from_their_file_and_a_mistake_names_it() {
        let path = std::env::temp_dir().join(format!("taut-roots-{}.pem", std::process::id()));
        let dial = DialArguments { cacert: Some(path.clone()), ..DialArguments::default() };
        let root = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        fs::write(&path, root.cert.pem()).unwrap();
        assert!(dial.client("wss://a.example/").is_ok());
        fs::remove_file(&path).unwrap();
        assert!(dial.client("wss://a.example/").err().unwrap().contains(path.to_str().unwrap()));
    }

    #[tokio::test]
    async fn a_server_sees_the_headers_that_were_asked_for() {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let dial = DialArguments {
            headers: texts(&["X-A:1", "origin: https://a.example", "Sec-WebSocket-Protocol: v1, v2", "User-Agent: me"]),
            basic: Some("me:s3cret".to_owned()),
            cookies: texts(&["a=1; b=2"]),
            subprotocols: texts(&["v3 "]),
            deflate: true,
            no_proxy: true,
            ..DialArguments::default()
        };
        let head = head_of(&dial).await;
        for line in [
            "x-a: 1",
            "origin: https://a.example",
            "sec-websocket-protocol: v1, v2, v3",
            "user-agent: me",
            "authorization: Basic bWU6czNjcmV0",
            "cookie: a=1; b=2",
        ] {
            assert_eq!(head.iter().filter(|&seen| seen == line).count(), 1, "{line}: {head:#?}");
        }
        assert!(head.iter().any(|line| line.starts_with("sec-websocket-extensions: permessage-deflate")), "{head:#?}");
        let dial = DialArguments { headers: texts(&["Sec-WebSocket-Extensions: x"]), ..DialArguments::default() };
        assert!(dial.client("ws://a.example/").err().unwrap().contains("--deflate"));
    }

    /// What a server is sent by a client with these arguments: lines, whose names are in lower case.
    async fn head_of(dial: &DialArguments) -> Vec<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = dial.client(&address.to_string()).unwrap();
        let server = thread::spawn(move || {
            let lines = BufReader::new(listener.accept().unwrap().0).lines().map(Result::unwrap);
            let lines = lines.take_while(|line| !line.is_empty()).map(|line| match line.split_once(": ") {
                Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
                None => line,
            });
            lines.collect()
        });
        assert!(dial.connect(&client).await.is_err(), "there is no response");
        // If the client has not come, the server waits no longer.
        drop(TcpStream::connect(address));
        server.join().unwrap()
    }
}
