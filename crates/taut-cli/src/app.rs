//! Which Pusher app a command is for: its address and its credentials.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use taut_pusher::auth::{SigningKey, decode_percent};
use taut_pusher::request;
use taut_server::config::env_file;
use ureq::http::Uri;

use crate::dial::is_this_machine;
use crate::output;

/// The arguments that name an app, for `#[command(flatten)]`.
#[derive(clap::Args, Default)]
#[allow(clippy::doc_markdown)] // These comments are the help, which is not Markdown.
pub(crate) struct AppArguments {
    /// The app: pusher://KEY:SECRET@HOST:PORT/APP_ID, with pushers:// for TLS, or ID:KEY:SECRET as for `taut serve`.
    /// Others on this machine can see a command line: prefer a variable, TAUT_APP_URL or PUSHER_URL, or Laravel's, such
    /// as REVERB_APP_KEY and PUSHER_APP_KEY. Without any of them it is the development app on 127.0.0.1:6001
    #[arg(long, value_name = "APP", help_heading = "App")]
    app: Option<String>,

    /// A file of variables, such as Laravel's .env: each counts as if it were set, where the environment does not set it
    #[arg(long, value_name = "FILE", conflicts_with = "app", help_heading = "App")]
    env_file: Option<PathBuf>,

    /// The app's id
    #[arg(long, value_name = "ID", help_heading = "App")]
    app_id: Option<String>,

    /// The app's key
    #[arg(long, value_name = "KEY", help_heading = "App")]
    app_key: Option<String>,

    /// The app's secret; others on this machine can see it here
    #[arg(long, value_name = "SECRET", help_heading = "App")]
    app_secret: Option<String>,

    /// The server's host
    #[arg(long, value_name = "HOST", help_heading = "App")]
    host: Option<String>,

    /// The server's port
    #[arg(long, value_name = "PORT", help_heading = "App")]
    port: Option<u16>,

    /// Connect with TLS; --tls=false does not, whatever the URL or the environment says
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true,
        help_heading = "App"
    )]
    tls: Option<bool>,
}

impl AppArguments {
    /// The app that the arguments or the environment name, or the development app, and then says so.
    ///
    /// # Errors
    /// What is wrong with the argument or the variable that it names, without its value.
    pub(crate) fn resolve(&self) -> Result<App, String> {
        let is_text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let mut variables: HashMap<String, String> = env::vars_os().filter_map(is_text).collect();
        variables.retain(|_, value| !value.is_empty());
        if let Some(path) = &self.env_file {
            for (name, value) in env_file(path, variables.clone()).map_err(|wrong| wrong.to_string())? {
                variables.entry(name).or_insert(value);
            }
        }
        let (app, is_development) = self.resolve_from(|name| variables.get(name).cloned())?;
        if is_development {
            output::tell(format_args!("no app is given: this is the development app on {}:{}", app.host, app.port));
        }
        Ok(app)
    }

    /// Finds the app. True if none was given, so that it is the development app.
    fn resolve_from(&self, variable: impl Fn(&str) -> Option<String>) -> Result<(App, bool), String> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let given = match &self.app {
            Some(text) => Some(App::parse(text).map_err(|wrong| format!("--app: {wrong}"))?),
            None => App::from_environment(variable)?,
        };
        if let (Some(path), None) = (&self.env_file, &given) {
            return Err(format!("--env-file: {} names no app, such as by PUSHER_APP_KEY", path.display()));
        }
        let has_credentials = self.app_id.is_some() || self.app_key.is_some() || self.app_secret.is_some();
        let is_development = given.is_none() && !has_credentials;
        let mut app = given.unwrap_or_else(|| if has_credentials { App::local() } else { App::development() });
        for (argument, field) in
            [(&self.app_id, &mut app.id), (&self.app_key, &mut app.key), (&self.app_secret, &mut app.secret)]
        {
            if argument.is_some() {
                field.clone_from(argument);
            }
        }
        if let Some(host) = &self.host {
            app.host.clone_from(host);
        }
        app.is_tls = self.tls.unwrap_or(app.is_tls);
        if let Some(port) = self.port {
            app.port = port;
        }
        Ok((app, is_development))
    }
}

/// A Pusher app on a server. There is no `Debug`: it holds a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct App {
    id: Option<String>,
    key: Option<String>,
    secret: Option<String>,
    host: String,
    port: u16,
    is_tls: bool,
    /// What precedes `/app` and `/apps` in the server's paths.
    prefix: String,
}

impl App {
    /// # Errors
    /// It is not given.
    pub(crate) fn key(&self) -> Result<&str, String> {
        known(self.key.as_ref(), "key", "--app-key")
    }

