//! Another server's configuration, written down as one for Taut.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::apps::PartialApp;
use super::{compat, soketi, text};

/// What became of another server's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// A configuration file for Taut. What has no counterpart is in its comments, with its value.
    pub toml: String,
    /// What has no counterpart and was asked for, in words and without values, since those may be secret.
    pub warnings: Vec<String>,
}

/// Turns a configuration of soketi, in JSON, into one for Taut. Its keys may be nested (`{"a": {"b": 1}}`) or dotted (`{"a.b": 1}`).
///
/// # Errors
/// When it is no object in JSON, with the place.
pub fn import_soketi(json: &str) -> Result<Imported, String> {
    let parsed: Json = serde_json::from_str(json)
        .map_err(|error| format!("this is no JSON (line {}, column {})", error.line(), error.column()))?;
    let Json::Object(object) = parsed else {
        return Err("this is no configuration of soketi: it has to be an object in JSON".to_owned());
    };
    let mut tree = Json::Object(Map::new());
    for (name, value) in object {
        plant(&mut tree, &name, value);
    }
    let mut writer = Writer::default();
    let apps = take(&mut tree, "appManager.array.apps");
    writer.settings(&mut tree);
    let mut rest = Vec::new();
    leaves("", &tree, &mut rest);
    writer.rest(&rest);
    for app in elements(apps) {
        writer.app(app);
    }
    let mut toml = "# Made by `taut import` of a configuration of soketi.\n\n".to_owned();
    toml.push_str(&writer.top);
    if !writer.names_apps {
        // Without it, the development app would be served.
        toml.push_str("# No app could be taken over. Name one below, and take this line out.\napps = []\n");
        writer
            .warnings
            .push("apps: there is none that could be taken over, and none is served until one is named".to_owned());
    }
    toml.push_str(&writer.comments);
    toml.push_str(&writer.apps);
    Ok(Imported { toml, warnings: writer.warnings })
}

#[derive(Debug, Default)]
struct Writer {
    top: String,
    comments: String,
    apps: String,
    warnings: Vec<String>,
    /// Settings that are written already.
    given: Vec<&'static str>,
    names_apps: bool,
}

