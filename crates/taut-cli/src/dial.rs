//! How the commands that are WebSocket clients connect: their common arguments, and the client made of them.

use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use taut::tls::ClientTls;
use taut::{Client, Deflate, Error, Heartbeat, Proxy, Settings, WebSocket};

use crate::output::printable;

/// The arguments that say how to connect, for `#[command(flatten)]`.
#[derive(clap::Args, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
#[allow(clippy::doc_markdown, reason = "these comments are the help, which is not Markdown")]
pub(crate) struct DialArguments {
    /// A header of the handshake; @FILE reads one from each line of a file
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", help_heading = "Handshake")]
    pub(crate) headers: Vec<String>,

    /// Send Authorization: Bearer; @FILE reads the token from a file. By default the variable TAUT_BEARER, where no
    /// other Authorization is given
    #[arg(long, value_name = "TOKEN", conflicts_with = "basic", help_heading = "Handshake")]
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

    /// How many redirects to follow; 0 makes the first one an error
    #[arg(long, value_name = "NUMBER", default_value = "10", help_heading = "Network")]
    pub(crate) max_redirects: Option<usize>,

    /// Send a ping after this much silence; 0 turns it off
    #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = duration, help_heading = "Network")]
    pub(crate) ping_interval: Option<Duration>,

    /// Drop the connection if nothing comes within this time after a ping
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration, help_heading = "Network")]
    pub(crate) ping_timeout: Option<Duration>,

    /// The largest message to accept or to send, in bytes; K, M and G multiply by 1024
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

    /// How long the connection may take to close after our close frame; the library's default without it
    #[arg(skip)]
    pub(crate) close_timeout: Option<Duration>,
}

impl DialArguments {
    /// The client for a URL as people write it: see [`websocket_url`].
    ///
    /// # Errors
    /// What is wrong with an argument, for people. What only shows when connecting is an error then.
    pub(crate) fn client(&self, url: &str) -> Result<Client, String> {
        let mut client = Client::new(&websocket_url(url)?).settings(self.settings()).tls(self.tls()?);
        let headers = self.headers()?;
        for header in &headers {
            client = with_header(client, header)?;
        }
        match self.credentials(&headers, env::var(TAUT_BEARER).ok())? {
            Some(Credentials::Bearer(token)) => client = client.bearer(&token),
            Some(Credentials::Basic(user, password)) => client = client.basic(&user, &password),
            None => {}
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
        if let Some(most) = self.max_redirects {
            client = client.redirects(most);
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
        settings.close_timeout = self.close_timeout.unwrap_or(settings.close_timeout);
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
            Some(path) => ClientTls::only_pem(&file(path)?).map_err(|error| format!("--cacert: {}", words(&error)))?,
            None => ClientTls::system(),
        };
        if let (Some(certificate), Some(key)) = (&self.cert, &self.key) {
            tls = tls.client_certificate_pem(&file(certificate)?, &file(key)?).map_err(|error| words(&error))?;
        }
        if let Some(name) = &self.server_name {
            tls = tls.server_name(name).map_err(|error| words(&error))?;
        }
        tls.log_keys().map_err(|error| words(&error))
    }

    /// What goes into `Authorization`, unless a header says it: the variable only counts where nothing else was given.
    fn credentials(&self, headers: &[String], variable: Option<String>) -> Result<Option<Credentials>, String> {
        let is_authorization = |header: &String| {
            header.split_once(':').is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case("authorization"))
        };
        let is_given = headers.iter().any(is_authorization);
        match (&self.bearer, &self.basic, variable.filter(|token| !token.is_empty())) {
            (Some(_), ..) | (_, Some(_), _) if is_given => {
                Err("a header Authorization was given: leave out --bearer and --basic".to_owned())
            }
            (Some(token), ..) => text_or_file("--bearer", token).map(Credentials::Bearer).map(Some),
            (None, Some(pair), _) => {
                let pair = text_or_file("--basic", pair)?;
                let (user, password) = pair.split_once(':').ok_or("--basic needs USER:PASSWORD")?;
                Ok(Some(Credentials::Basic(user.to_owned(), password.to_owned())))
            }
            (None, None, Some(token)) if !is_given => {
                text_or_file(TAUT_BEARER, &token).map(Credentials::Bearer).map(Some)
            }
            (None, None, _) => Ok(None),
        }
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

#[derive(Debug, PartialEq)]
enum Credentials {
    Bearer(String),
    Basic(String, String),
}

/// What an error of the client says, for a terminal: the peer's words in it are escaped, and it names options in the
/// place of the library's calls.
pub(crate) fn words(error: &Error) -> String {
    CALLS.iter().fold(printable(&error.to_string()), |text, (call, option)| text.replace(call, option))
}

/// A WebSocket's URL, made of what people write: `http://` and `https://` are taken for `ws://` and `wss://`. Without a
/// scheme it is `ws://` on this machine (`localhost`, a loopback address, or a port alone as `:9001`), else `wss://`.
///
/// # Errors
/// The URL holds a user, which belongs to another argument.
pub(crate) fn websocket_url(text: &str) -> Result<String, String> {
    let url = match split_scheme(text) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => format!("ws://{rest}"),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => format!("wss://{rest}"),
        Some(_) => text.to_owned(),
        None if text.starts_with(':') => format!("ws://127.0.0.1{text}"),
        None if is_this_machine(authority(text)) => format!("ws://{text}"),
        None => format!("wss://{text}"),
    };
    match split_scheme(&url) {
        Some((_, rest)) if authority(rest).contains('@') => {
            Err("a user and password in the URL are not sent; use --basic USER:PASSWORD".to_owned())
        }
        _ => Ok(url),
    }
}

/// The scheme of a URL that has one (RFC 3986 §3.1), and what follows. A query may hold `://` as well.
pub(crate) fn split_scheme(url: &str) -> Option<(&str, &str)> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || matches!(character, '+' | '-' | '.');
    url.split_once("://").filter(|(scheme, _)| !scheme.is_empty() && scheme.chars().all(is_part))
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
    let duration = Duration::try_from_secs_f64(number * factor).map_err(|_| NO_DURATION)?;
    // Clocks end somewhere.
    if duration > LONGEST { Err("at most 10 years".to_owned()) } else { Ok(duration) }
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
        "host" => client.host(value),
        "origin" => client.origin(value),
        "sec-websocket-protocol" => value.split(',').map(str::trim).fold(client, Client::subprotocol),
        "sec-websocket-extensions" => return Err("Sec-WebSocket-Extensions is set by --deflate".to_owned()),
        _ => client.header(name, value),
    })
}

