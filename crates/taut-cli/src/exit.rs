//! The exit codes of the command: one list, for all of its commands.

use std::fmt::Write as _;
use std::process::ExitCode;

use taut::{CloseCode, Error};

/// Declares the codes with the texts that the help and the documentation show for them.
macro_rules! exits {
    ($($(#[doc = $text:literal])+ $name:ident = $code:literal,)+) => {
        /// How a command ended. Scripts tell causes apart by the numbers, so none ever changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Exit {
            $($(#[doc = $text])+ $name = $code,)+
        }

        impl Exit {
            /// Every code and its meaning.
            pub(crate) const ALL: &[(Self, &str)] = &[$((Self::$name, concat!($($text),+)),)+];
        }
    };
}

exits! {
    /// All went well; the connection was closed with 1000, 1001 or without a code.
    Done = 0,
    /// The command could not do its work, or a check found something.
    Failed = 1,
    /// Could not connect: the name, the address, or no handshake in time.
    Unreachable = 2,
    /// TLS failed, such as because of the certificate.
    Tls = 3,
    /// The proxy refused, or could not be used.
    Proxy = 4,
    /// The server refused: the handshake, a subscription or a request; what it said is printed.
    Refused = 5,
    /// The protocol was broken, by the peer or by us: close codes 1002, 1003, 1007.
    Protocol = 6,
    /// A message was too big: close code 1009.
    TooBig = 7,
    /// The peer closed with another code: 1008, 1011, 3000 to 4999 and the rest.
    Closed = 8,
    /// The connection was lost: without a close frame (1006), or in the middle of a message.
    Lost = 9,
    /// The peer fell silent and did not answer pings.
    Silent = 10,
    /// The connection ended before a message met `--expect`, or before any came with `--once`.
    Unmet = 11,
    /// The command line is wrong (of `taut route test`, also the configuration).
    Usage = 64,
    /// `--timeout` has passed.
    TimedOut = 124,
    /// Ended by SIGINT (Ctrl-C).
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// The code for a connection that could not be opened, or that failed.
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            _ if error.is_invalid() => Self::Usage,
            _ if error.is_proxy() => Self::Proxy,
            _ if error.is_tls() => Self::Tls,
            _ if error.is_handshake() => Self::Refused,
            _ if error.is_silent() => Self::Silent,
            // The close code may be a good one, but what was received is not the message.
            _ if error.is_cut_off() => Self::Lost,
            _ => match error.close_code() {
                Some(code) => Self::of_close(code),
                None if error.is_connect() || error.is_io() || error.is_timeout() => Self::Unreachable,
                None => Self::Failed,
            },
        }
    }

    /// The code for a connection that was closed with this code, by the peer or because of it.
    pub(crate) fn of_close(code: CloseCode) -> Self {
        match code.as_u16() {
            1000 | 1001 | 1005 => Self::Done,
            1002 | 1003 | 1007 => Self::Protocol,
            1006 => Self::Lost,
            1009 => Self::TooBig,
            _ => Self::Closed,
        }
    }

    /// Whether a signal has ended the command.
    pub(crate) fn is_signal(self) -> bool {
        matches!(self, Self::Interrupted | Self::Terminated)
    }

    /// The part of a command's help that lists the codes.
    pub(crate) fn help() -> String {
        let mut help = "Exit codes:\n".to_owned();
        for (exit, meaning) in Self::ALL {
            // Writing to a `String` cannot fail.
            let _ = writeln!(help, "  {:>3}  {}", *exit as u8, meaning.trim());
        }
        help
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use taut::{Client, Close, Heartbeat, Proxy, Settings};

    use super::*;

    #[test]
    fn a_close_code_is_an_exit_code() {
        for (code, exit) in [
            (1000, Exit::Done),
            (1001, Exit::Done),
            (1005, Exit::Done),
            (1002, Exit::Protocol),
            (1003, Exit::Protocol),
            (1007, Exit::Protocol),
            (1009, Exit::TooBig),
            (1006, Exit::Lost),
            (1008, Exit::Closed),
            (1011, Exit::Closed),
            (4001, Exit::Closed),
        ] {
            assert_eq!(Exit::of_close(CloseCode::new(code)), exit, "{code}");
            let error = Error::from(Close::new(CloseCode::new(code), "why"));
            assert_eq!(Exit::of(&error), exit, "{code}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_opened_has_the_code_of_its_cause() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let (not_found, hangs_up) = (answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"), answering(""));
        let proxy = Proxy::http(&format!("http://{not_found}")).unwrap();
        let client = |url: String| Client::new(&url).no_proxy();
        for (client, exit) in [
            (client(format!("ws://{unused}/")), Exit::Unreachable),
            (client("ws://nobody.invalid/".to_owned()), Exit::Unreachable),
            (client(format!("ws://{hangs_up}/")), Exit::Unreachable),
            (
                client(format!("ws://{}/", silent.local_addr().unwrap())).connect_timeout(Duration::from_millis(20)),
                Exit::Unreachable,
            ),
            (client("ftp://a.example/".to_owned()), Exit::Usage),
            (client(format!("ws://{not_found}/")), Exit::Refused),
            (client(format!("wss://{not_found}/")), Exit::Tls),
            (client("ws://a.example/".to_owned()).proxy(proxy), Exit::Proxy),
        ] {
            let error = client.connect().await.unwrap_err();
            assert_eq!(Exit::of(&error), exit, "{error}");
        }
        assert_eq!(Exit::of(&Error::other("a mistake")), Exit::Failed);
    }

    #[tokio::test]
    async fn a_peer_that_falls_silent_has_a_code_of_its_own() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let moment = Duration::from_millis(20);
        let mut settings = Settings::client();
        settings.heartbeat = Heartbeat { interval: moment, timeout: moment };
        let client = Client::new(&format!("ws://{}/", listener.local_addr().unwrap())).no_proxy().settings(settings);
        let accepted = async { taut::accept(listener.accept().await.unwrap().0).await.unwrap() };
        // It answers pings only while somebody receives.
        let (_silent, socket) = tokio::join!(accepted, client.connect());
        let error = socket.unwrap().recv().await.unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Silent, "{error}");
    }

    /// A server that answers whatever it is sent with this, and hangs up.
    fn answering(response: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(response.as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn a_signal_has_a_code_above_128_as_in_a_shell() {
        for (exit, _) in Exit::ALL {
            assert_eq!(exit.is_signal(), *exit as u8 > 128, "{exit:?}");
        }
    }

    #[test]
    fn the_help_and_the_page_list_every_code() {
        let page = include_str!("../../../docs/terminal.md");
        let help = Exit::help();
        for (exit, meaning) in Exit::ALL {
            let (code, meaning) = (*exit as u8, meaning.trim());
            assert!(help.contains(&format!("{code:>3}  {meaning}\n")), "{help}");
            assert!(page.contains(&format!("| {code} | {meaning} |\n")), "docs/terminal.md: | {code} | {meaning} |");
        }
    }
}
