//! docs/configuration.md is made of what the code says about its settings. After a change to them:
//! `UPDATE_DOCS=1 cargo test -p taut-server --test configuration`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use taut_server::config::{APP_FIELDS, Field, SETTINGS, Sources, UPGRADE_FIELDS, WEBHOOK_FIELDS};

#[test]
fn the_page_says_what_the_code_says() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md"));
    let page = page();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).expect("docs/configuration.md");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/configuration.md is not what the code says: UPDATE_DOCS=1 cargo test -p taut-server --test configuration"
    );
}

#[test]
fn the_example_of_the_page_is_a_good_configuration() {
    let path = env::temp_dir().join(format!("taut-example-{}.toml", std::process::id()));
    fs::write(&path, EXAMPLE).expect("a file");
    let config = SETTINGS.iter().find(|setting| setting.name == "config").expect("config");
    let loaded = Sources::new([(config, path.display().to_string())], []).load();
    fs::remove_file(&path).expect("the file");
    let config = loaded.expect("a good example").config;
    assert_eq!((config.apps.len(), config.apps[1].webhooks.len()), (2, 1));
}

fn page() -> String {
    let mut page = format!(
        "{HEAD}\n```toml\n{EXAMPLE}```\n\n{SETTINGS_HEAD}\n| setting | variable | value | default | | changes |\n|---|---|---|---|---|---|\n"
    );
    for setting in SETTINGS {
        let changes = if setting.live { "at once" } else { "at the next start" };
        let several = if setting.repeatable { " (several)" } else { "" };
        let _ = writeln!(
            page,
            "| `{}` | `{}` | {}{several} | {} | {} | {changes} |",
            setting.name,
            setting.environment,
            cell(setting.value),
            code(setting.default),
            cell(setting.help),
        );
    }
    let _ = write!(page, "\n{LIMITS_HEAD}\n");
    let limits: Vec<String> = SETTINGS.iter().filter_map(|setting| Some(format!("`{}`", setting.limit()?))).collect();
    let _ = write!(page, "{}.\n\n{APPS_HEAD}\n", limits.join(", "));
    fields(&mut page, APP_FIELDS);
    let _ = write!(page, "\n## A webhook\n\n");
    fields(&mut page, WEBHOOK_FIELDS);
    let _ = write!(page, "\n{WEBHOOK_TAIL}\n## The upgrade\n\n[auth.md](auth.md) tells what it is for.\n\n");
    fields(&mut page, UPGRADE_FIELDS);
    let _ = write!(page, "\n{TAIL}");
    page
}

fn fields(page: &mut String, fields: &[Field]) {
    let _ = writeln!(page, "| key | value | default | |\n|---|---|---|---|");
    for field in fields {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            field.name,
            cell(field.value),
            code(field.default),
            cell(field.help)
        );
    }
}

