//! What outlives the process.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableTable, TableDefinition};

use super::Millis;
use super::payload::Payload;

/// A file with all that is still to be delivered, and with what has failed for good.
///
/// It is read once, when it is opened, and only written from then on: memory has all that it has. Each write is one transaction, on the disk when
/// it returns, so that the process may end at any moment.
#[derive(Clone)]
pub(super) struct Store {
    /// None after an error: redb then refuses everything until the file is opened anew.
    database: Arc<Mutex<Option<Database>>>,
    directory: Arc<Path>,
}

/// A delivery as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) app: Box<str>,
    pub(super) url: Arc<str>,
    pub(super) nth: u32,
    pub(super) created: Millis,
    pub(super) payload: Payload,
}

/// A removal in its grace as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HeldRow {
    pub(super) app: Box<str>,
    pub(super) channel: Arc<str>,
    pub(super) user_id: Option<Arc<str>>,
    pub(super) created: Millis,
    pub(super) time: Millis,
}

/// A delivery that has failed for good, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredLetter {
    pub(super) id: u64,
    pub(super) row: Row,
    pub(super) died: Millis,
    pub(super) attempts: u32,
    pub(super) last_error: Box<str>,
}

impl StoredLetter {
    /// The bytes that it holds, beside its own size.
    pub(super) fn bytes(&self) -> usize {
        self.row.payload.len() + self.row.url.len() + self.last_error.len()
    }
}

/// What is written at once. `None` means that the row goes.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) deliveries: Vec<(u64, Option<Row>)>,
    pub(super) held: Vec<(u64, Option<HeldRow>)>,
    pub(super) dead: Vec<(u64, Option<StoredLetter>)>,
    /// Whether the store is to hold this and nothing else: what it had may be out of date.
    pub(super) is_whole: bool,
    /// The deliveries that may be sent once this is written.
    pub(super) closed: Vec<u64>,
    /// How many entries of the event bus are accounted for then.
    pub(super) recorded: u64,
}

impl Group {
    /// Whether the store has nothing to do for it.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_whole && self.deliveries.is_empty() && self.held.is_empty() && self.dead.is_empty()
    }
}

/// What an earlier run has left.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) deliveries: Vec<(u64, Row)>,
    pub(super) held: Vec<(u64, HeldRow)>,
    pub(super) dead: Vec<StoredLetter>,
}

impl Store {
    /// Opens the file in this directory; both are made if they are not there.
    pub(super) fn open(directory: &Path) -> Result<(Self, Contents), StoreError> {
        let failed = |Failure(error)| StoreError { path: directory.join(FILE), error };
        let database = open_database(directory).map_err(failed)?;
        let contents = read(&database).map_err(failed)?;
        Ok((Self { database: Arc::new(Mutex::new(Some(database))), directory: directory.into() }, contents))
    }

    /// Whether [`open`](Self::open) would succeed; leaves nothing behind that was not there before. Gives what to know about it.
    ///
    /// A file that a running server has open is none of our business: it is the one whose directory this is, more likely than not.
    pub(super) fn probe(directory: &Path) -> Result<Option<String>, StoreError> {
        let file = directory.join(FILE);
        if file.exists() {
            return match Self::open(directory) {
                Ok(_) => Ok(None),
                Err(StoreError { error, .. }) if matches!(*error, redb::Error::DatabaseAlreadyOpen) => {
                    Ok(Some(format!("{} is in use by a server that runs", file.display())))
                }
                Err(error) => Err(error),
            };
        }
        // What is not there yet is made, in the first folder above that is there.
        let folder = directory.ancestors().find(|folder| folder.exists()).unwrap_or_else(|| Path::new("."));
        let probe = folder.join(format!(".taut-check-{}", std::process::id()));
        let made = OpenOptions::new().write(true).create_new(true).open(&probe).map(drop);
        let removed = made.and_then(|()| fs::remove_file(&probe));
        removed.map(|()| None).map_err(|error| StoreError { path: file, error: Box::new(redb::Error::Io(error)) })
    }

    /// Writes a group. This blocks until it is on the disk.
    ///
    /// # Errors
    /// When it is not, and then the next one has to be [whole](Group::is_whole). The file is opened anew for that, in which the disk may have room again.
    pub(super) fn write(&self, group: &Group) -> Result<(), StoreError> {
        let mut place = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = place.take().map_or_else(|| open_database(&self.directory), Ok);
        let written = opened.and_then(|database| write(&database, group).map(|()| database));
        *place = Some(written.map_err(|Failure(error)| StoreError { path: self.directory.join(FILE), error })?);
        Ok(())
    }
}

