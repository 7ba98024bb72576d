//! Apps in a table of a database.
//!
//! The table has soketi's columns, any of which but `id`, `key` and `secret` may be missing, and one of Taut's own, `options`, with what the
//! others have no place for. It is only ever read.

use std::str::FromStr;
use std::time::Duration;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Column, ColumnIndex, ConnectOptions, Connection, Database, Decode, Executor, Row};

use super::apps::PartialApp;
use super::soketi;
use super::value::{Diagnostics, Located, Source, Value};
use super::{AppsSnapshot, Config, Diagnostic};

/// Whether a URL names a database that can be read. The error does not repeat the URL, which may hold a password.
pub(crate) fn check(url: &str) -> Result<(), String> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => SqliteConnectOptions::from_str(url).map(drop).map_err(|_| wrong_url()),
        Some("postgres" | "postgresql") => PgConnectOptions::from_str(url).map(drop).map_err(|_| wrong_url()),
        Some("mysql" | "mariadb") => MySqlConnectOptions::from_str(url).map(drop).map_err(|_| wrong_url()),
        _ => Err(wrong_url()),
    }
}

fn wrong_url() -> String {
    "this is no URL of a database: write sqlite:FILE, postgres://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE, \
     with %-escapes for what has a meaning in URLs"
        .to_owned()
}

/// Reads the whole table.
///
/// # Cancel safety
/// When it is dropped midway, the connection to the database is dropped too; nothing is changed there in any case.
///
/// # Errors
/// When the database cannot be asked; the reason holds no password.
pub(crate) async fn read(config: &Config) -> Result<AppsSnapshot, Diagnostic> {
    let Some(url) = &config.apps_database else { return Ok(AppsSnapshot::default()) };
    let url = url.reveal();
    let rows = match tokio::time::timeout(PATIENCE, rows(url, &config.apps_table)).await {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => return Err(failed(url, &error.to_string())),
        Err(_) => return Err(failed(url, &format!("it has not answered within {} s", PATIENCE.as_secs()))),
    };
    let mut stored = AppsSnapshot::default();
    for row in &rows {
        read_row(row, &mut stored);
    }
    Ok(stored)
}

fn failed(url: &str, reason: &str) -> Diagnostic {
    // No message that we know repeats the password, but messages are not ours.
    let password =
        url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).and_then(|(user, _)| user.split_once(':'));
    let reason = match password {
        Some((_, password)) if !password.is_empty() => reason.replace(password, "…"),
        _ => reason.to_owned(),
    };
    Diagnostic::new("apps-database", format!("the apps cannot be read: {reason}"))
}

/// The columns of a row, with their texts.
type Columns = Vec<(String, Option<String>)>;

async fn rows(url: &str, table: &str) -> Result<Vec<Columns>, sqlx::Error> {
    // By the protocol without preparation, in which all three give every value as a text.
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => {
            let options = SqliteConnectOptions::from_str(url)?.read_only(true).disable_statement_logging();
            select(options, &format!("SELECT * FROM \"{table}\"")).await
        }
        Some("mysql" | "mariadb") => {
            let options = MySqlConnectOptions::from_str(url)?.disable_statement_logging();
            select(options, &format!("SELECT * FROM `{table}`")).await
        }
        _ => {
            let options = PgConnectOptions::from_str(url)?.disable_statement_logging();
            select(options, &format!("SELECT * FROM \"{table}\"")).await
        }
    }
}

async fn select<O>(options: O, query: &str) -> Result<Vec<Columns>, sqlx::Error>
where
    O: ConnectOptions,
    O::Connection: Sized,
    for<'c> &'c mut O::Connection: Executor<'c, Database = <O::Connection as Connection>::Database>,
    usize: ColumnIndex<<<O::Connection as Connection>::Database as Database>::Row>,
    for<'r> String: Decode<'r, <O::Connection as Connection>::Database>,
{
    let mut connection = options.connect().await?;
    let rows = (&mut connection).fetch_all(sqlx::raw_sql(query)).await?;
    let columns = rows.iter().map(texts).collect();
    let _ = connection.close().await;
    columns
}