    /// What the app signs with.
    ///
    /// # Errors
    /// The secret is not given.
    pub(crate) fn signing_key(&self) -> Result<SigningKey, String> {
        known(self.secret.as_ref(), "secret", "TAUT_APP_URL").map(SigningKey::new)
    }

    /// # Errors
    /// It is not given.
    pub(crate) fn secret(&self) -> Result<&str, String> {
        known(self.secret.as_ref(), "secret", "TAUT_APP_URL")
    }

    /// The path of a resource of the HTTP API: `/apps/ID/…`.
    ///
    /// # Errors
    /// The app's id is not given.
    pub(crate) fn path(&self, resource: &str) -> Result<String, String> {
        let id = known(self.id.as_ref(), "id", "--app-id")?;
        Ok(format!("{}/apps/{}/{resource}", self.prefix, request::encode(id)))
    }

    /// Where the HTTP API is, without a path.
    pub(crate) fn origin(&self) -> String {
        self.origin_of(if self.is_tls { "https" } else { "http" }, &self.host)
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether the server is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        is_this_machine(&self.host)
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// The key is not given.
    pub(crate) fn websocket_url(&self) -> Result<String, String> {
        // Pusher's own service has one host for its API and one for WebSockets.
        let host = match self.host.strip_prefix("api-") {
            Some(cluster) if self.host.ends_with(".pusher.com") => format!("ws-{cluster}"),
            _ => self.host.clone(),
        };
        let origin = self.origin_of(if self.is_tls { "wss" } else { "ws" }, &host);
        let (prefix, key) = (&self.prefix, request::encode(self.key()?));
        let version = env!("CARGO_PKG_VERSION");
        Ok(format!("{origin}{prefix}/app/{key}?protocol=7&client=taut&version={version}"))
    }

    fn origin_of(&self, scheme: &str, host: &str) -> String {
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        format!("{scheme}://{host}:{}", self.port)
    }

    /// The app that `taut serve` has when it is given none.
    fn development() -> Self {
        let text = |text: &str| Some(text.to_owned());
        Self { id: text("1"), key: text("app-key"), secret: text("app-secret"), ..Self::local() }
    }

    /// A server on this machine, and an app of which nothing is known.
    fn local() -> Self {
        Self {
            id: None,
            key: None,
            secret: None,
            host: "127.0.0.1".to_owned(),
            port: 6001,
            is_tls: false,
            prefix: String::new(),
        }
    }

    /// Reads `pusher://KEY:SECRET@HOST:PORT/APP_ID`, `http://KEY:SECRET@HOST:PORT/apps/APP_ID` or `ID:KEY:SECRET`.
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains("://") {
            return Self::parse_url(text).ok_or(FORM);
        }
        let parts: Vec<&str> = text.split(':').collect();
        // A slash is in neither: this is a URL that lacks one.
        match parts[..] {
            [id, key, secret]
                if !id.is_empty()
                    && !key.is_empty()
                    && !secret.is_empty()
                    && !id.contains('/')
                    && !key.contains('/') =>
            {
                let owned = |text: &str| Some(text.to_owned());
                Ok(Self { id: owned(id), key: owned(key), secret: owned(secret), ..Self::local() })
            }
            _ => Err(FORM),
        }
    }

    fn parse_url(text: &str) -> Option<Self> {
        let url: Uri = text.parse().ok()?;
        let is_tls = match url.scheme_str()? {
            "pusher" | "http" | "ws" => false,
            "pushers" | "https" | "wss" => true,
            _ => return None,
        };
        let user = url.authority()?.as_str().rsplit_once('@')?.0;
        let (key, secret) = user.split_once(':').map_or((user, None), |(key, secret)| (key, Some(secret)));
        let decoded = |text: &str| Some(decode_percent(text).into_owned()).filter(|text| !text.is_empty());
        let (path, id) = url.path().trim_end_matches('/').rsplit_once('/').unwrap_or_default();
        Some(Self {
            id: decoded(id),
            key: Some(decoded(key)?),
            secret: secret.and_then(decoded),
            host: url.host()?.to_owned(),
            port: url.port_u16().unwrap_or_else(|| usual_port(is_tls)),
            is_tls,
            prefix: path.strip_suffix("/apps").unwrap_or(path).to_owned(),
        })
    }

