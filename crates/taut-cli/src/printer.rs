//! What a client prints while it is connected. Threads write it, so that nothing else waits for a reader that is slow.

use std::collections::VecDeque;
use std::future::pending;
use std::io::{self, ErrorKind, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use crate::exit::Exit;
use crate::queue::{self, Sender};
use crate::signals::Signals;

/// Prints messages and remarks.
///
/// Printing never waits. Before the next message is received, [`is_ready`](Self::is_ready) has to be true: so a slow
/// reader slows the server down, and little is kept here.
pub(crate) struct Printer {
    messages: Lane,
    remarks: Lane,
}

impl Printer {
    /// `print` writes messages, `remark` one or several lines for people.
    pub(crate) fn new(
        print: impl Fn(&[u8]) -> io::Result<()> + Send + 'static,
        remark: impl Fn(&str) + Send + 'static,
    ) -> Self {
        let remark = move |lines: &[u8]| {
            remark(String::from_utf8_lossy(lines).trim_end());
            Ok(())
        };
        Self { messages: Lane::new(print), remarks: Lane::new(remark) }
    }

    pub(crate) fn print(&mut self, message: Vec<u8>) {
        self.messages.print(message);
    }

    /// Prints a line for people.
    pub(crate) fn remark(&mut self, line: impl Into<String>) {
        let line = line.into() + "\n";
        self.remarks.print(line.into_bytes());
    }

    /// Whether there is room for more.
    pub(crate) fn is_ready(&self) -> bool {
        self.messages.waiting.is_empty() && self.remarks.waiting.is_empty()
    }

    /// Waits until there is room again. Returns false once messages cannot be written.
    pub(crate) async fn changed(&mut self) -> bool {
        tokio::select! {
            is_read = self.messages.changed() => is_read,
            is_read = self.remarks.changed() => is_read,
        }
    }

    /// Waits until everything is written, but only for a moment once a signal or the deadline has ended the command.
    /// Returns the exit code, which may change; `timed_out` is the remark about a deadline that passes here.
    pub(crate) async fn finish(
        mut self,
        exit: Exit,
        signals: &mut Signals,
        deadline: Option<Instant>,
        timed_out: &str,
    ) -> Exit {
        let is_over = exit.is_signal() || exit == Exit::TimedOut;
        let limit = if is_over { Some(Instant::now() + MOMENT) } else { deadline };
        let exit = tokio::select! {
            biased;
            written = self.messages.finish() => match written {
                Ok(()) => exit,
                Err(error) => {
                    crate::output::fail(error);
                    Exit::Failed
                }
            },
            exit = signals.next() => exit,
            () = at(limit) => {
                if !is_over {
                    self.remark(timed_out);
                }
                if is_over { exit } else { Exit::TimedOut }
            }
        };
        // Remarks that nobody reads do not hold it up either.
        let _ = timeout(MOMENT, self.remarks.finish()).await;
        exit
    }
}

/// One of the two outputs.
struct Lane {
    /// `None` once it has finished.
    sender: Option<Sender<Vec<u8>>>,
    /// What found no room.
    waiting: VecDeque<Vec<u8>>,
    /// The error that ended it.
    failure: Arc<Mutex<Option<io::Error>>>,
    written: oneshot::Receiver<()>,
}

impl Lane {
    fn new(write: impl Fn(&[u8]) -> io::Result<()> + Send + 'static) -> Self {
        let (sender, mut receiver) = queue::queue::<Vec<u8>>();
        let (done, written) = oneshot::channel();
        let failure = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&failure);
        thread::spawn(move || {
            while let Some(mut bytes) = receiver.blocking_recv() {
                while bytes.len() < GATHERED
                    && let Some(more) = receiver.try_recv()
                {
                    bytes.extend_from_slice(&more);
                }
                if let Err(error) = write(&bytes) {
                    *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    break;
                }
            }
            let _ = done.send(());
        });
        Self { sender: Some(sender), waiting: VecDeque::new(), failure, written }
    }

    fn print(&mut self, bytes: Vec<u8>) {
        let Some(sender) = &self.sender else { return };
        if self.waiting.is_empty() {
            let length = bytes.len();
            self.waiting.extend(sender.try_send(bytes, length).err());
        } else {
            self.waiting.push_back(bytes);
        }
    }

    /// Waits until everything has found room. Returns false once nothing can be written. What waits stays in order if
    /// the future is dropped.
    async fn changed(&mut self) -> bool {
        let Some(sender) = &self.sender else { return pending().await };
        if self.waiting.is_empty() {
            sender.closed().await;
            return false;
        }
        while let Some(next) = self.waiting.front() {
            let Some(room) = sender.reserve(next.len()).await else { return false };
            room.send(self.waiting.pop_front().unwrap_or_default());
        }
        true
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// It cannot be. A reader that has gone has what it wanted, and is not an error.
    async fn finish(&mut self) -> Result<(), String> {
        while !self.waiting.is_empty() && self.changed().await {}
        self.sender = None;
        let _ = (&mut self.written).await;
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(format!("the output cannot be written: {error}"))
            }
            _ => Ok(()),
        }
    }
}

