//! The prompt: a line editor with a history. It runs on its own thread.

use std::borrow::Cow;
use std::env;
use std::fs::{self, OpenOptions};
use std::io;
#[cfg(unix)]
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::config::{Behavior, ColorMode, CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::{FileHistory, History as _};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};
use taut::CloseCode;

use super::above::Above;
use super::commands::{self, Typed};
use super::input::{self, Input, InputSender};
use crate::queue::Receiver;
use crate::signals::Interrupter;

/// A prompt that has been opened.
pub(super) struct Prompt {
    pub(super) input: Receiver<Input>,
    /// Prints above it, if stdout is the terminal.
    pub(super) above: Option<Above>,
    /// Puts the terminal back as it was.
    pub(super) terminal: Terminal,
}

/// How to open it.
pub(super) struct Options {
    pub(super) prompt: String,
    pub(super) has_history: bool,
    /// Whether stdout is the terminal, so that messages are printed above the prompt.
    pub(super) prints_above: bool,
    pub(super) say: fn(&str),
    /// For Ctrl-C, which the terminal does not make a signal of while the editor reads.
    pub(super) interrupter: Interrupter,
}

/// Opens the prompt and reads lines from now on.
///
/// # Errors
/// There is no terminal that could be used.
pub(super) fn open(options: Options) -> Result<Prompt, String> {
    let terminal = Terminal::save();
    let unusable = |error: ReadlineError| format!("the terminal cannot be used: {error}");
    let config = Config::builder()
        .auto_add_history(true)
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .behavior(if options.prints_above { Behavior::Stdio } else { Behavior::PreferTerm })
        // For the highlighter, which adds no color, but is told what is drawn.
        .color_mode(ColorMode::Forced)
        .max_history_size(LINES)
        .map_err(unusable)?
        .build();
    let mut editor = Editor::<Assistant, FileHistory>::with_config(config).map_err(unusable)?;
    let above = Above::default();
    editor.set_helper(Some(Assistant { files: FilenameCompleter::new(), above: above.clone() }));
    let printer = options.prints_above.then(|| above.clone());
    let history = options.has_history.then(history_file).flatten();
    if let Some(path) = &history {
        // A history that cannot be read is an empty one.
        let _ = editor.load_history(path);
    }
    let input = input::in_thread(move |sender| read(&mut editor, &options, history.as_deref(), &above, sender));
    Ok(Prompt { input, above: printer, terminal })
}

fn read(
    editor: &mut Editor<Assistant, FileHistory>,
    options: &Options,
    history: Option<&Path>,
    above: &Above,
    sender: &InputSender,
) {
    let mut was_interrupted = false;
    loop {
        let line = editor.readline(&options.prompt);
        above.end();
        let was_interrupted_before = std::mem::replace(&mut was_interrupted, false);
        let input = match line {
            Ok(line) => {
                if let Some(path) = history {
                    append(editor, path);
                }
                match understood(&line, options) {
                    Some(input) => input,
                    None => continue,
                }
            }
            Err(ReadlineError::Interrupted) if was_interrupted_before => {
                options.interrupter.interrupt();
                continue;
            }
            Err(ReadlineError::Interrupted) => {
                was_interrupted = true;
                (options.say)("Ctrl-C again closes the connection, as do Ctrl-D and /quit");
                continue;
            }
            Err(ReadlineError::Eof) => Input::Close(CloseCode::NORMAL.into()),
            // The window has changed.
            Err(ReadlineError::Signal(_)) => continue,
            Err(error) => Input::Wrong(format!("the terminal cannot be read: {error}")),
        };
        let is_last = matches!(input, Input::Wrong(_));
        if !sender.send(input) || is_last {
            return;
        }
    }
}