fn open_database(directory: &Path) -> Result<Database, Failure> {
    fs::create_dir_all(directory)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // Events and addresses are the app's affair, and nobody else's.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(directory.join(FILE))?;
    let database = Database::builder()
        // The only one that later versions of redb read.
        .create_with_file_format_v3(true)
        // It is read from once; what is written again and again are a few pages.
        .set_cache_size(CACHE)
        .create_file(file)?;
    let transaction = database.begin_write()?;
    transaction.open_table(DELIVERIES)?;
    transaction.open_table(HELD)?;
    transaction.open_table(DEAD)?;
    transaction.commit()?;
    // A new file's name is on the disk when its directory is.
    #[cfg(unix)]
    fs::File::open(directory)?.sync_all()?;
    Ok(database)
}

fn read(database: &Database) -> Result<Contents, Failure> {
    let transaction = database.begin_read()?;
    let mut contents = Contents::default();
    for entry in transaction.open_table(DELIVERIES)?.iter()? {
        let (id, row) = entry?;
        let (app, url, nth, created, time, events) = row.value();
        let payload = Payload { time, events: Arc::new(events.to_vec()) };
        contents.deliveries.push((id.value(), Row { app: app.into(), url: url.into(), nth, created, payload }));
    }
    for entry in transaction.open_table(HELD)?.iter()? {
        let (id, row) = entry?;
        let (app, channel, user_id, created, time) = row.value();
        let user_id = user_id.map(Arc::from);
        let held = HeldRow { app: app.into(), channel: channel.into(), user_id, created, time };
        contents.held.push((id.value(), held));
    }
    for entry in transaction.open_table(DEAD)?.iter()? {
        let (id, row) = entry?;
        let ((app, url, nth, created, time, events), (died, attempts, last_error)) = row.value();
        let payload = Payload { time, events: Arc::new(events.to_vec()) };
        let row = Row { app: app.into(), url: url.into(), nth, created, payload };
        contents.dead.push(StoredLetter { id: id.value(), row, died, attempts, last_error: last_error.into() });
    }
    Ok(contents)
}

fn write(database: &Database, group: &Group) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    if group.is_whole {
        transaction.delete_table(DELIVERIES)?;
        transaction.delete_table(HELD)?;
        transaction.delete_table(DEAD)?;
    }
    {
        let mut deliveries = transaction.open_table(DELIVERIES)?;
        for (id, row) in &group.deliveries {
            match row {
                Some(row) => deliveries.insert(id, row.columns())?,
                None => deliveries.remove(id)?,
            };
        }
        let mut held = transaction.open_table(HELD)?;
        for (id, row) in &group.held {
            match row {
                Some(HeldRow { app, channel, user_id, created, time }) => {
                    held.insert(id, (&**app, &**channel, user_id.as_deref(), *created, *time))?
                }
                None => held.remove(id)?,
            };
        }
        let mut dead = transaction.open_table(DEAD)?;
        for (id, letter) in &group.dead {
            match letter {
                Some(StoredLetter { row, died, attempts, last_error, .. }) => {
                    dead.insert(id, (row.columns(), (*died, *attempts, &**last_error)))?
                }
                None => dead.remove(id)?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Any of redb's errors, in a box since they are large.
struct Failure(Box<redb::Error>);

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(error.into()))
    }
}

impl Row {
    fn columns(&self) -> Columns<'_> {
        let Self { app, url, nth, created, payload } = self;
        (app, url, *nth, *created, payload.time, &payload.events)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Why the file cannot be used.
#[derive(Debug)]
pub(crate) struct StoreError {
    path: PathBuf,
    error: Box<redb::Error>,
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, error } = self;
        write!(formatter, "the webhooks' file {} cannot be used: {error}. ", path.display())?;
        formatter.write_str(match &**error {
            redb::Error::DatabaseAlreadyOpen => {
                "Another server uses it: stop that server, or give each its own data directory"
            }
            redb::Error::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "Let the server's user read and write the data directory"
            }
            redb::Error::Io(_) | redb::Error::PreviousIo => "Check the disk: it needs free space and must be writable",
            _ => "If it is damaged, move it away: this loses only the webhooks that were still waiting",
        })
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.error)
    }
}

