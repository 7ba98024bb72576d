//! Ctrl-C, Ctrl-Break, and the end of the console or of the session.

use std::io;
use std::process;
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};

use super::Requester;

/// Events that ask the process to stop, caught from now on.
pub(crate) struct Stop {
    runtime: Runtime,
    events: Events,
}

struct Events {
    ctrl_c: CtrlC,
    ctrl_break: CtrlBreak,
    close: CtrlClose,
    shutdown: CtrlShutdown,
}

impl Stop {
    pub(crate) fn catch() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().build()?;
        let events = {
            let _within = runtime.enter();
            Events { ctrl_c: ctrl_c()?, ctrl_break: ctrl_break()?, close: ctrl_close()?, shutdown: ctrl_shutdown()? }
        };
        Ok(Self { runtime, events })
    }

    /// Waits for the first event; a second one from then on ends the process at once.
    pub(crate) fn wait(mut self) -> Requester {
        let asker = self.runtime.block_on(self.events.next());
        thread::spawn(move || {
            self.runtime.block_on(self.events.next());
            process::exit(INTERRUPTED);
        });
        asker
    }
}

impl Events {
    /// # Cancel safety
    /// An event that has not been told is told by the next call.
    async fn next(&mut self) -> Requester {
        tokio::select! {
            _ = self.ctrl_c.recv() => Requester::Person,
            _ = self.ctrl_break.recv() => Requester::Person,
            _ = self.close.recv() => Requester::Supervisor,
            _ = self.shutdown.recv() => Requester::Supervisor,
        }
    }
}

/// `STATUS_CONTROL_C_EXIT`, with which Windows ends a program at Ctrl-C that has not said otherwise.
const INTERRUPTED: i32 = 0xC000_013A_u32.cast_signed();