impl Writer {
    fn settings(&mut self, tree: &mut Json) {
        let host = take(tree, "host")
            .and_then(|host| host.as_str().map(str::to_owned))
            .unwrap_or_else(|| "0.0.0.0".to_owned());
        let port = take(tree, "port").map_or_else(|| "6001".to_owned(), |port| scalar(&port));
        match compat::listen(&host, &port).and_then(|listen| text::listen_address(&listen)) {
            Ok(listen) => self.set("listen", &listen.to_string()),
            Err(reason) => self.lost("host and port", &Json::String(format!("{host}:{port}")), &reason),
        }
        for &(path, setting, convert) in PATHS {
            let Some(value) = take(tree, path) else { continue };
            match convert(&scalar(&value)) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => self.set(setting, &text),
                Err(reason) => self.lost(path, &value, &reason),
            }
        }
        self.metrics(tree);
        for &(name, text) in soketi::SERVER_DEFAULTS {
            // Whatever `listen` is, it has been dealt with.
            if name != "listen" && !self.given.contains(&name) {
                self.set(name, text);
            }
        }
        self.database(tree);
        self.cluster(tree);
    }

    /// Nodes that share a Redis server are a cluster.
    fn cluster(&mut self, tree: &mut Json) {
        let Some(driver) = take(tree, "adapter.driver") else { return };
        match driver.as_str() {
            Some("local") => return,
            Some("redis") => {}
            _ => {
                let reason = "one process uses all cores, and several share a Redis server: redis is understood";
                return self.lost("adapter.driver", &driver, reason);
            }
        }
        let mut given = |path: &str| take(tree, path).filter(|value| !is_nothing(value));
        for path in ["database.redis.sentinels", "database.redis.clusterNodes", "adapter.redis.clusterMode"] {
            if given(path).is_some() {
                let reason = format!(
                    "{path} asks for Sentinel or Redis Cluster: write the sentinels as cluster = redis+sentinel://HOST:PORT,HOST:PORT/MASTER, or servers of the Redis Cluster as redis://HOST:PORT,HOST:PORT"
                );
                return self.lost("adapter.driver", &driver, &reason);
            }
        }
        let mut text = |path: &str| given(path).map(|value| scalar(&value));
        let [host, port, database, user, password] =
            ["host", "port", "db", "username", "password"].map(|name| text(&format!("database.redis.{name}")));
        let prefix = text("adapter.redis.prefix").or_else(|| text("database.redis.keyPrefix"));
        let redis = compat::Redis {
            url: None,
            host: host.as_deref(),
            port: port.as_deref(),
            database: database.as_deref(),
            user: user.as_deref(),
            password: password.as_deref(),
        };
        self.set("cluster", &redis.url());
        if let Some(prefix) = prefix {
            self.set("cluster-prefix", &prefix);
        }
    }

    fn metrics(&mut self, tree: &mut Json) {
        let [enabled, host, port] = ["metrics.enabled", "metrics.host", "metrics.port"].map(|path| take(tree, path));
        match enabled.as_ref().map_or(Ok(false), |enabled| text::truth(&scalar(enabled))) {
            Ok(true) => {}
            Ok(false) => return,
            Err(reason) => return self.lost("metrics.enabled", &enabled.unwrap_or_default(), &reason),
        }
        let [host, port] = [host, port].map(|value| value.map(|value| (scalar(&value), value)));
        let text = |value: &Option<(String, Json)>| value.as_ref().map(|(text, _)| text.clone());
        let (listen, problems) = soketi::metrics_listen(text(&host).as_deref(), text(&port).as_deref());
        for (part, reason) in problems {
            let (path, value) = if part == "host" { ("metrics.host", &host) } else { ("metrics.port", &port) };
            self.lost(path, &value.clone().unwrap_or_default().1, &reason);
        }
        self.set("metrics-listen", &listen.to_string());
        self.warnings.push(format!("metrics.enabled: {}", soketi::who_reads_metrics(listen)));
    }

    fn database(&mut self, tree: &mut Json) {
        let Some(driver) = take(tree, "appManager.driver") else { return };
        let kind = match driver.as_str() {
            Some("array") => return,
            Some(kind @ ("mysql" | "postgres")) => kind,
            _ => {
                return self.lost(
                    "appManager.driver",
                    &driver,
                    "apps are in the file, or in a table of SQLite, PostgreSQL or MySQL",
                );
            }
        };
        let mut given = |name: &str| take(tree, &format!("database.{kind}.{name}")).map(|value| scalar(&value));
        let [host, port, user, password, database] = ["host", "port", "user", "password", "database"].map(&mut given);
        let url = soketi::database_url(
            kind,
            host.as_deref(),
            port.as_deref(),
            user.as_deref(),
            password.as_deref(),
            database.as_deref(),
        );
        self.names_apps = true;
        self.set("apps-database", &url);
        if let Some(table) = take(tree, &format!("appManager.{kind}.table")) {
            self.set("apps-table", &scalar(&table));
        }
    }

    /// Everything that is left.
    fn rest(&mut self, rest: &[(String, &Json)]) {
        for (path, value) in rest {
            let reason = NO_COUNTERPART.iter().find(|(prefix, _)| path.starts_with(prefix));
            self.lost(path, value, reason.map_or("there is nothing like it here", |(_, reason)| reason));
        }
    }

    fn app(&mut self, app: Json) {
        let Json::Object(mut app) = app else {
            return self.lost("appManager.array.apps", &app, "an app is an object");
        };
        let fields: Map<String, Json> = app.iter().map(|(name, value)| (snake(name), value.clone())).collect();
        let read = soketi::app(|name| fields.get(name).filter(|value| !value.is_null()).map(scalar), soketi::prepare);
        let soketi::Read { draft, problems, notes } = match read {
            Ok(read) => read,
            Err(reason) => return self.lost("an app", &Json::Object(app), &reason),
        };
        self.names_apps = true;
        self.apps.push_str("\n[[apps]]\n");
        for problem in problems.iter().chain(&notes) {
            self.warnings.push(format!("app {:?}: {problem}", draft.app.id));
            let _ = writeln!(self.apps, "# {}", problem.replace('\n', " "));
        }
        let lost_webhooks = problems.iter().any(|problem| problem.starts_with("webhooks"));
        app.retain(|name, value| {
            let name = snake(name);
            let is_used =
                KNOWN_FIELDS.contains(&name.as_str()) && !problems.iter().any(|problem| problem.starts_with(&name));
            let is_plain = value.is_null() || (name == "webhooks" && !lost_webhooks);
            !is_used && !is_plain
        });
        for (name, value) in &app {
            let _ = writeln!(self.apps, "# not used: {name} = {value}");
            if !KNOWN_FIELDS.contains(&snake(name).as_str()) {
                self.warnings.push(format!("app {:?}: {name} has no counterpart", draft.app.id));
            }
        }
        write_app(&mut self.apps, &draft);
    }

    fn set(&mut self, name: &'static str, text: &str) {
        self.given.push(name);
        let _ = writeln!(self.top, "{name} = {}", value(text));
    }

    fn lost(&mut self, path: &str, value: &Json, reason: &str) {
        let _ = writeln!(self.comments, "# not used: {path} = {value}\n#   {}", reason.replace('\n', " "));
        self.warnings.push(format!("{path}: {reason}"));
    }
}