/// Writes to stdout.
///
/// # Errors
/// It cannot be written.
pub(crate) fn to_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Waits until this time.
pub(crate) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// How long the last steps may take once the command has been told to end.
pub(crate) const MOMENT: Duration = Duration::from_secs(1);

/// The remark about a deadline that has passed.
pub(crate) const TIMED_OUT: &str = "--timeout has passed";

/// Bytes that are gathered for one write.
const GATHERED: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::signals::Interrupter;

    /// A printer whose reader reads what `permits` says, and what was read.
    fn printer(permits: mpsc::Receiver<io::Result<()>>) -> (Printer, Arc<Mutex<Vec<u8>>>) {
        let read = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&read);
        let print = move |bytes: &[u8]| {
            permits.recv().unwrap_or(Ok(()))?;
            sink.lock().unwrap().extend_from_slice(bytes);
            Ok(())
        };
        (Printer::new(print, |_| {}), read)
    }

    #[tokio::test]
    async fn what_finds_no_room_waits_and_nothing_is_lost_or_out_of_order() {
        let (permit, permits) = mpsc::channel();
        let (mut printer, read) = printer(permits);
        let mut expected = Vec::new();
        let mut count = 0_u32;
        while printer.is_ready() {
            let message = format!("{count} {}\n", "x".repeat(100_000)).into_bytes();
            expected.extend_from_slice(&message);
            printer.print(message);
            count += 1;
        }
        assert!((10..30).contains(&count), "{count}");
        for last in ["last", "of all"] {
            expected.extend_from_slice(last.as_bytes());
            printer.print(last.into());
        }
        drop(permit);
        assert!(printer.changed().await && printer.is_ready());
        let exit = printer.finish(Exit::Done, &mut Signals::catch(Interrupter::default()).unwrap(), None, "").await;
        assert_eq!((exit, &*read.lock().unwrap()), (Exit::Done, &expected));
    }

    #[tokio::test]
    async fn a_reader_that_goes_is_noticed_and_a_full_disk_is_an_error() {
        for (error, exit) in [(ErrorKind::BrokenPipe, Exit::Unmet), (ErrorKind::StorageFull, Exit::Failed)] {
            let (permit, permits) = mpsc::channel();
            let (mut printer, _) = printer(permits);
            printer.print(b"message".to_vec());
            permit.send(Err(error.into())).unwrap();
            assert!(!printer.changed().await, "it says that nobody reads");
            assert_eq!(
                printer.finish(Exit::Unmet, &mut Signals::catch(Interrupter::default()).unwrap(), None, "").await,
                exit
            );
        }
    }

    #[tokio::test]
    async fn a_reader_that_stands_still_holds_up_neither_a_signal_nor_a_deadline() {
        for (exit, deadline, expected) in [
            (Exit::Terminated, None, Exit::Terminated),
            (Exit::TimedOut, None, Exit::TimedOut),
            (Exit::Done, Some(Instant::now()), Exit::TimedOut),
        ] {
            let (permit, permits) = mpsc::channel();
            let (mut printer, _) = printer(permits);
            printer.print(b"message".to_vec());
            let exit =
                printer.finish(exit, &mut Signals::catch(Interrupter::default()).unwrap(), deadline, TIMED_OUT).await;
            assert_eq!(exit, expected);
            drop(permit);
        }
    }
}
