//! docs/configuration.md is made of what the code says about its settings. After a change to them:
//! `UPDATE_DOCS=1 cargo test -p taut-server --test configuration`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use taut_server::config::{APP_FIELDS, Field, ROUTE_FIELDS, SETTINGS, Sources, UPGRADE_FIELDS, WEBHOOK_FIELDS};

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
    let _ = write!(page, "{}.\n\n{CLUSTER}\n{APPS_HEAD}\n", limits.join(", "));
    fields(&mut page, APP_FIELDS);
    let _ = write!(page, "\n## A webhook\n\n");
    fields(&mut page, WEBHOOK_FIELDS);
    let _ = write!(page, "\n{WEBHOOK_TAIL}\n## The upgrade\n\n[auth.md](auth.md) tells what it is for.\n\n");
    fields(&mut page, UPGRADE_FIELDS);
    let _ = write!(page, "\n## A route\n\n[routes.md](routes.md) tells what it is for.\n\n");
    fields(&mut page, ROUTE_FIELDS);
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

This page is generated from the program; `taut serve --help` has the same list.

Every setting can be a flag (`--listen`), an environment variable (`TAUT_LISTEN`) or a line in the file that `--config` names. Flags override
variables, variables override the file, and the file overrides the defaults. Apps are added up instead: Taut serves those of `--app` or `TAUT_APPS`,
of the file, of `--apps-file` and of the database. No two may share an id or a key.

