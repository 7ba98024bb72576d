//! `[[routes]]`: paths whose WebSockets are told to a backend.

use std::path::PathBuf;

use http::HeaderName;

use super::field::Field;
use super::text;
use super::value::{Diagnostics, Entry, Located};
use crate::app::Secret;
use crate::gateway::{Auth, Backend, Form, Frames, NOT_FOR_WEBSOCKETS, OnError, RouteConfig};

/// What a route's table, `[[routes]]`, may hold.
pub const ROUTE_FIELDS: &[Field] = &[
    field(
        "path",
        "PATTERN",
        "",
        "Which paths are this route's: /chat/{room}, or /files/{path...} for everything below",
    ),
    field(
        "backend",
        "URL",
        "",
        "Who is asked: http://, https://, fastcgi:///run/php/php-fpm.sock or fastcgi://127.0.0.1:9000; or a WebSocket server, ws:// or wss://, to which messages are passed on",
    ),
    field("script", "FILE", "", "Over FastCGI: the file that php-fpm runs, as php-fpm sees it"),
    field("root", "FOLDER", "", "Over FastCGI: DOCUMENT_ROOT; with none, the script's folder"),
    field(
        "app",
        "ID",
        "",
        "The app whose channels, users and limits its connections have; with none, the only app there is",
    ),
    field(
        "name",
        "TEXT",
        "",
        "What the route is called to its backend, in the log and in metrics; with none, its path",
    ),
    field(
        "form",
        "plain|websocket-over-http",
        "plain",
        "How the backend is told: JSON, or WebSocket-over-HTTP with GRIP, as Pushpin speaks it",
    ),
    field(
        "auth",
        "backend|jwt|none",
        "backend",
        "Who decides whether a client may connect: the backend, by its answer to open; the server, by a token and the keys of [apps.upgrade]; or nobody, and all come in that the backend does not refuse",
    ),
    field(
        "secret",
        "TEXT",
        "",
        "Signs the requests: whsec_… of Standard Webhooks, and a text or base64:… of at least 32 bytes for GRIP; with none, the app's first secret does",
    ),
    field(
        "headers",
        "LIST",
        "Cookie, Authorization, Origin, User-Agent, Accept-Language",
        "The client's headers that come with each request; \"*\" for all, the default of websocket-over-http and of ws://",
    ),
    field(
        "frames",
        "event|raw",
        "event",
        "What connections get of an event in their channels: channel, event and data as JSON, or the data alone, the default of websocket-over-http",
    ),
    field(
        "batch",
        "COUNT",
        "1",
        "Messages of a connection that may come in one request (1 to 64), as a list of events if it is more than 1; websocket-over-http: 64",
    ),
    field("on-error", "close|keep", "close", "What happens to a connection when its backend fails an event"),
    field(
        "timeout",
        "SECONDS",
        "10",
        "How long the backend may take for one event, its wait for a turn included (1 to 60); with ws://, for the handshake",
    ),
    field(
        "concurrency",
        "COUNT",
        "64",
        "Events that the backend has at a time (1 to 1000); over FastCGI 8 by default: keep it below pm.max_children; with ws://, handshakes",
    ),
];