    /// The app that the first of these names: `TAUT_APP_URL`, `PUSHER_URL`, Laravel's variables for Reverb and Pusher.
    fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        for name in ["TAUT_APP_URL", "PUSHER_URL"] {
            if let Some(text) = variable(name) {
                return Self::parse(&text).map(Some).map_err(|wrong| format!("{name}: {wrong}"));
            }
        }
        for vendor in ["REVERB", "PUSHER"] {
            if let Some(key) = variable(&format!("{vendor}_APP_KEY")) {
                return Self::of_laravel(vendor, key, variable).map(Some);
            }
        }
        Ok(None)
    }

    /// As Laravel's config/broadcasting.php reads them. Without a host, it is the server on this machine: `taut serve`
    /// reads the same credentials.
    fn of_laravel(vendor: &str, key: String, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let own = |name: &str| variable(&format!("{vendor}_{name}"));
        let cluster = own("APP_CLUSTER").map(|cluster| format!("api-{cluster}.pusher.com"));
        let host = own("HOST").or(cluster);
        let port = |name: &str| match own(name) {
            Some(text) => text.parse().map(Some).map_err(|_| format!("{vendor}_{name}: this is not a port")),
            None => Ok(None),
        };
        let app = Self { id: own("APP_ID"), key: Some(key), secret: own("APP_SECRET"), ..Self::local() };
        let Some(host) = host else {
            // Each as the server that it is named after listens by default.
            let usual = if vendor == "REVERB" { 8080 } else { app.port };
            return Ok(Self { port: port("SERVER_PORT")?.unwrap_or(usual), ..app });
        };
        let is_tls = own("SCHEME").is_none_or(|scheme| scheme == "https");
        Ok(Self { host, is_tls, port: port("PORT")?.unwrap_or(443), ..app })
    }
}

fn known<'a>(part: Option<&'a String>, name: &str, from: &str) -> Result<&'a str, String> {
    part.map(String::as_str).ok_or_else(|| format!("the app's {name} is not given: see {from} in --help"))
}

fn usual_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

const FORM: &str = "write it as pusher://KEY:SECRET@HOST:PORT/APP_ID, or as ID:KEY:SECRET";

#[cfg(test)]
mod tests {
    use super::*;

    type Environment = &'static [(&'static str, &'static str)];