/// App, address, which of those with this address, created, told time, events.
type Columns<'a> = (&'a str, &'a str, u32, u64, u64, &'a [u8]);

/// App, channel, user, created, told time.
type HeldColumns<'a> = (&'a str, &'a str, Option<&'a str>, u64, u64);

/// A delivery's, then given up, attempts, last error.
type DeadColumns<'a> = (Columns<'a>, (u64, u32, &'a str));

/// The number goes up when the columns change; who reads the older one is written then.
const DELIVERIES: TableDefinition<'_, u64, Columns<'_>> = TableDefinition::new("deliveries 1");
const HELD: TableDefinition<'_, u64, HeldColumns<'_>> = TableDefinition::new("held 1");
const DEAD: TableDefinition<'_, u64, DeadColumns<'_>> = TableDefinition::new("dead 1");

const FILE: &str = "webhooks.redb";

/// Bytes.
const CACHE: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::testing::Folder;

    fn row(app: &str) -> Row {
        let payload = Payload::new(7, r#"{"name":"ö"}"#);
        Row { app: app.into(), url: "http://a/".into(), nth: 2, created: 5, payload }
    }

    #[test]
    fn what_is_written_is_there_again_after_opening() {
        let folder = Folder::new("store");
        let letter = StoredLetter { id: 3, row: row("c"), died: 9, attempts: 4, last_error: "no".into() };
        let held = |user_id: Option<&str>| HeldRow {
            app: "a".into(),
            channel: "x".into(),
            user_id: user_id.map(Arc::from),
            created: 1,
            time: 2,
        };
        {
            let (store, contents) = Store::open(folder.path()).expect("a new file");
            assert!(contents.deliveries.is_empty() && contents.held.is_empty() && contents.dead.is_empty());
            let group = Group {
                deliveries: vec![(1, Some(row("a"))), (2, Some(row("b")))],
                held: vec![(4, Some(held(None))), (5, Some(held(Some("u")))), (6, Some(held(None))), (6, None)],
                dead: vec![(3, Some(letter.clone())), (9, None)],
                ..Group::default()
            };
            store.write(&group).expect("written");
            store.write(&Group { deliveries: vec![(1, None)], ..Group::default() }).expect("written");
        }
        let (_store, contents) = Store::open(folder.path()).expect("the same file");
        assert_eq!(contents.deliveries, [(2, row("b"))]);
        assert_eq!(contents.held, [(4, held(None)), (5, held(Some("u")))]);
        assert_eq!(contents.dead, [letter]);
    }

    #[test]
    fn a_file_that_is_in_use_or_none_at_all_is_explained() {
        let folder = Folder::new("store-in-use");
        let (_store, _) = Store::open(folder.path()).expect("a new file");
        let refused = Store::open(folder.path()).expect_err("in use").to_string();
        assert!(refused.contains("Another server uses it"), "{refused}");
        let folder = Folder::new("store-damaged");
        fs::write(folder.path().join(FILE), "no database").expect("a file");
        let refused = Store::open(folder.path()).expect_err("damaged").to_string();
        assert!(refused.contains("webhooks.redb cannot be used"), "{refused}");
    }

    #[test]
    fn a_probe_leaves_nothing_behind_and_disturbs_nobody() {
        let folder = Folder::new("store-probe");
        let inner = folder.path().join("a/b");
        assert_eq!(Store::probe(&inner).expect("it can be made"), None);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
        let (store, _) = Store::open(&inner).expect("a new file");
        assert!(
            Store::probe(&inner).expect("in use").is_some_and(|note| note.contains("is in use by a server that runs"))
        );
        store.write(&Group { deliveries: vec![(1, Some(row("a")))], ..Group::default() }).expect("still its own");
        drop(store);
        assert_eq!(Store::probe(&inner).expect("free"), None);
        assert_eq!(Store::open(&inner).expect("free again").1.deliveries.len(), 1);
        fs::write(inner.join(FILE), "no database").expect("a file");
        assert!(Store::probe(&inner).is_err(), "damaged");
        fs::write(folder.path().join("file"), "").expect("a file");
        assert!(Store::probe(&folder.path().join("file/below")).is_err(), "below a file");
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt;

        let folder = Folder::new("store-mode");
        let (_store, _) = Store::open(folder.path()).expect("a new file");
        let mode = fs::metadata(folder.path().join(FILE)).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