fn code(text: &str) -> String {
    if text.is_empty() { "–".to_owned() } else { format!("`{text}`") }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

const HEAD: &str = "\
# Configuration

This page is made of what the program itself says; `taut serve --help` is the same list.

Every setting can be a flag (`--listen`), an environment variable (`TAUT_LISTEN`) or a line of the file that `--config` names. A flag goes before
the variable, the variable before the file, and the file before the default. Apps alone are added up: those of `--app` or `TAUT_APPS`, of the
file, of `--apps-file` and of the database are all served, and no two may share an id or a key.

`taut serve --check` does everything but serve, with the certificate, the address and the data directory as well: it tells every mistake with its place
and what would be right, or what would be served; its exit code is 1 or 0. [running.md](running.md) tells more, and has a unit for systemd.

An empty variable is as if it were not set, unless it is a password or a token. A variable that is almost one of the list below
(`TAUT_LISTN`) is a mistake, any other that begins with `TAUT_` is noted. `env-file` names a file with more of them, such as Laravel's `.env`: [migrating-servers.md](migrating-servers.md#a-env-file).

The development app is served only where nothing says which apps there are: an app that cannot be used, or a file with apps that holds none, is a mistake.

The file, the file of variables and the file with apps are read again when they change, within two seconds, and at SIGHUP. A file with mistakes changes nothing: the log
tells all of them, and the server goes on as it was. What changes at once, and what at the next start, is in the last column below.

In the file, `-` and `_` in names are the same, and what is `on` or `off` can be `true` or `false`.
";

const EXAMPLE: &str = r#"listen = "127.0.0.1:6001"
deflate = true
max-message = "64KiB"

# For all apps that have no limits of their own.
[limits]
connections = 10_000
event-data = "100KiB"

[[apps]]
id = "1"
key = "shop-key"
secret = "change-me"

[[apps]]
id = "2"
keys = [{ key = "forum-2025", secret = "the-old-one" }, { key = "forum-2026", secret = "the-new-one" }]
subscription-count = true
origins = ["https://forum.example.com"]

[apps.limits]
presence-members = 500

[[apps.webhooks]]
url = "https://forum.example.com/hooks/taut"
events = ["channel_occupied", "channel_vacated"]
channel-prefix = "presence-"
headers = { Authorization = "Bearer something" }
"#;

const SETTINGS_HEAD: &str = "\
## Settings

Sizes are in bytes, or in `KiB` or `MiB`; times are in whole seconds. For what a limit does and costs, see the documentation of `taut_server`.
";

const LIMITS_HEAD: &str = "\
## Limits

In the file, limits for all apps can stand in a table `[limits]`, under shorter names. An app may have some of its own in `[apps.limits]`; what it
does not name is as for all apps. The names:
";

const APPS_HEAD: &str = "\
## An app

Each is a table `[[apps]]`.
";

const WEBHOOK_TAIL: &str = "\
A request is tried for five minutes from when it happened, first after half a second and at last once a minute, until it is answered with 2xx. It comes
at least once, and requests come in no promised order. Removals (`channel_vacated`, `member_removed`) are held back for three seconds, and nobody is told
of one that is undone by then.

With `data-directory`, each request is on the disk before it is tried, so that a crash of the server loses none. When the disk fails, or is full,
requests are delivered on, from memory: the log says so once, `taut_webhooks_store_failing` is 1, and every five seconds the disk is tried again. As soon
as it can be written, it gets all that waits, and the log says that as well.

What is lost by a crash is who was there: the channels that were occupied and the members that were in them are known to memory alone, and those that do
not come back get no `channel_vacated` and no `member_removed`. To know of them, each coming and going would have to be written to the disk, even where
nobody wants a webhook for it at that moment. After a crash, a backend that keeps its own count has to ask once, `GET /apps/ID/channels`, some seconds
after the start, when clients have come back. A server that is told to stop closes its clients first, and tells of all of them, or leaves that to its next
run. Without a data directory there is no next run to leave it to: nothing waits for its three seconds then, and the log says how many requests could not be
delivered in time.
";

const TAIL: &str = "\
## The console and the metrics

Where clients connect, nothing is granted by where a request seems to come from: `console-password` opens the console there, and `metrics-token` the metrics;
without them both are closed. `console-listen` and `metrics-listen` serve them on listeners of their own, and a port alone is on 127.0.0.1.
[proxies.md](proxies.md) has a table of what is open where. The development app has a console where it is served: its link, with a token that is made at each
start, is printed to standard output and never logged.

## Shutting down

At SIGTERM `/ready` says 503 at once. Where somebody has asked for it within the last minute, that is all that happens for `drain-notice` seconds: clients
come and are served as before, until the load balancer has taken the server out. Then the server stops listening, closes its clients with 4100, spread
over up to half of `drain-timeout`, answers the requests that are under way, and delivers the webhooks that are due. At Ctrl-C (SIGINT) there is no notice,
and a second signal of either kind ends the process at once. A supervisor has to allow for both times together before it kills: by default that is
25 seconds, and Kubernetes waits for 30.

## Apps in a database

`apps-database` names a database of SQLite (compiled in), PostgreSQL, MySQL or MariaDB, and `apps-table` a table there. The table is read whole at
the start, every `apps-reload` seconds, and at SIGHUP. It is only read: Taut makes neither a database nor a table, and needs no more than the right
to `SELECT`. A database that does not answer when the server starts is a mistake; later, the apps that are known are served on, and the log says so.
A row that is no app is told in the log; if it was one before, that is served on as it was. So is an app whose webhooks cannot be used any more; one that
is new is served without them.

The connection is by TLS if the database offers that, and then whoever answers is taken for the database. Across a network that others are in, let the
URL end with `?sslmode=verify-full` (PostgreSQL) or `?ssl-mode=VERIFY_IDENTITY` (MySQL and MariaDB): nothing is said without TLS, nor to a server without a
certificate that the system trusts. `?sslrootcert=FILE` and `?ssl-ca=FILE` name an authority of one's own.

The table is one that soketi uses, with one column of Taut's own. `id`, `key` and `secret` have to be there, and all else may be missing or null. In a
table with a column that begins with `max_` or `enable_` that means what it meant to [soketi](migrating-servers.md#soketi): clients send no events, for
instance. In any other it means what a file means that says nothing.

| column | is |
|---|---|
| `id`, `key`, `secret` | who the app is |
| `enabled` | `enabled` |
| `enable_client_messages` | `client-events` |
| `enable_user_authentication` | true is an `authorization-timeout` of 30 seconds |
| `max_connections` | the limit `connections`; below zero: none |
| `max_client_events_per_sec` | the limit `client-events`; below zero: 1,000,000 |
| `max_presence_members_per_channel`, `max_presence_member_size_in_kb` | the limits `presence-members` and `presence-member` |
| `max_channel_name_length`, `max_event_name_length` | the limits `channel-name` and `event-name` |
| `max_event_channels_at_once`, `max_event_payload_in_kb`, `max_event_batch_size` | the limits `publish-channels`, `event-data` and `batch` |
| `webhooks` | a list in JSON of objects with `url`, `event_types`, `headers`, and `filter` with `channel_name_starts_with` and `channel_name_ends_with` |
| `max_backend_events_per_sec`, `max_read_req_per_sec` | nothing: what backends ask is not limited per second; the log says so where it was |
| `options` | an object in JSON with the keys of an app's table in the file, as far as they are not who it is: `{\"watchlist\": true, \"limits\": {\"batch\": 50}}` |

A table for a start:

```sql
CREATE TABLE apps (id varchar(255) PRIMARY KEY, \"key\" varchar(255) NOT NULL, secret varchar(255) NOT NULL, enabled smallint, options text);
```

## Traces

A program that was built with `--features otel` sends traces by OpenTelemetry where the standard variables (`OTEL_…`) say where to;
[traces.md](traces.md) has what is traced and which variables there are. They are no settings of Taut's: neither flags nor the file have them.

## Variables of other servers

Where Taut takes the place of soketi, of Reverb or of a program that was told `PUSHER_APP_ID`, `PUSHER_APP_KEY` and `PUSHER_APP_SECRET`, it reads their
variables. Whatever Taut is told by its own names goes before them, and an app of theirs is served only if no other is named. The log says at the start
which were used, which were not, and why. [migrating-servers.md](migrating-servers.md) has all of them, with what holds where nothing is said.

`SOKETI_METRICS_ENABLED` is `metrics-listen` at the port of `SOKETI_METRICS_SERVER_PORT`, or 9601. soketi opens its metrics to everybody who can reach that
port; here they are on 127.0.0.1, unless `SOKETI_METRICS_HOST` names another address. `TAUT_METRICS_LISTEN=0.0.0.0:9601` opens them to others, for instance
in a container, and `TAUT_METRICS_TOKEN` only to those who have the token.
";