fn proxy(url: &str) -> Result<Proxy, String> {
    let made = if url.starts_with("socks") { Proxy::socks5(url) } else { Proxy::http(url) };
    made.map_err(|error| format!("--proxy: {}", words(&error)))
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

/// What the library advises to programs, and what that is on the command line. The longer ones come first.
const CALLS: [(&str, &str); 9] = [
    (" Client::head_limits sets it.", ""),
    (" (Limits::message_timeout)", ""),
    ("Client::basic, or Client::bearer", "--basic, or --bearer"),
    ("Client::redirects", "--max-redirects"),
    ("the text of ClientTls::root_pem", "the file"),
    ("ClientTls::root_pem or only_pem", "--cacert"),
    ("ClientTls::root_pem", "--cacert"),
    ("ClientTls::client_certificate_pem", "--cert and --key"),
    ("ClientTls::server_name", "--server-name"),
];

/// A token for those who do not want it on a command line, which other users can see.
const TAUT_BEARER: &str = "TAUT_BEARER";

const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

const NO_DURATION: &str = "this is not a duration; write 500ms, 10s, 1.5m or 1h";

const NO_SIZE: &str = "this is not a size; write a number of bytes, as 65536, or 64K, 16M, 1G";

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
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
            ("api.example/ws?next=https://a", "wss://api.example/ws?next=https://a"),
            (":9001/x?y=a://b", "ws://127.0.0.1:9001/x?y=a://b"),
            ("ftp://a.example/", "ftp://a.example/"),
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
        for text in ["", "s", "10 parsecs", "-1s", "1e19", "100000h", "1e400", "nan"] {
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
    fn there_is_one_authorization_and_the_variable_gives_way() {
        let basic = DialArguments { basic: Some("me:you:too".to_owned()), ..DialArguments::default() };
        let bearer = DialArguments { bearer: Some("t0ken".to_owned()), ..DialArguments::default() };
        let (none, variable) = (DialArguments::default(), Some("v".to_owned()));
        let token = |token: &str| Ok(Some(Credentials::Bearer(token.to_owned())));
        assert_eq!(
            basic.credentials(&[], variable.clone()),
            Ok(Some(Credentials::Basic("me".into(), "you:too".into())))
        );
        assert_eq!(bearer.credentials(&[], variable.clone()), token("t0ken"));
        assert_eq!(none.credentials(&["X-A: 1".to_owned()], variable.clone()), token("v"));
        assert_eq!((none.credentials(&[], Some(String::new())), none.credentials(&[], None)), (Ok(None), Ok(None)));
        let headers = ["authorization: Digest x".to_owned()];
        assert_eq!(none.credentials(&headers, variable), Ok(None));
        for given in [basic, bearer] {
            assert!(given.credentials(&headers, None).unwrap_err().contains("Authorization"));
        }
    }

    #[test]
    fn a_secret_may_be_in_a_file_and_is_in_no_error() {
        let folder = env::temp_dir().join(format!("taut-dial-{}", std::process::id()));
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
        let (head, _) = answered(&dial, "").await;
        let lines = head.lines().map(|line| match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
            None => line.to_owned(),
        });
        let head: Vec<_> = lines.collect();
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

    #[tokio::test]
    async fn a_header_may_name_another_host_and_redirects_may_be_refused() {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let headers = vec!["Host: a.example".to_owned()];
        for (most, status) in [(Some(0), Some(302)), (Some(1), None), (None, None)] {
            let dial =
                DialArguments { headers: headers.clone(), max_redirects: most, no_proxy: true, ..Default::default() };
            let (head, error) =
                answered(&dial, &format!("HTTP/1.1 302 Found\r\nLocation: ws://{nobody}/\r\n\r\n")).await;
            assert!(head.contains("\r\nHost: a.example\r\n") && head.matches("\nHost:").count() == 1, "{head}");
            assert_eq!((error.status(), error.is_connect()), (status, status.is_none()), "{most:?}: {error}");
        }
    }

    #[test]
    fn what_the_library_advises_is_an_option_here() {
        let library = [
            include_str!("../../taut/src/error/native.rs"),
            include_str!("../../taut/src/error/native/tls.rs"),
            include_str!("../../taut/src/native/client/connect.rs"),
            include_str!("../../taut/src/native/tls/client.rs"),
            include_str!("../../taut/src/native/url.rs"),
        ];
        for (call, _) in CALLS {
            assert!(library.iter().any(|source| source.contains(call)), "nobody says {call}");
        }
        let file = env::temp_dir().join(format!("taut-dial-{}.pem", std::process::id()));
        fs::write(&file, "no certificate").unwrap();
        let cacert = DialArguments { cacert: Some(file.clone()), ..DialArguments::default() };
        let server_name = DialArguments { server_name: Some("a b".to_owned()), ..DialArguments::default() };
        for (dial, said) in
            [(cacert, "--cacert: the file holds no certificate"), (server_name, "--server-name: \"a b\" is not a name")]
        {
            let error = dial.client("wss://a.example/").err().unwrap();
            assert!(error.starts_with(said) && !error.contains("::"), "{error}");
        }
        fs::remove_file(file).unwrap();
    }

    /// What a server is sent by a client with these arguments, and what comes of its answer.
    async fn answered(dial: &DialArguments, response: &str) -> (String, Error) {
        let (listener, response) = (TcpListener::bind("127.0.0.1:0").unwrap(), response.to_owned());
        let address = listener.local_addr().unwrap();
        let client = dial.client(&address.to_string()).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, mut head) = (listener.accept().unwrap().0, Vec::new());
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            stream.write_all(response.as_bytes()).unwrap();
            String::from_utf8(head).unwrap()
        });
        let error = dial.connect(&client).await.unwrap_err();
        // If the client has not come, the server waits no longer.
        drop(TcpStream::connect(address));
        (server.join().unwrap(), error)
    }
}