`taut serve --check` does everything except serve, including the certificate, the address and the data directory. It prints what would be served, or
every mistake with its place and what would be right; its exit code is 0 or 1. [deploy.md](deploy.md#before-a-change) tells more.

An empty variable counts as unset, unless it is a password or a token. A misspelled variable (`TAUT_LISTN`) is a mistake; any other unknown one that
begins with `TAUT_` is noted. `env-file` names a file with more variables, such as Laravel's `.env`: [migrating-servers.md](migrating-servers.md#a-env-file).

Taut serves the development app only if nothing says which apps there are. An app that cannot be used, or a file that should hold apps and does not, is
a mistake.

The file, the file of variables and the file with apps are read again within two seconds of a change, and at SIGHUP. A file with mistakes changes
nothing: the log names all of them, and the server goes on as before. The last column below says which settings take effect at once, and which at the
next start.

In the file, `-` and `_` in names are the same, and `on` or `off` can be written as `true` or `false`.
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

Sizes are in bytes, or in `KiB` or `MiB`; times are in whole seconds. The documentation of `taut_server` says what each limit does and costs.
";

const LIMITS_HEAD: &str = "\
## Limits

In the file, limits for all apps can stand in a table `[limits]`, under shorter names. `[apps.limits]` overrides them for one app. The names:
";

const CLUSTER: &str = "\
## A cluster

In the file, the settings of a cluster can stand in a table `[cluster]`: `url` is the setting `cluster`, and the others leave out `cluster-`, as in
`lease = 5`.
";

const APPS_HEAD: &str = "\
## An app

Each is a table `[[apps]]`.
";

const WEBHOOK_TAIL: &str = "\
Taut sends a request until it is answered with 2xx, for up to five minutes after the event: first after half a second, at last once a minute. It is
delivered at least once, and requests may arrive in any order. Removals (`channel_vacated`, `member_removed`) are held back for three seconds; one that is
undone by then is not sent. The time of a `presence-grace` counts towards the three seconds.

With `data-directory`, each request is on the disk before it is tried, so a crash of the server loses none. If the disk fails or is full, requests are
still delivered, from memory: the log says so once, `taut_webhooks_store_failing` is 1, and the disk is tried again every five seconds. Once it can be
written, it gets everything that waits, and the log says that too.

A crash loses who was there: occupied channels and their members are kept in memory only, and those that do not come back get no `channel_vacated` and
no `member_removed`. Keeping them would mean a write to the disk for each subscription, even where nobody wants a webhook for it. After a crash, a backend
that keeps its own count should ask once, `GET /apps/ID/channels`, some seconds after the start, when clients have come back. A server that is told to stop
closes its clients first and reports all of them, or leaves that to its next run. Without a data directory there is no next run to leave it to: nothing
waits for its three seconds then, and the log says how many requests could not be delivered in time.
";

const TAIL: &str = "\
## The console and the metrics

On the port where clients connect, the address of a request grants nothing: `console-password` opens the console there, and `metrics-token` the metrics.
Without them both are closed. `console-listen` and `metrics-listen` serve them on separate listeners, and a port alone means 127.0.0.1.
[proxies.md](proxies.md) has a table of what is open where. The development app has its console on the clients' port: the link, with a token that is made at
each start, is printed to standard output and never logged.

## Shutting down

At SIGTERM `/ready` returns 503 at once. If somebody asked for it within the last minute, nothing else happens for `drain-notice` seconds: clients come and
are served as before, until the load balancer has taken the server out. Then the server stops listening, closes its clients with 4100, spread over up to half
of `drain-timeout`, answers the requests in progress, and delivers the webhooks that are due. Ctrl-C (SIGINT) skips the notice, and a second signal of either
kind ends the process at once. A supervisor must allow for both times together before it kills: 25 seconds by default, and Kubernetes waits for 30.

## Apps in a database

`apps-database` names a database of SQLite (compiled in), PostgreSQL, MySQL or MariaDB, and `apps-table` a table in it. Taut reads the whole table at the
start, every `apps-reload` seconds, and at SIGHUP. It only reads: it creates neither a database nor a table, and needs only the right to `SELECT`. A
database that does not answer at the start is a mistake; later, Taut goes on serving the apps it knows, and the log says so. A row that is not a valid app is
logged; if it was valid before, the earlier app is still served. The same holds for an app whose webhooks can no longer be used; a new one is served without
them.

The connection uses TLS if the database offers it, and does not check who answers. Across a network that others can reach, end the URL with
`?sslmode=verify-full` (PostgreSQL) or `?ssl-mode=VERIFY_IDENTITY` (MySQL and MariaDB): then nothing is sent without TLS, nor to a server without a
certificate that the system trusts. `?sslrootcert=FILE` and `?ssl-ca=FILE` name your own certificate authority.

The table is the one of soketi, with one column of Taut's. `id`, `key` and `secret` are required; all else may be missing or null. If the table has a
column that begins with `max_` or `enable_`, missing values mean what they mean to [soketi](migrating-servers.md#soketi): clients send no events, for
instance. Otherwise they mean what they mean in the file.

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
| `max_backend_events_per_sec`, `max_read_req_per_sec` | nothing: Taut does not limit backends per second; the log says so if a value is set |
| `options` | an object in JSON with the keys of an app's table in the file, except its credentials: `{\"watchlist\": true, \"limits\": {\"batch\": 50}}` |

A table to start with:

```sql
CREATE TABLE apps (id varchar(255) PRIMARY KEY, \"key\" varchar(255) NOT NULL, secret varchar(255) NOT NULL, enabled smallint, options text);
```

## Traces

A program built with `--features otel` sends OpenTelemetry traces to where the standard variables (`OTEL_…`) say; [traces.md](traces.md) lists what is
traced and the variables. They are not settings of Taut: there are no flags for them, and the file has none.

## Variables of other servers

Taut reads the variables of soketi, Reverb and programs that use `PUSHER_APP_ID`, `PUSHER_APP_KEY` and `PUSHER_APP_SECRET`, so it can take their place.
Taut's own names override them, and their app is served only if no other is configured. At the start the log says which were used, which were not, and
why. [migrating-servers.md](migrating-servers.md) lists all of them, with their defaults.

`SOKETI_METRICS_ENABLED` is `metrics-listen` at the port of `SOKETI_METRICS_SERVER_PORT`, or 9601. soketi opens its metrics to everybody who can reach that
port; here they are on 127.0.0.1, unless `SOKETI_METRICS_HOST` names another address. `TAUT_METRICS_LISTEN=0.0.0.0:9601` opens them to others, for instance
in a container, and `TAUT_METRICS_TOKEN` only to those who have the token.
";