fn texts<R>(row: &R) -> Result<Columns, sqlx::Error>
where
    R: Row,
    usize: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database>,
{
    row.columns()
        .iter()
        .map(|column| {
            // What is no text in UTF-8 is no column of ours, or an app that cannot be used.
            let text = row.try_get_unchecked::<Option<String>, usize>(column.ordinal()).unwrap_or_default();
            Ok((column.name().to_ascii_lowercase(), text))
        })
        .collect()
}

fn read_row(row: &Columns, stored: &mut AppsSnapshot) {
    let column = |name: &str| row.iter().find(|(known, _)| known == name).and_then(|(_, text)| text.clone());
    let id = column("id").unwrap_or_default();
    let place = format!("apps-database, app {id:?}");
    // A table that is soketi's was served by it, and what its rows leave out is as it was there.
    let is_soketis = row.iter().any(|(name, _)| name.starts_with("max_") || name.starts_with("enable_"));
    let prepare = if is_soketis { soketi::prepare } else { |_: &mut PartialApp| {} };
    let soketi::Read { mut draft, problems, notes } = match soketi::app(column, prepare) {
        Ok(read) => read,
        Err(reason) => {
            stored.mistakes.push(Diagnostic::new(place, reason));
            stored.broken.push(id);
            return;
        }
    };
    let mut complaints = Diagnostics::about(Source::Named(&place));
    for problem in problems {
        complaints.complain(0, problem);
    }
    if let Some(text) = column("options").filter(|text| !text.trim().is_empty()) {
        match serde_json::from_str(&text).map(Located::from_json) {
            Ok(Located { value: Value::Nothing, .. }) => {}
            Ok(options) => match options.table() {
                Ok(entries) => draft.read_options(entries, &mut complaints),
                Err(_) => complaints.complain(0, "options: this is no object in JSON"),
            },
            Err(error) => complaints
                .complain(0, format!("options: this is no JSON (line {}, column {})", error.line(), error.column())),
        }
    }
    stored.notes.extend(notes.into_iter().map(|note| format!("{place}: {note}")));
    // What could not be used is told; the rest of the app is.
    stored.mistakes.append(&mut complaints.mistakes);
    stored.apps.push(draft);
}