fn write_app(toml: &mut String, draft: &PartialApp) {
    let app = &draft.app;
    let mut line = |name: &str, text: String| {
        let _ = writeln!(toml, "{name} = {text}");
    };
    line("id", quoted(&app.id));
    line("key", quoted(&app.key().key));
    line("secret", quoted(app.key().secret.reveal()));
    if !app.enabled {
        line("enabled", "false".to_owned());
    }
    line("client-events", app.features.client_events.to_string());
    line(
        "subscription-count",
        if app.features.subscription_count_in_info {
            quoted("info")
        } else {
            app.features.subscription_count.to_string()
        },
    );
    if !app.features.authorization_timeout.is_zero() {
        line("authorization-timeout", app.features.authorization_timeout.as_secs().to_string());
    }
    if !draft.own_limits().is_empty() {
        toml.push_str("\n[apps.limits]\n");
        for (name, text) in draft.own_limits() {
            let _ = writeln!(toml, "{name} = {}", value(text));
        }
    }
    for webhook in &app.webhooks {
        let _ = writeln!(toml, "\n[[apps.webhooks]]\nurl = {}", quoted(&webhook.url));
        let events: Vec<String> = webhook.events.iter().map(|event| quoted(event.name())).collect();
        let _ = writeln!(toml, "events = [{}]", events.join(", "));
        for (name, text) in [("channel-prefix", &webhook.channel_prefix), ("channel-suffix", &webhook.channel_suffix)] {
            if !text.is_empty() {
                let _ = writeln!(toml, "{name} = {}", quoted(text));
            }
        }
        if !webhook.headers.is_empty() {
            let headers: Vec<String> =
                webhook.headers.iter().map(|(name, text)| format!("{} = {}", quoted(name), quoted(text))).collect();
            let _ = writeln!(toml, "headers = {{ {} }}", headers.join(", "));
        }
    }
}

/// Puts a value where its dotted name says.
fn plant(tree: &mut Json, path: &str, value: Json) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    if !tree.is_object() {
        // A list, of which single elements are named as well: by their numbers.
        let elements = elements(Some(tree.take()));
        *tree = Json::Object(
            (0..).zip(elements).map(|(number, element): (usize, _)| (number.to_string(), element)).collect(),
        );
    }
    let Json::Object(object) = tree else { return };
    let place = object.entry(first).or_insert(Json::Null);
    match (rest, value) {
        (Some(rest), value) => plant(place, rest, value),
        (None, Json::Object(inner)) if place.is_object() || place.is_null() => {
            if place.is_null() {
                *place = Json::Object(Map::new());
            }
            for (name, value) in inner {
                plant(place, &name, value);
            }
        }
        (None, value) => *place = value,
    }
}