    fn resolve(arguments: &AppArguments, environment: Environment) -> Result<(App, bool), String> {
        arguments.resolve_from(|name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    /// What an app is made of, as one line.
    fn shown(app: &App) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
        let path = app.path("events").unwrap_or_else(|_| "-".to_owned());
        format!("{} {} {} {}{path}", part(&app.id), part(&app.key), part(&app.secret), app.origin())
    }

    fn of(environment: Environment) -> String {
        resolve(&AppArguments::default(), environment).map_or_else(|wrong| wrong, |(app, _)| shown(&app))
    }

    #[test]
    fn an_app_is_a_url_in_the_forms_that_people_have() {
        for (text, expected) in [
            ("pusher://k:s@a.example:6001/7", "7 k s http://a.example:6001/apps/7/events"),
            ("pushers://k:s@a.example/7", "7 k s https://a.example:443/apps/7/events"),
            ("http://k:s@api-eu.pusher.com/apps/7", "7 k s http://api-eu.pusher.com:80/apps/7/events"),
            ("https://k:s@a.example/realtime/apps/7/", "7 k s https://a.example:443/realtime/apps/7/events"),
            ("pusher://k:p%40ss%3A@[::1]:1/7", "7 k p@ss: http://[::1]:1/apps/7/events"),
            ("pusher://k@a.example", "- k - http://a.example:80-"),
        ] {
            let app = App::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
            assert_eq!(shown(&app), expected, "{text}");
        }
        for text in [
            "",
            "k:s",
            "7::s",
            "7:k:s:t",
            "7:k:s:",
            "ftp://k:s@a/7",
            "pusher://a.example/7",
            "pusher://:s@a/7",
            "pusher://k:s@/7",
        ] {
            assert_eq!(App::parse(text).err(), Some(FORM), "{text}");
        }
    }

    #[test]
    fn the_environment_of_taut_pusher_and_laravel_names_an_app() {
        let taut = ("TAUT_APP_URL", "pusher://tk:ts@t.example:1/1");
        let pusher = ("PUSHER_URL", "http://pk:ps@api-eu.pusher.com/apps/2");
        assert_eq!(of(&[]), "1 app-key app-secret http://127.0.0.1:6001/apps/1/events");
        assert_eq!(
            shown(&App::from_environment(|name| (name == taut.0).then(|| taut.1.into())).unwrap().unwrap()),
            "1 tk ts http://t.example:1/apps/1/events"
        );
        assert_eq!(
            shown(&App::from_environment(|name| (name == pusher.0).then(|| pusher.1.into())).unwrap().unwrap()),
            "2 pk ps http://api-eu.pusher.com:80/apps/2/events"
        );
        for (environment, expected) in [
            (
                &[
                    ("REVERB_APP_ID", "3"),
                    ("REVERB_APP_KEY", "k"),
                    ("REVERB_APP_SECRET", "s"),
                    ("REVERB_HOST", "localhost"),
                    ("REVERB_PORT", "8080"),
                    ("REVERB_SCHEME", "http"),
                    ("PUSHER_APP_KEY", "other"),
                ][..],
                "3 k s http://localhost:8080/apps/3/events",
            ),
            (
                &[("REVERB_APP_ID", "3"), ("REVERB_APP_KEY", "k"), ("REVERB_APP_SECRET", "s")],
                "3 k s http://127.0.0.1:8080/apps/3/events",
            ),
            (
                &[
                    ("PUSHER_APP_ID", "4"),
                    ("PUSHER_APP_KEY", "k"),
                    ("PUSHER_APP_SECRET", "s"),
                    ("PUSHER_HOST", ""),
                    ("PUSHER_APP_CLUSTER", "eu"),
                ],
                "4 k s https://api-eu.pusher.com:443/apps/4/events",
            ),
            (
                &[("PUSHER_APP_ID", "4"), ("PUSHER_APP_KEY", "k"), ("PUSHER_APP_SECRET", "s")],
                "4 k s http://127.0.0.1:6001/apps/4/events",
            ),
            (&[("PUSHER_APP_KEY", "k"), ("PUSHER_HOST", "a"), ("PUSHER_PORT", "x")], "PUSHER_PORT: this is not a port"),
        ] {
            assert_eq!(of(environment), expected);
        }
    }

    #[test]
    fn a_mistake_names_the_variable_and_not_the_secret() {
        let wrong = of(&[("TAUT_APP_URL", "pusher:/k:hunter2@a/7")]);
        assert!(wrong.starts_with("TAUT_APP_URL: write it as") && !wrong.contains("hunter2"), "{wrong}");
    }

    #[test]
    fn a_file_that_is_given_has_to_name_an_app() {
        let arguments = AppArguments { env_file: Some("a/.env".into()), ..Default::default() };
        let wrong = resolve(&arguments, &[("APP_NAME", "shop")]).map(drop).unwrap_err();
        assert!(wrong.starts_with("--env-file: a/.env names no app"), "{wrong}");
        let (app, _) = resolve(&arguments, &[("REVERB_APP_KEY", "k")]).unwrap();
        assert_eq!(app.key(), Ok("k"));
    }

    #[test]
    fn flags_override_parts_of_the_app() {
        let flag = |text: &str| Some(text.to_owned());
        let arguments =
            AppArguments { app_secret: flag("other"), port: Some(9), tls: Some(true), ..Default::default() };
        let (app, _) = resolve(&arguments, &[("TAUT_APP_URL", "pusher://k:s@a.example/7")]).unwrap();
        assert_eq!(shown(&app), "7 k other https://a.example:9/apps/7/events");
        let (app, is_development) = resolve(&arguments, &[]).unwrap();
        assert!(!is_development && app.key().unwrap_err().contains("--app-key"));
        let other_key = AppArguments { app_key: flag("other"), ..Default::default() };
        let (app, is_development) = resolve(&other_key, &[]).unwrap();
        assert!(!is_development && app.secret().unwrap_err().contains("TAUT_APP_URL"));
        let elsewhere = AppArguments { host: flag("a.example"), ..Default::default() };
        let (app, is_development) = resolve(&elsewhere, &[]).unwrap();
        assert!(is_development);
        assert_eq!(shown(&app), "1 app-key app-secret http://a.example:6001/apps/1/events");
    }

    #[test]
    fn a_url_says_whether_there_is_tls_and_whether_the_server_is_on_this_machine() {
        for (url, expected) in [
            ("pusher://k:s@[::1]:6001/7", (false, true)),
            ("https://k:s@localhost:6001/apps/7", (true, true)),
            ("pushers://k:s@a.example/7", (true, false)),
        ] {
            let app = App::parse(url).unwrap();
            assert_eq!((app.is_tls(), app.is_local()), expected, "{url}");
        }
    }

    #[test]
    fn pushers_service_has_another_host_for_websockets() {
        let url = |text: &str| App::parse(text).unwrap().websocket_url().unwrap();
        assert!(url("https://k:s@api-eu.pusher.com/apps/7").starts_with("wss://ws-eu.pusher.com:443/app/k?protocol=7"));
        assert!(url("pusher://k:s@api-x.example:1/p/7").starts_with("ws://api-x.example:1/p/app/k?protocol=7"));
    }
}
