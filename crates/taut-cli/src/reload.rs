//! When to read the configuration again: when one of its files is another, or at SIGHUP.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, SystemTime};

use taut_server::Config;

use crate::stop::{Requester, Stop};

/// What happens to a server while it runs.
pub(crate) struct Events {
    told: Receiver<Event>,
    files: Files,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is to read its configuration again.
    Reload,
    /// It is to stop.
    Stop(Requester),
}

impl Events {
    pub(crate) fn watch(stop: Stop, config: &Config) -> io::Result<Self> {
        let (tell, told) = mpsc::channel();
        tell_hangups(tell.clone())?;
        thread::spawn(move || {
            // Nobody is there to hear it when the server has stopped already.
            let _ = tell.send(Event::Stop(stop.wait()));
        });
        Ok(Self { told, files: Files::of(config) })
    }

    /// Waits for the next one. What is read after it is newer than all that asked for it.
    pub(crate) fn next(&mut self) -> Event {
        loop {
            match self.told.recv_timeout(EVERY) {
                Ok(Event::Reload) => {
                    // Several hangups, and the files that they are about, are one reason to read.
                    let stop = self.told.try_iter().find(|event| *event != Event::Reload);
                    self.files.take_as_read();
                    return stop.unwrap_or(Event::Reload);
                }
                Ok(event) => return event,
                Err(RecvTimeoutError::Disconnected) => return Event::Stop(Requester::Supervisor),
                Err(RecvTimeoutError::Timeout) if self.files.have_changed() => return Event::Reload,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Watches the files of another configuration from now on.
    pub(crate) fn follow(&mut self, config: &Config) {
        if self.files.paths != paths(config) {
            self.files = Files::of(config);
        }
    }
}

/// Each SIGHUP is a reason to read.
#[cfg(unix)]
fn tell_hangups(tell: Sender<Event>) -> io::Result<()> {
    let mut hangups = signal_hook::iterator::Signals::new([signal_hook::consts::SIGHUP])?;
    thread::spawn(move || hangups.forever().all(|_| tell.send(Event::Reload).is_ok()));
    Ok(())
}

/// Other systems have no such signal: the files are all that is watched.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, clippy::needless_pass_by_value, reason = "as where there is the signal")]
fn tell_hangups(_: Sender<Event>) -> io::Result<()> {
    Ok(())
}

/// The files of a configuration.
///
/// They are looked at every second rather than watched by the kernel's means: an editor that puts a new file in the place of the old one, a
/// mounted volume and a link that points elsewhere are then all the same.
struct Files {
    paths: Vec<PathBuf>,
    /// As they were when the configuration was read.
    read: Vec<Look>,
    /// As they were at the last look.
    seen: Vec<Look>,
}

/// When a file was written, and how long it is; `None` when it is not there.
type Look = Option<(SystemTime, u64)>;

impl Files {
    fn of(config: &Config) -> Self {
        let paths = paths(config);
        let looks: Vec<Look> = paths.iter().map(look).collect();
        Self { paths, read: looks.clone(), seen: looks }
    }

    /// Whether they are others, all there, and have been left alone since the last look, so that none of them is being written.
    fn have_changed(&mut self) -> bool {
        let now: Vec<Look> = self.paths.iter().map(look).collect();
        let is_quiet = now == self.seen;
        self.seen = now;
        let have_changed = is_quiet && self.seen != self.read && self.seen.iter().all(Option::is_some);
        if have_changed {
            self.read.clone_from(&self.seen);
        }
        have_changed
    }

    /// They are read now for another reason: only what is written from now on is a change.
    fn take_as_read(&mut self) {
        self.seen = self.paths.iter().map(look).collect();
        self.read.clone_from(&self.seen);
    }
}

fn paths(config: &Config) -> Vec<PathBuf> {
    [&config.file, &config.env_file, &config.apps_file].into_iter().flatten().cloned().collect()
}

fn look(path: &PathBuf) -> Look {
    let file = std::fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len()))
}

/// How often files are looked at. A change is seen after one to two of these.
const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A file in a folder of one test, gone with it.
    struct File(PathBuf);

    impl File {
        fn new(text: &str) -> Self {
            static FOLDERS: AtomicUsize = AtomicUsize::new(0);
            let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
            let folder = std::env::temp_dir().join(format!("taut-reload-{}-{number}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            let file = Self(folder.join("taut.toml"));
            file.write(text);
            file
        }

        fn write(&self, text: &str) {
            fs::write(&self.0, text).unwrap();
        }

        fn watched(&self) -> Files {
            Files::of(&Config { file: Some(self.0.clone()), ..Config::default() })
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.0.parent().unwrap());
        }
    }

    #[test]
    fn a_file_counts_as_changed_once_it_is_left_alone() {
        let file = File::new("a");
        let mut files = file.watched();
        assert!(!files.have_changed() && !files.have_changed());
        file.write("ab");
        assert!(!files.have_changed(), "it may be being written");
        assert!(files.have_changed());
        assert!(!files.have_changed(), "once is enough");
        fs::remove_file(&file.0).unwrap();
        assert!(!files.have_changed() && !files.have_changed(), "it is being replaced");
        let new = file.0.with_extension("new");
        fs::write(&new, "abc").unwrap();
        fs::rename(&new, &file.0).unwrap();
        assert!(!files.have_changed());
        assert!(files.have_changed());
    }

    #[test]
    fn a_file_that_is_read_at_a_hangup_is_not_read_once_more_for_its_change() {
        let file = File::new("a");
        let (tell, told) = mpsc::channel();
        let mut events = Events { told, files: file.watched() };
        file.write("ab");
        assert!(!events.files.have_changed(), "it may be being written");
        tell.send(Event::Reload).unwrap();
        tell.send(Event::Reload).unwrap();
        assert_eq!(events.next(), Event::Reload);
        assert!(!events.files.have_changed() && !events.files.have_changed());
        // What is written after that is another change.
        file.write("abc");
        assert!(!events.files.have_changed(), "it may be being written");
        assert!(events.files.have_changed());
        // The second hangup has been answered by the same reading.
        tell.send(Event::Stop(Requester::Supervisor)).unwrap();
        assert_eq!(events.next(), Event::Stop(Requester::Supervisor));
    }

    #[test]
    fn whoever_asks_for_the_end_does_not_wait_for_hangups_before_it() {
        let file = File::new("a");
        let (tell, told) = mpsc::channel();
        let mut events = Events { told, files: file.watched() };
        for event in [Event::Reload, Event::Reload, Event::Stop(Requester::Supervisor)] {
            tell.send(event).unwrap();
        }
        assert_eq!(events.next(), Event::Stop(Requester::Supervisor));
    }
}