/// Takes a value out of the tree.
fn take(tree: &mut Json, path: &str) -> Option<Json> {
    let (folders, name) = path.rsplit_once('.').map_or((None, path), |(folders, name)| (Some(folders), name));
    let mut at = tree;
    for folder in folders.into_iter().flat_map(|folders| folders.split('.')) {
        at = at.get_mut(folder)?;
    }
    at.as_object_mut()?.remove(name).filter(|value| !value.is_null())
}

fn leaves<'j>(path: &str, tree: &'j Json, found: &mut Vec<(String, &'j Json)>) {
    let Json::Object(object) = tree else {
        found.push((path.to_owned(), tree));
        return;
    };
    for (name, value) in object {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        leaves(&path, value, found);
    }
}

fn elements(value: Option<Json>) -> Vec<Json> {
    match value {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::Array(elements)) => elements,
        // Elements that were named by their numbers.
        Some(Json::Object(elements)) if elements.keys().all(|name| name.parse::<usize>().is_ok()) => {
            elements.into_iter().map(|(_, element)| element).collect()
        }
        Some(other) => vec![other],
    }
}

fn scalar(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `maxConnections` and `MaxConnections` are `max_connections`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    match snake.as_str() {
        "max_backend_events_per_second" => "max_backend_events_per_sec".to_owned(),
        "max_client_events_per_second" => "max_client_events_per_sec".to_owned(),
        "max_read_requests_per_second" => "max_read_req_per_sec".to_owned(),
        "app_id" => "id".to_owned(),
        "app_key" => "key".to_owned(),
        "app_secret" => "secret".to_owned(),
        _ => snake,
    }
}

fn value(text: &str) -> String {
    match text {
        "on" => "true".to_owned(),
        "off" => "false".to_owned(),
        _ if !text.is_empty()
            && text.len() < 18
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && !text.starts_with('0') =>
        {
            text.to_owned()
        }
        "0" => text.to_owned(),
        _ => quoted(text),
    }
}