const fn field(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Field {
    Field { name, value, default, help }
}

/// Reads one table; nothing, when it cannot be used, which has been complained about.
pub(super) fn read(table: &Located, complaints: &mut Diagnostics<'_>) -> Option<RouteConfig> {
    let Ok(entries) = table.table() else {
        complaints.complain(table.at, "a route is a table: write [[routes]] on a line of its own");
        return None;
    };
    let text = |name: &str| entries.iter().find(|entry| entry.name == name).map(|entry| entry.value.text());
    let (Some(Ok(path)), Some(Ok(url))) = (text("path"), text("backend")) else {
        complaints.complain(
            table.at,
            "a route needs a path, such as \"/chat/{room}\", and a backend, such as \"http://127.0.0.1:8000/chat\"",
        );
        return None;
    };
    let backend = if url.starts_with("fastcgi:") {
        let Some(Ok(script)) = text("script") else {
            complaints.complain(table.at, "a route over FastCGI needs a script: the file that php-fpm runs");
            return None;
        };
        let root = text("root").and_then(Result::ok).map(PathBuf::from);
        Backend::FastCgi { address: url, script: script.into(), root }
    } else if url.starts_with("ws:") || url.starts_with("wss:") {
        Backend::WebSocket { url }
    } else {
        Backend::Http { url }
    };
    let form = match text("form") {
        // It has none, which is complained about below.
        _ if matches!(backend, Backend::WebSocket { .. }) => Form::Plain,
        None | Some(Err(_)) => Form::Plain,
        Some(Ok(name)) if name == "plain" => Form::Plain,
        Some(Ok(name)) if name == "websocket-over-http" => Form::WebSocketOverHttp,
        Some(Ok(_)) => {
            complaints.complain(table.at, "form: is plain or websocket-over-http");
            return None;
        }
    };
    let app = text("app").and_then(Result::ok).unwrap_or_default();
    let mut route = RouteConfig::new(path, app, backend).in_form(form);
    let before = complaints.mistakes.len();
    for entry in entries {
        if let Err(reason) = set(&mut route, entry, complaints) {
            complaints.complain(entry.value.at, format!("{}: {reason}", entry.name));
        }
    }
    if let Err(reason) = route.check() {
        complaints.complain(table.at, reason);
    }
    (complaints.mistakes.len() == before).then_some(route)
}

fn set(route: &mut RouteConfig, entry: &Entry, complaints: &mut Diagnostics<'_>) -> Result<(), String> {
    let value = &entry.value;
    match entry.name.as_str() {
        "form" if matches!(route.backend, Backend::WebSocket { .. }) => return Err(NOT_FOR_WEBSOCKETS.to_owned()),
        "path" | "backend" | "app" | "form" => return value.text().map(drop),
        "script" | "root" if matches!(route.backend, Backend::FastCgi { .. }) => return value.text().map(drop),
        "script" | "root" => return Err("is for FastCGI alone".to_owned()),
        "secret" | "frames" | "batch" | "on-error" if matches!(route.backend, Backend::WebSocket { .. }) => {
            return Err(NOT_FOR_WEBSOCKETS.to_owned());
        }
        "name" => route.name = value.text()?,
        "auth" => {
            route.auth = match value.text()?.as_str() {
                "backend" => Auth::Backend,
                "jwt" => Auth::Jwt,
                "none" => Auth::None,
                _ => return Err("is backend, jwt or none".to_owned()),
            }
        }
        "secret" => route.secret = Some(Secret::from(value.text()?)),
        "headers" => {
            route.headers = value.elements().iter().map(header).collect::<Result<_, _>>()?;
        }
        "frames" => {
            route.frames = match value.text()?.as_str() {
                "event" => Frames::Event,
                "raw" => Frames::Raw,
                _ => return Err("is event or raw".to_owned()),
            }
        }
        "batch" => route.batch = text::count(&value.text()?, 1, RouteConfig::MOST_BATCH)?,
        "on-error" => {
            route.on_error = match value.text()?.as_str() {
                "close" => OnError::Close,
                "keep" => OnError::Keep,
                _ => return Err("is close or keep".to_owned()),
            }
        }
        "timeout" => route.timeout = text::seconds_between(&value.text()?, 1, 60)?,
        "concurrency" => route.concurrency = text::count(&value.text()?, 1, 1000)?,
        _ => complaints.unknown(entry, "setting of a route", ROUTE_FIELDS.iter().map(|field| field.name)),
    }
    Ok(())
}

fn header(value: &Located) -> Result<String, String> {
    let name = value.text()?;
    if name == "*" {
        return Ok(name);
    }
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not the name of a header"))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::config::Sources;

    fn routes(text: &str) -> Result<Vec<RouteConfig>, String> {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let text = format!("[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n{text}");
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("taut-routes-{}-{number}.toml", std::process::id()));
        std::fs::write(&path, text).expect("written");
        let file = ("TAUT_CONFIG".to_owned(), path.display().to_string());
        let loaded = Sources::new([], [file]).load();
        std::fs::remove_file(path).expect("removed");
        loaded.map(|loaded| loaded.config.routes).map_err(|error| error.to_string())
    }

    #[test]
    fn a_route_has_a_path_and_a_backend_and_defaults_for_the_rest() {
        let http = Backend::Http { url: "http://127.0.0.1:8000/chat".to_owned() };
        let expected = RouteConfig::new("/chat/{room}", "", http);
        let read = routes("[[routes]]\npath = \"/chat/{room}\"\nbackend = \"http://127.0.0.1:8000/chat\"");
        assert_eq!(read, Ok(vec![expected]));
        let fastcgi = Backend::FastCgi {
            address: "fastcgi:///run/php.sock".to_owned(),
            script: "/srv/chat.php".into(),
            root: Some("/srv".into()),
        };
        let expected = RouteConfig {
            name: "files".to_owned(),
            secret: Some(Secret::from("whsec_dGF1dC1yb3V0ZS1zZWNyZXQtMDEyMzQ1Njc4OWFiY2RlZg==".to_owned())),
            headers: vec!["Cookie".to_owned()],
            auth: Auth::None,
            frames: Frames::Raw,
            batch: 9,
            on_error: OnError::Keep,
            timeout: Duration::from_secs(20),
            concurrency: 4,
            ..RouteConfig::new("/files/{path...}", "1", fastcgi)
        };
        let read = routes(
            "[[routes]]\npath = \"/files/{path...}\"\nbackend = \"fastcgi:///run/php.sock\"\nscript = \"/srv/chat.php\"\n\
             root = \"/srv\"\napp = \"1\"\nname = \"files\"\nsecret = \"whsec_dGF1dC1yb3V0ZS1zZWNyZXQtMDEyMzQ1Njc4OWFiY2RlZg==\"\n\
             headers = [\"Cookie\"]\nauth = \"none\"\nbatch = 9\nframes = \"raw\"\non-error = \"keep\"\ntimeout = 20\nconcurrency = 4",
        );
        assert_eq!(read, Ok(vec![expected]));
        let http = Backend::Http { url: "http://127.0.0.1:8000".to_owned() };
        let expected = RouteConfig {
            auth: Auth::Jwt,
            secret: Some(Secret::from("changeme".to_owned())),
            headers: vec!["*".to_owned()],
            frames: Frames::Raw,
            batch: 64,
            ..RouteConfig::new("/a", "", http).in_form(Form::WebSocketOverHttp)
        };
        let read = routes(
            "[[routes]]\npath = \"/a\"\nform = \"websocket-over-http\"\nauth = \"jwt\"\nsecret = \"changeme\"\nbackend = \"http://127.0.0.1:8000\"",
        );
        assert_eq!(read, Ok(vec![expected]));
        let socket = Backend::WebSocket { url: "wss://ws.example/below".to_owned() };
        let expected = RouteConfig {
            headers: vec!["Cookie".to_owned()],
            timeout: Duration::from_secs(5),
            concurrency: 9,
            ..RouteConfig::new("/a", "", socket)
        };
        assert_eq!((expected.frames, expected.batch), (Frames::Raw, 64));
        let read = routes(
            "[[routes]]\npath = \"/a\"\nbackend = \"wss://ws.example/below\"\nheaders = [\"Cookie\"]\ntimeout = 5\n\
             concurrency = 9",
        );
        assert_eq!(read, Ok(vec![expected]));
    }

    #[test]
    fn what_cannot_be_served_is_explained_and_no_secret_repeated() {
        let route = |more: &str| format!("[[routes]]\npath = \"/a\"\nbackend = \"http://a.example/\"\n{more}");
        let socket = |url: &str, more: &str| format!("[[routes]]\npath = \"/a\"\nbackend = {url:?}\n{more}");
        for (text, reason) in [
            ("[[routes]]\npath = \"/a\"".to_owned(), "a route needs a path"),
            ("[routes]\npath = \"/a\"\nbackend = \"ftp://a/\"".to_owned(), "http:// or https://"),
            ("[[routes]]\npath = \"a\"\nbackend = \"http://a/\"".to_owned(), "path: "),
            ("[[routes]]\npath = \"/a\"\nbackend = \"fastcgi:///a.sock\"".to_owned(), "needs a script"),
            (
                "[[routes]]\npath = \"/a\"\nbackend = \"fastcgi://192.0.2.1:9000\"\nscript = \"/a.php\"".to_owned(),
                "on this machine",
            ),
            (route("script = \"/a.php\""), "script: is for FastCGI alone"),
            (route("secret = \"hunter2\""), "secret: "),
            (route("form = \"grip\""), "form: is plain or websocket-over-http"),
            (route("form = \"websocket-over-http\"\nsecret = \"base64:hunter2!\""), "secret: "),
            (route("auth = \"no\""), "auth: is backend, jwt or none"),
            (route("batch = 65"), "batch: "),
            (route("frames = \"json\""), "frames: is event or raw"),
            (route("on-error = \"stay\""), "on-error: is close or keep"),
            (route("timeout = 0"), "timeout: "),
            (route("concurrency = 1001"), "concurrency: "),
            (route("headers = [\"a b\"]"), "not the name of a header"),
            (route("bakend = \"x\""), "did you mean backend?"),
            (socket("ws://me:hunter2@a.example", ""), "backend: the address may hold no name"),
            (socket("ws://a.example/?hunter2", ""), "the query is the client's"),
            (socket("ws://a.example", "form = \"plain\""), "form: a backend with ws://"),
            (socket("ws://a.example", "form = \"websocket-over-http\""), "form: a backend with ws://"),
            (socket("wss://a.example", "secret = \"hunter2\""), "secret: a backend with ws://"),
            (socket("ws://a.example", "frames = \"raw\""), "frames: a backend with ws://"),
            (socket("ws://a.example", "batch = 2"), "batch: a backend with ws://"),
            (socket("ws://a.example", "on-error = \"keep\""), "on-error: a backend with ws://"),
            (socket("ws://a.example", "script = \"/a.php\""), "script: is for FastCGI alone"),
        ] {
            let refused = routes(&text).expect_err(&text);
            assert!(refused.contains(reason) && !refused.contains("hunter2"), "{text}: {refused}");
        }
    }
}