fn understood(line: &str, options: &Options) -> Option<Input> {
    match commands::parse(line) {
        Ok(Typed::Send(message)) => Some(Input::Send(message)),
        Ok(Typed::Ping(payload)) => Some(Input::Ping(payload)),
        Ok(Typed::Pong(payload)) => Some(Input::Pong(payload)),
        Ok(Typed::Close(close)) => Some(Input::Close(close)),
        Ok(Typed::ToggleJson) => Some(Input::ToggleJson),
        Ok(Typed::Help) => {
            (options.say)(commands::help().trim_end());
            None
        }
        Ok(Typed::Nothing) => None,
        Err(mistake) => {
            (options.say)(&mistake);
            None
        }
    }
}

/// Adds the new lines to the file, with those that other sessions have written meanwhile.
fn append(editor: &mut Editor<Assistant, FileHistory>, path: &Path) {
    if editor.history().is_empty() {
        return;
    }
    // A disk that is full must not end the session.
    let _ = private_file(path).and_then(|()| editor.append_history(path).map_err(io::Error::other));
}

/// Makes the file, for nobody else to read: what is sent may be secret.
fn private_file(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path).map(drop)
}

/// By the XDG Base Directory Specification, in the folder for state.
fn history_file() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
        .or_else(|| folder("LOCALAPPDATA"))?;
    Some(state.join("taut").join("connect-history"))
}

/// Completes commands, and files behind those that take one; and passes on what is drawn.
struct Assistant {
    files: FilenameCompleter,
    above: Above,
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..at];
        if let Some(start) = ["/send-file ", "/binary @"].iter().find(|start| typed.starts_with(**start)) {
            let (offset, found) = self.files.complete(&line[start.len()..], at - start.len(), context)?;
            return Ok((offset + start.len(), found));
        }
        let names = commands::names().filter(|name| typed.starts_with('/') && name.starts_with(typed));
        let pairs = names.map(|name| Pair { display: name.to_owned(), replacement: format!("{name} ") });
        Ok((0, pairs.collect()))
    }
}

impl Helper for Assistant {}

impl Highlighter for Assistant {
    fn highlight<'l>(&self, line: &'l str, at: usize) -> Cow<'l, str> {
        self.above.line(line, at);
        Cow::Borrowed(line)
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        self.above.prompt(prompt);
        Cow::Borrowed(prompt)
    }

    fn highlight_char(&self, line: &str, at: usize, _: CmdKind) -> bool {
        self.above.line(line, at);
        false
    }
}

impl Hinter for Assistant {
    type Hint = String;

    fn hint(&self, line: &str, at: usize, _: &Context<'_>) -> Option<String> {
        self.above.line(line, at);
        None
    }
}

impl Validator for Assistant {
    /// Asked when Enter was pressed: from now on the line stays as it is.
    fn validate(&self, _: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        self.above.end();
        Ok(ValidationResult::Valid(None))
    }
}

/// How the terminal was before the editor changed it: the editor's thread still reads when the command ends.
pub(super) struct Terminal {
    #[cfg(unix)]
    saved: Option<nix::sys::termios::Termios>,
}

impl Terminal {
    fn save() -> Self {
        Self {
            #[cfg(unix)]
            saved: nix::sys::termios::tcgetattr(io::stdin()).ok(),
        }
    }

    /// Puts it back.
    pub(super) fn restore(&self) {
        #[cfg(unix)]
        if let Some(saved) = &self.saved {
            let _ = nix::sys::termios::tcsetattr(io::stdin(), nix::sys::termios::SetArg::TCSADRAIN, saved);
            // No bracketed paste; the prompt that waits is wiped.
            write_to_terminal(b"\x1b[?2004l\r\x1b[K");
        }
    }
}

/// Where the editor writes: stdout and stderr may lead elsewhere.
#[cfg(unix)]
fn write_to_terminal(bytes: &[u8]) {
    if let Ok(mut terminal) = OpenOptions::new().write(true).open("/dev/tty") {
        let _ = terminal.write_all(bytes);
    } else if io::stdout().is_terminal() {
        let _ = io::stdout().lock().write_all(bytes);
    }
}

/// Lines of the history.
const LINES: usize = 10_000;