/// How long a database may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use sqlx::SqliteConnection;

    use super::*;
    use crate::app::{Limits, SlowReader};

    /// A database that goes with the test.
    struct Table {
        folder: std::path::PathBuf,
        connection: SqliteConnection,
    }

    impl Table {
        async fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("taut-database-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder");
            let options = SqliteConnectOptions::new().filename(folder.join("apps.db")).create_if_missing(true);
            Self { connection: options.connect().await.expect("a database"), folder }
        }

        async fn run(&mut self, sql: &str) {
            (&mut self.connection).execute(sqlx::raw_sql(sql)).await.expect(sql);
        }

        fn config(&self) -> Config {
            let url = format!("sqlite:{}", self.folder.join("apps.db").display());
            Config { apps_database: Some(url.into()), ..Config::default() }
        }
    }

    impl Drop for Table {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    #[tokio::test]
    async fn three_columns_are_an_app_and_others_are_let_be() {
        let mut table = Table::new("three").await;
        table.run("CREATE TABLE apps (id TEXT, key TEXT, secret TEXT, created_at TEXT, logo BLOB)").await;
        table.run("INSERT INTO apps VALUES ('1', 'a', 'x', '2026-01-01', x'ff00')").await;
        let stored = read(&table.config()).await.expect("a table");
        assert!(stored.mistakes.is_empty(), "{:?}", stored.mistakes);
        let app = stored.apps[0].clone().finish(&Limits::default());
        assert_eq!((app.id.as_str(), app.key().key.as_str(), app.secret("a").expect("a").reveal()), ("1", "a", "x"));
        assert!(app.limits.is_none() && app.enabled);
    }

    #[tokio::test]
    async fn a_row_has_soketis_columns_and_options() {
        let mut table = Table::new("whole").await;
        table
            .run(
                "CREATE TABLE apps (id TEXT, key TEXT, secret TEXT, max_connections INTEGER, enabled INTEGER, enable_client_messages BOOLEAN, \
                 max_client_events_per_sec INTEGER, max_backend_events_per_sec INTEGER, max_event_payload_in_kb REAL, webhooks JSON, \
                 enable_user_authentication INTEGER, options JSON);
                 INSERT INTO apps VALUES ('1', 'a', 'x', 200, 0, 0, -1, -1, 0.5, \
                 '[{\"url\": \"https://example.com/\", \"event_types\": [\"cache_miss\"], \"filter\": {\"channel_name_starts_with\": \"a\"}, \
                 \"headers\": {\"X-A\": \"b\"}}]', 1, \
                 '{\"watchlist\": true, \"presence-grace\": \"5s\", \"limits\": {\"batch\": 3, \"slow-reader\": \"drop\"}, \"origins\": [\"https://example.com\"]}')",
            )
            .await;
        let stored = read(&table.config()).await.expect("a table");
        assert!(stored.mistakes.is_empty(), "{:?}", stored.mistakes);
        let app = stored.apps[0].clone().finish(&Limits::default());
        assert!(!app.enabled && !app.features.client_events && app.features.watchlist);
        assert_eq!(app.features.authorization_timeout, Duration::from_secs(30));
        assert_eq!(app.features.presence_grace, Duration::from_secs(5));
        assert_eq!(app.origins, ["https://example.com"]);
        let limits = app.limits.expect("its own");
        assert_eq!(
            (limits.connections, limits.client_events, limits.event_data, limits.batch),
            (200, 1_000_000, 512, 3)
        );
        assert_eq!(limits.slow_reader, SlowReader::Drop);
        assert_eq!((app.webhooks[0].channel_prefix.as_str(), app.webhooks[0].headers.len()), ("a", 1));
    }

    #[tokio::test]
    async fn what_a_row_of_soketis_table_leaves_out_is_as_soketi_has_it() {
        let mut table = Table::new("soketi").await;
        table
            .run(
                "CREATE TABLE apps (id TEXT, key TEXT, secret TEXT, max_connections INTEGER, enable_client_messages INTEGER, options TEXT);
                 INSERT INTO apps VALUES ('1', 'a', 'x', NULL, NULL, NULL), ('2', 'b', 'x', -1, 1, NULL), \
                 ('3', 'c', 'x', -1, NULL, '{\"client-events\": true, \"limits\": {\"client-events\": 5}}')",
            )
            .await;
        let stored = read(&table.config()).await.expect("a table");
        assert!(stored.mistakes.is_empty(), "{:?}", stored.mistakes);
        let apps: Vec<_> = stored.apps.iter().map(|draft| draft.clone().finish(&Limits::default())).collect();
        assert_eq!(apps.iter().map(|app| app.features.client_events).collect::<Vec<_>>(), [false, true, true]);
        assert!(apps.iter().all(|app| app.features.subscription_count_in_info));
        let events: Vec<u32> = apps.iter().map(|app| app.limits.expect("its own").client_events).collect();
        assert_eq!(events, [1_000_000, 1_000_000, 5]);
    }

    #[tokio::test]
    async fn rows_that_are_no_apps_are_told_by_id_and_the_others_are_read() {
        let mut table = Table::new("broken").await;
        table
            .run(
                "CREATE TABLE apps (id TEXT, key TEXT, secret TEXT, max_connections TEXT, webhooks TEXT, options TEXT)",
            )
            .await;
        table
            .run(
                "INSERT INTO apps VALUES ('1', 'a b', 'hunter2', NULL, NULL, NULL), ('2', 'b', NULL, NULL, NULL, NULL)",
            )
            .await;
        table.run("INSERT INTO apps VALUES ('3', 'c', 'x', 'many', 'no', '{\"colour\": 1}'), ('4', 'd', 'x', NULL, '', '')").await;
        let stored = read(&table.config()).await.expect("a table");
        assert_eq!(stored.broken, ["1", "2"]);
        assert_eq!(stored.apps.iter().map(|draft| draft.app.id.as_str()).collect::<Vec<_>>(), ["3", "4"]);
        let mistakes = stored.mistakes.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n");
        for part in [
            "app \"1\": the app's key may hold only",
            "app \"2\": the secret is missing",
            "app \"3\": max_connections: \"many\" is not a whole number",
            "app \"3\": webhooks: this is no list in JSON",
            "app \"3\": there is no setting of an app \"colour\"",
        ] {
            assert!(mistakes.contains(part), "{part}\n{mistakes}");
        }
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
    }

    #[tokio::test]
    async fn a_webhook_that_cannot_be_used_is_told_and_its_app_is_known_to_lack_it() {
        let mut table = Table::new("webhooks").await;
        table.run("CREATE TABLE apps (id TEXT, key TEXT, secret TEXT, webhooks TEXT, options TEXT)").await;
        let webhook =
            r#"[{"url": "http://a/", "event_types": ["cache_miss"], "headers": {"a b": "x", "X-Pusher-Key": "k"}}]"#;
        table.run(&format!("INSERT INTO apps VALUES ('1', 'a', 'x', '{webhook}', NULL)")).await;
        let options = r#"{"webhooks": [{"url": "http://a/"}, {"url": "http://b/#c"}]}"#;
        table
            .run(&format!("INSERT INTO apps VALUES ('2', 'b', 'x', NULL, '{options}'), ('3', 'c', 'x', '', '')"))
            .await;
        let stored = read(&table.config()).await.expect("a table");
        let told: Vec<String> = stored.mistakes.iter().map(Diagnostic::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].contains("app \"1\": webhooks: the webhook's header \"a b\" has a name or a value"),
            "{told:?}"
        );
        assert_eq!(
            stored.notes,
            ["apps-database, app \"1\": webhooks: the header X-Pusher-Key is left out: each request has it anyway"]
        );
        assert!(told[1].contains("app \"2\": url: the address may have no #"), "{told:?}");
        let lacking: Vec<bool> = stored.apps.iter().map(|draft| draft.lacks_webhooks).collect();
        assert_eq!(lacking, [true, true, false]);
    }

    #[tokio::test]
    async fn a_database_or_a_table_that_is_not_there_is_not_made() {
        let table = Table::new("missing").await;
        let refused = read(&table.config()).await.expect_err("no table").to_string();
        assert!(
            refused.starts_with("apps-database: the apps cannot be read: ") && refused.contains("apps"),
            "{refused}"
        );
        let path = table.folder.join("other.db");
        let config = Config { apps_database: Some(format!("sqlite:{}", path.display()).into()), ..Config::default() };
        read(&config).await.expect_err("no file");
        assert!(!path.exists());
    }

    #[test]
    fn a_failure_does_not_tell_the_password() {
        let told = failed("mysql://me:hunter2@host/db", "no hunter2 here").to_string();
        assert!(!told.contains("hunter2"), "{told}");
        for url in ["", "apps.db", "oracle://x", "postgres://me:hunter2@host:port/"] {
            assert!(!check(url).expect_err(url).contains("hunter2"), "{url}");
        }
        for url in ["sqlite:apps.db", "sqlite:///var/apps.db", "postgres://me:x@host/db", "mysql://me:x@host:3306/db"] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
    }
}
