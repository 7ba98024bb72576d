//! What is written for the user. A thread writes it, so that nothing else waits for a reader that is slow.

use std::io::{self, ErrorKind, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use super::above::Above;
use super::queue::{self, Sender};

/// Where messages go: to stdout, or above the prompt.
pub(super) struct Output {
    sender: Sender<Vec<u8>>,
    /// The error that ended the output.
    failure: Arc<Mutex<Option<io::Error>>>,
    written: oneshot::Receiver<()>,
}

impl Output {
    pub(super) fn new(prompt: Option<Above>) -> Self {
        let (sender, mut receiver) = queue::queue::<Vec<u8>>();
        let (done, written) = oneshot::channel();
        let failure = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&failure);
        let sink = prompt.map_or(Sink::Stdout, Sink::Prompt);
        thread::spawn(move || {
            while let Some(mut bytes) = receiver.blocking_recv() {
                while bytes.len() < GATHERED
                    && let Some(more) = receiver.try_recv()
                {
                    bytes.extend_from_slice(&more);
                }
                if let Err(error) = sink.write(&bytes) {
                    *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    break;
                }
            }
            let _ = done.send(());
        });
        Self { sender, failure, written }
    }

    /// Prints, once there is room; false if it cannot be printed.
    pub(super) fn print(&self, bytes: Vec<u8>) -> impl Future<Output = bool> + 'static {
        let sender = self.sender.clone();
        async move {
            let length = bytes.len();
            sender.send(bytes, length).await
        }
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// It cannot be. A reader that has gone has what it wanted, and is not an error.
    pub(super) async fn finish(self) -> Result<(), String> {
        let Self { sender, failure, written } = self;
        drop(sender);
        let _ = written.await;
        let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failure {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(format!("the output cannot be written: {error}"))
            }
            _ => Ok(()),
        }
    }
}

enum Sink {
    Stdout,
    Prompt(Above),
}

impl Sink {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::Prompt(prompt) => prompt.print(&String::from_utf8_lossy(bytes)),
        }
    }
}

/// Bytes that are gathered for one write.
const GATHERED: usize = 64 << 10;
