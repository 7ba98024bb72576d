//! Where servers of NATS are, and how to log in.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

/// The servers of one NATS, any of which will do, and the login at all of them.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) servers: Vec<Server>,
    pub(super) login: Login,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) is_encrypted: bool,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    Nothing,
    User {
        user: String,
        password: String,
    },
    Token(String),
    /// A file with a JWT and the seed of its key.
    Credentials(PathBuf),
}

impl fmt::Debug for Address {
    /// Without the login.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Address").field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// Why a text is not the address of a NATS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct InvalidUrl(&'static str);

impl fmt::Display for InvalidUrl {
    /// Without the text, which may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}; write {FORMS}", self.0)
    }
}

impl std::error::Error for InvalidUrl {}

impl Address {
    /// Reads `nats://[USER:PASSWORD@]HOST[:PORT]`, or `tls://…`; with a token in place of user and password, with several servers after commas, with
    /// the path of a credentials file behind `?credentials=`.
    pub(super) fn parse(url: &str) -> Result<Self, InvalidUrl> {
        let (url, query) = url.split_once('?').map_or((url, None), |(url, query)| (url, Some(query)));
        if url.contains('#') {
            return Err(InvalidUrl("# has a meaning in URLs: in a password it is %23"));
        }
        let (mut servers, mut login, mut scheme) = (Vec::new(), Login::Nothing, None);
        for server in url.split(',') {
            let server = server.trim();
            let rest = match server.split_once("://") {
                Some((name, rest)) => {
                    scheme = Some(is_encrypted(name)?);
                    rest
                }
                None => server,
            };
            let is_encrypted = scheme.ok_or(InvalidUrl("it has no scheme"))?;
            let (userinfo, host) = rest.rsplit_once('@').map_or((None, rest), |(it, host)| (Some(it), host));
            if let Some(userinfo) = userinfo {
                login = read_login(userinfo)?;
            }
            let (host, port) = read_host(host.trim_end_matches('/'))?;
            servers.push(Server { host, port, is_encrypted });
        }
        if let Some(query) = query {
            let path = query.strip_prefix("credentials=").filter(|path| !path.is_empty() && !path.contains('&'));
            let path = path.ok_or(InvalidUrl("nothing but credentials=PATH may follow the question mark"))?;
            login = Login::Credentials(decoded(path)?.into());
        }
        Ok(Self { servers, login })
    }
}

fn is_encrypted(scheme: &str) -> Result<bool, InvalidUrl> {
    match scheme {
        "nats" => Ok(false),
        "tls" => Ok(true),
        _ => Err(InvalidUrl("its scheme is neither nats nor tls")),
    }
}

fn read_login(userinfo: &str) -> Result<Login, InvalidUrl> {
    if userinfo.contains(['@', '/']) {
        return Err(InvalidUrl(
            "the user or the password holds a character that has a meaning in URLs: write it as %XX",
        ));
    }
    Ok(match userinfo.split_once(':') {
        Some((user, password)) => Login::User { user: decoded(user)?, password: decoded(password)? },
        None => Login::Token(decoded(userinfo)?),
    })
}

fn decoded(text: &str) -> Result<String, InvalidUrl> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| InvalidUrl("a %XX in it is not UTF-8"))?;
    Ok(decoded.into_owned())
}

/// An address of IPv6 stands in brackets.
fn read_host(text: &str) -> Result<(String, u16), InvalidUrl> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':').map_or(Ok(None), |port| Ok(Some(port)))?),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_odd = |character: char| character.is_whitespace() || character.is_control() || character == '/';
    if host.is_empty() || host.contains(is_odd) {
        return Err(InvalidUrl("it names no host"));
    }
    let is_number = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port {
        None => PORT,
        Some(port) if is_number(port) => port.parse().ok().filter(|port| *port > 0).ok_or(NO_PORT)?,
        Some(_) => return Err(NO_PORT),
    };
    Ok((host.to_owned(), port))
}

/// What an address looks like.
pub(in crate::cluster) const FORMS: &str = "nats://[USER:PASSWORD@]HOST[:PORT], tls:// for TLS, more servers as HOST:PORT behind commas, TOKEN@ in place of \
     USER:PASSWORD@, or ?credentials=/PATH at the end";

/// Where servers of NATS listen unless they are told otherwise.
const PORT: u16 = 4222;

const NO_PORT: InvalidUrl = InvalidUrl("the port is a number between 1 and 65535");

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(url: &str) -> Vec<(String, u16, bool)> {
        let address = Address::parse(url).unwrap_or_else(|invalid| panic!("{url}: {invalid}"));
        address.servers.into_iter().map(|it| (it.host, it.port, it.is_encrypted)).collect()
    }

    fn login(url: &str) -> Login {
        Address::parse(url).expect("a URL").login
    }

    #[test]
    fn servers_have_hosts_and_ports() {
        let local = |port| ("localhost".to_owned(), port, false);
        assert_eq!(servers("nats://localhost"), [local(4222)]);
        assert_eq!(servers("nats://localhost:5222/"), [local(5222)]);
        assert_eq!(servers("tls://[::1]:1"), [("::1".to_owned(), 1, true)]);
        assert_eq!(
            servers("nats://me:secret@localhost:1,localhost:2, nats://localhost"),
            [local(1), local(2), local(4222)]
        );
        let mixed = servers("nats://localhost,tls://a");
        assert_eq!(mixed, [local(4222), ("a".to_owned(), 4222, true)]);
    }

    #[test]
    fn a_login_is_a_user_a_token_or_a_file() {
        assert!(login("nats://a") == Login::Nothing);
        let user = Login::User { user: "me".to_owned(), password: "p@ss/w".to_owned() };
        assert!(login("nats://me:p%40ss%2Fw@a,b") == user);
        assert!(login("tls://t0ken@a") == Login::Token("t0ken".to_owned()));
        let file = Login::Credentials("/etc/taut/a b.creds".into());
        assert!(login("nats://a,b?credentials=/etc/taut/a%20b.creds") == file);
        let shown = format!("{:?}", Address::parse("nats://me:secret@a").expect("a URL"));
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn what_is_not_an_address_is_refused_without_repeating_it() {
        for (url, reason) in [
            ("", "no scheme"),
            ("localhost", "no scheme"),
            ("http://me:secret@a", "neither nats nor tls"),
            ("nats://", "names no host"),
            ("nats://me:secret@", "names no host"),
            ("nats://me:secret@:4222", "names no host"),
            ("nats://a,", "names no host"),
            ("nats://me:secret@a:0", "the port is a number"),
            ("nats://a:65536", "the port is a number"),
            ("nats://a:+1", "the port is a number"),
            ("nats://me:sec@ret@a", "write it as %XX"),
            ("nats://me:secret@a/b", "names no host"),
            ("nats://a?secret=b", "may follow the question mark"),
            ("nats://me:secret#@a", "# has a meaning"),
        ] {
            let text = Address::parse(url).expect_err(url).to_string();
            assert!(text.contains(reason) && text.contains("nats://[USER"), "{url}: {text}");
            assert!(!text.contains("secret"), "{url}: {text}");
        }
    }
}