/// What JSON escapes, TOML escapes in the same way, except for one character.
fn quoted(text: &str) -> String {
    Json::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// What stands for a value that is not set.
fn is_nothing(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => true,
        Json::String(text) => text.is_empty(),
        Json::Array(elements) => elements.is_empty(),
        Json::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

type Convert = fn(&str) -> Result<String, String>;

const PATHS: &[(&str, &str, Convert)] = &[
    ("pathPrefix", "path-prefix", text::prefix),
    ("ssl.certPath", "tls-certificate", SAME),
    ("ssl.keyPath", "tls-key", SAME),
    ("debug", "log-level", |value| text::truth(value).map(|on| if on { "debug" } else { "" }.to_owned())),
    ("channelLimits.maxNameLength", "max-channel-name", SAME),
    ("channelLimits.cacheTtl", "cache-ttl", SAME),
    ("eventLimits.maxBatchSize", "max-batch", SAME),
    ("eventLimits.maxChannelsAtOnce", "max-publish-channels", SAME),
    ("eventLimits.maxNameLength", "max-event-name", SAME),
    ("eventLimits.maxPayloadInKb", "max-event-data", soketi::kilobytes),
    ("presence.maxMembersPerChannel", "max-presence-members", SAME),
    ("presence.maxMemberSizeInKb", "max-presence-member", soketi::kilobytes),
    ("shutdownGracePeriod", "drain-timeout", |value| {
        text::number(value, 1, 86_400_000).map(|milliseconds| milliseconds.div_ceil(1000).to_string())
    }),
];

const NO_COUNTERPART: &[(&str, &str)] = &[
    ("adapter", "it belongs to an adapter that is not in use"),
    ("cluster", "one process uses all cores"),
    ("queue", "webhooks wait in data-directory"),
    ("cache", "cache channels are kept in memory"),
    ("rateLimiter", "limits are counted in memory"),
    ("appManager.cache", "all apps of a database are in memory, and read again every apps-reload seconds"),
    ("appManager", "it belongs to a driver that is not in use here"),
    ("database", "it belongs to a driver that is not in use here"),
    ("metrics", "the metrics are for Prometheus, and their names begin with taut_"),
    ("ssl", "TLS takes a certificate and its key without a passphrase"),
    ("webhooks", "each webhook says for itself whether it is batched"),
    ("userAuthenticationTimeout", "each app says it for itself: authorization-timeout"),
    ("cors", "pages of all origins may ask, and each app says with origins which may connect"),
];

const KNOWN_FIELDS: [&str; 18] = [
    "id",
    "key",
    "secret",
    "enabled",
    "enable_client_messages",
    "enable_user_authentication",
    "max_connections",
    "max_client_events_per_sec",
    "max_presence_members_per_channel",
    "max_presence_member_size_in_kb",
    "max_channel_name_length",
    "max_event_channels_at_once",
    "max_event_name_length",
    "max_event_payload_in_kb",
    "max_event_batch_size",
    "max_backend_events_per_sec",
    "max_read_req_per_sec",
    "webhooks",
];

const SAME: Convert = |value| Ok(value.to_owned());

#[cfg(test)]
mod tests {
    use super::super::{Config, SETTINGS, Sources};
    use super::*;

    fn load(name: &str, toml: &str) -> Config {
        let path = std::env::temp_dir().join(format!("taut-import-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, toml).expect("a file");
        let setting = SETTINGS.iter().find(|setting| setting.name == "config").expect("config");
        let loaded = Sources::new([(setting, path.display().to_string())], []).load();
        std::fs::remove_file(&path).expect("the file");
        loaded.unwrap_or_else(|error| panic!("{error}\n{toml}")).config
    }

    #[test]
    fn nested_and_dotted_keys_give_the_same_configuration() {
        let nested = r#"{"host": "127.0.0.1", "port": 7001, "debug": true, "eventLimits": {"maxPayloadInKb": 50, "maxBatchSize": "20"},
            "appManager": {"driver": "array", "array": {"apps": [{"id": "1", "key": "a", "secret": "s\"x", "maxConnections": 100,
            "enableClientMessages": true, "maxClientEventsPerSecond": -1, "maxEventPayloadInKb": 0.5,
            "webhooks": [{"url": "https://example.com/", "event_types": ["cache_miss"], "filter": {"channel_name_ends_with": "-x"},
            "headers": {"X-Token": "t"}}]}]}}}"#;
        let dotted = r#"{"host": "127.0.0.1", "port": 7001, "debug": true, "eventLimits.maxPayloadInKb": 50, "eventLimits.maxBatchSize": "20",
            "appManager.driver": "array", "appManager.array.apps.0.id": "1", "appManager.array.apps.0.key": "a",
            "appManager.array.apps.0": {"secret": "s\"x", "maxConnections": 100, "enableClientMessages": true,
            "maxClientEventsPerSecond": -1, "maxEventPayloadInKb": 0.5,
            "webhooks": [{"url": "https://example.com/", "event_types": ["cache_miss"], "filter": {"channel_name_ends_with": "-x"},
            "headers": {"X-Token": "t"}}]}}"#;
        let imported = import_soketi(nested).expect("nested");
        assert_eq!(imported.warnings, Vec::<String>::new());
        assert_eq!(import_soketi(dotted).expect("dotted"), imported);
        let config = load("nested", &imported.toml);
        assert_eq!((config.listen.to_string().as_str(), config.log_level.as_str()), ("127.0.0.1:7001", "debug"));
        assert_eq!((config.limits.event_data, config.limits.batch), (50 << 10, 20));
        let app = &config.apps[0];
        assert_eq!((app.key().secret.reveal(), app.features.client_events), ("s\"x", true));
        let limits = app.limits.expect("its own");
        assert_eq!((limits.connections, limits.client_events, limits.event_data), (100, 1_000_000, 512));
        assert_eq!((app.webhooks[0].channel_suffix.as_str(), app.webhooks[0].headers.len()), ("-x", 1));
    }

    #[test]
    fn metrics_move_to_a_listener_of_their_own_on_this_machine_unless_a_host_is_named() {
        for (metrics, listen, told) in [
            (r#"{"enabled": true}"#, Some("127.0.0.1:9601"), "TAUT_METRICS_LISTEN=0.0.0.0:9601"),
            (r#"{"enabled": true, "port": 9000}"#, Some("127.0.0.1:9000"), "TAUT_METRICS_LISTEN=0.0.0.0:9000"),
            (r#"{"enabled": "1", "host": "0.0.0.0"}"#, Some("0.0.0.0:9601"), "metrics-token"),
            (r#"{"enabled": true, "port": "many"}"#, Some("127.0.0.1:9601"), "metrics.port: \"many\" is not a port"),
            (r#"{"enabled": false, "host": "0.0.0.0", "port": 9601}"#, None, ""),
            (r#"{"port": 9601}"#, None, ""),
        ] {
            let imported = import_soketi(&format!(r#"{{"host": "127.0.0.1", "metrics": {metrics}, "appManager.array.apps": [{{"id": "1", "key": "a", "secret": "x"}}]}}"#)).expect("JSON");
            let config = load("metrics", &imported.toml);
            let found = config.metrics_listen.map(|address| address.to_string());
            assert_eq!((found.as_deref(), config.metrics_token), (listen, None), "{metrics}");
            let warnings = imported.warnings.join("\n");
            assert!(warnings.contains(told) && warnings.is_empty() == told.is_empty(), "{metrics}: {warnings}");
        }
    }

    #[test]
    fn what_has_no_counterpart_is_kept_in_comments_and_told_without_its_value() {
        let imported = import_soketi(
            r#"{"host": "127.0.0.1", "adapter.driver": "nats", "database.redis.password": "hunter2", "colour": {"dark": [1, 2]},
            "ssl": {"passphrase": "hunter2"}, "appManager.array.apps": [{"id": "1", "key": "a", "secret": "x", "theme": "red",
            "maxReadRequestsPerSecond": 5, "webhooks": [{"lambda_function": "f", "event_types": ["cache_miss"]}]}, {"id": "2"}]}"#,
        )
        .expect("JSON");
        for kept in [
            "# not used: adapter.driver = \"nats\"",
            "# not used: database.redis.password = \"hunter2\"",
            "# not used: colour.dark = [1,2]",
            "# not used: ssl.passphrase = \"hunter2\"",
            "# not used: theme = \"red\"",
            "# not used: maxReadRequestsPerSecond = 5",
            "\"lambda_function\":\"f\"",
            "# not used: an app = {\"id\":\"2\"}",
        ] {
            assert!(imported.toml.contains(kept), "{kept}\n{}", imported.toml);
        }
        let warnings = imported.warnings.join("\n");
        assert!(warnings.contains("Lambda") && warnings.contains("theme has no counterpart"), "{warnings}");
        assert!(!warnings.contains("hunter2"), "{warnings}");
        assert_eq!(load("comments", &imported.toml).apps.len(), 1);
    }

    #[test]
    fn a_redis_server_that_nodes_share_is_that_of_a_cluster() {
        let import = |adapter: &str| {
            let json = format!(
                r#"{{"host": "127.0.0.1", "appManager.array.apps": [{{"id": "1", "key": "a", "secret": "x"}}], {adapter}}}"#
            );
            let imported = import_soketi(&json).expect("JSON");
            let config = load("cluster", &imported.toml);
            (
                config.cluster.as_ref().map(|url| url.reveal().to_owned()),
                config.cluster_prefix,
                imported.warnings.join("\n"),
            )
        };
        let url = |url: &str| Some(url.to_owned());
        let none = (None, "taut".to_owned(), String::new());
        assert_eq!(import(r#""adapter.driver": "local""#), none);
        let (found, prefix, warnings) = import(r#""adapter.driver": "redis""#);
        assert_eq!((found, prefix.as_str(), warnings.as_str()), (url("redis://127.0.0.1:6379/0"), "taut", ""));
        let (found, prefix, warnings) = import(
            r#""adapter": {"driver": "redis", "redis": {"prefix": "shop", "clusterMode": false}}, "database": {"redis":
            {"host": "redis", "port": 6380, "db": 2, "username": "me", "password": "p@ss", "keyPrefix": "keys", "sentinels": null}}"#,
        );
        assert_eq!((found, prefix.as_str()), (url("redis://me:p%40ss@redis:6380/2"), "shop"));
        assert_eq!(warnings, "database.redis.keyPrefix: it belongs to a driver that is not in use here");
        let (found, _, warnings) =
            import(r#""adapter.driver": "redis", "database.redis.sentinels": [{"host": "a", "port": 26379}]"#);
        assert!(
            found.is_none() && warnings.contains("asks for Sentinel or Redis Cluster: write the sentinels as cluster"),
            "{warnings}"
        );
    }

    #[test]
    fn what_soketi_is_not_told_is_as_it_is_there() {
        let json = r#"{"host": "127.0.0.1", "appManager.array.apps": [{"id": "1", "key": "a", "secret": "x"}]}"#;
        let config = load("defaults", &import_soketi(json).expect("JSON").toml);
        assert_eq!(config.limits.cache_ttl.as_secs(), 3600);
        assert_eq!((config.activity_timeout.as_secs(), config.message), (30, 256 << 10));
        let app = &config.apps[0];
        assert!(!app.features.client_events && app.features.subscription_count_in_info);
        assert_eq!(app.limits.expect("its own").client_events, 1_000_000);
        let told =
            r#"{"channelLimits": {"cacheTtl": 7}, "appManager.array.apps": [{"id": "1", "key": "a", "secret": "x"}]}"#;
        assert_eq!(load("told", &import_soketi(told).expect("JSON").toml).limits.cache_ttl.as_secs(), 7);
    }

    #[test]
    fn where_no_app_is_taken_over_none_is_served() {
        for (name, json) in [
            ("none", r#"{"host": "127.0.0.1"}"#),
            ("lost", r#"{"host": "127.0.0.1", "appManager.array.apps": [{"id": "1", "key": "a/b", "secret": "x"}]}"#),
            ("dynamo", r#"{"host": "127.0.0.1", "appManager.driver": "dynamodb"}"#),
        ] {
            let imported = import_soketi(json).expect("JSON");
            assert!(
                imported.warnings.iter().any(|warning| warning.starts_with("apps: there is none")),
                "{:?}",
                imported.warnings
            );
            let path = std::env::temp_dir().join(format!("taut-import-{}-{name}.toml", std::process::id()));
            std::fs::write(&path, &imported.toml).expect("a file");
            let setting = SETTINGS.iter().find(|setting| setting.name == "config").expect("config");
            let refused = Sources::new([(setting, path.display().to_string())], []).load().map(drop);
            std::fs::remove_file(&path).expect("the file");
            let refused = refused.expect_err(name).to_string();
            assert!(refused.contains("apps is empty"), "{refused}");
        }
    }

    #[cfg(feature = "database")]
    #[test]
    fn a_database_becomes_its_url() {
        let imported = import_soketi(
            r#"{"host": "127.0.0.1", "appManager": {"driver": "postgres", "postgres": {"table": "clients"}},
            "database": {"postgres": {"host": "db", "user": "me", "password": "a/b@c"}}}"#,
        )
        .expect("JSON");
        assert!(imported.warnings.is_empty(), "{:?}", imported.warnings);
        let config = load("database", &imported.toml);
        assert_eq!(config.apps_database.expect("a database").reveal(), "postgres://me:a%2Fb%40c@db:5432/main");
        assert_eq!(config.apps_table, "clients");
        assert!(import_soketi("[]").is_err() && import_soketi("{").is_err());
    }
}
