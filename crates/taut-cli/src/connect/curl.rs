//! A browser's “Copy as cURL”: the options that it writes, understood.

use std::path::PathBuf;

use crate::dial::{DialArguments, duration, split_scheme};

/// What a line for curl asks for.
#[derive(Default)]
pub(super) struct Copied {
    pub(super) url: String,
    pub(super) dial: DialArguments,
    pub(super) is_verbose: bool,
}

impl Copied {
    /// Reads the words behind `curl`, as the shell has split them. What was given for ourselves stays as it is;
    /// `is_ours` knows these options.
    ///
    /// # Errors
    /// An option is not known or lacks its value, or there is not one URL.
    pub(super) fn parse(words: &[String], dial: DialArguments, is_ours: impl Fn(&str) -> bool) -> Result<Self, String> {
        let mut copied = Self { dial, ..Self::default() };
        let mut headers = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some((option, attached)) = split_option(word) else {
                copied.set_url(word)?;
                continue;
            };
            if let Some(set) = flag(option) {
                set(&mut copied);
                continue;
            }
            if !takes_value(option) {
                let advice = if is_ours(option) { "give taut's own options before `curl`" } else { "leave it out" };
                return Err(format!("curl's option {option} is not understood here; {advice}"));
            }
            let value = attached.map(str::to_owned).or_else(|| words.next().cloned());
            let value = value.ok_or_else(|| format!("curl's option {option} needs a value"))?;
            match option {
                "-H" | "--header" => headers.push(value),
                "--url" => copied.set_url(&value)?,
                _ => set_value(&mut copied.dial, option, value)?,
            }
        }
        if copied.url.is_empty() {
            return Err("the copied curl command has no URL".to_owned());
        }
        for header in headers {
            copied.take_header(&header)?;
        }
        // As for curl, the file of the certificate may hold the key.
        copied.dial.key = copied.dial.key.or_else(|| copied.dial.cert.clone());
        if copied.dial.cert.is_none() && copied.dial.key.is_some() {
            return Err("curl's option --key needs a certificate: --cert".to_owned());
        }
        Ok(copied)
    }

    fn set_url(&mut self, url: &str) -> Result<(), String> {
        if !self.url.is_empty() {
            return Err(format!("there are two URLs: {} and {url}; quote what belongs together", self.url));
        }
        url.clone_into(&mut self.url);
        Ok(())
    }

    /// Takes a header over, unless it belongs to the handshake, which is made anew.
    fn take_header(&mut self, header: &str) -> Result<(), String> {
        // curl: `Name;` sends an empty header, and `Name:` removes a header that curl would send.
        let (name, value) = match header.split_once(':') {
            Some((name, value)) => (name.trim(), value.trim()),
            None => (header.trim_end_matches(';'), ""),
        };
        match name.to_ascii_lowercase().as_str() {
            "sec-websocket-extensions" => self.dial.deflate |= value.contains("permessage-deflate"),
            name if is_made_anew(name) || (name == "host" && value.eq_ignore_ascii_case(host_of(&self.url))) => {}
            "sec-websocket-protocol" => {
                let names = value.split(',').map(|name| name.trim().to_owned());
                self.dial.subprotocols.extend(names.filter(|name| !name.is_empty()));
            }
            "origin" => {
                self.dial.origin.get_or_insert_with(|| value.to_owned());
            }
            _ if name.starts_with('@') => {
                return Err("headers from a file: give taut -H @FILE before curl".to_owned());
            }
            // `Name:` alone takes one of curl's own headers away.
            _ if !value.is_empty() || header.ends_with(';') => self.dial.headers.push(format!("{name}: {value}")),
            _ => {}
        }
        Ok(())
    }
}

/// What the handshake writes itself. `Accept-Encoding` is about a body, which a WebSocket has not.
fn is_made_anew(name: &str) -> bool {
    ["connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "accept-encoding"].contains(&name)
}

/// An option and the value that is attached to it, as in `--proxy=URL` and `-HName: value`.
fn split_option(word: &str) -> Option<(&str, Option<&str>)> {
    if let Some(long) = word.strip_prefix("--") {
        return Some(match long.split_once('=') {
            Some((name, value)) => (&word[..name.len() + 2], Some(value)),
            None => (word, None),
        });
    }
    if word.len() < 2 || !word.starts_with('-') {
        return None;
    }
    let end = word.char_indices().nth(2).map_or(word.len(), |(index, _)| index);
    let (option, rest) = word.split_at(end);
    let has_value = !rest.is_empty() && takes_value(option);
    Some(if has_value { (option, Some(rest)) } else { (word, None) })
}

/// What an option without a value sets.
fn flag(option: &str) -> Option<fn(&mut Copied)> {
    Some(match option {
        "-k" | "--insecure" => |copied| copied.dial.insecure = true,
        "-v" | "--verbose" => |copied| copied.is_verbose = true,
        // Of a body; for a WebSocket it is the browser's offer of permessage-deflate, which is a header.
        "--compressed" => |_| {},
        // How curl itself behaves.
        "-i" | "--include" | "-s" | "--silent" | "-S" | "--show-error" | "-N" | "--no-buffer" | "-sS" | "-L"
        | "--location" | "-g" | "--globoff" | "--http1.1" | "--http1.0" | "--path-as-is" => |_| {},
        _ => return None,
    })
}

fn takes_value(option: &str) -> bool {
    matches!(option, "-H" | "--header" | "-X" | "--request" | "--url") || VALUES.contains(&option)
}

fn set_value(dial: &mut DialArguments, option: &str, value: String) -> Result<(), String> {
    match option {
        // A file would be read for it here, and sent: a line from a stranger must not choose one.
        "-b" | "--cookie" | "-u" | "--user" | "--oauth2-bearer" if value.starts_with('@') => {
            return Err(format!(
                "curl's option {option} has a value that begins with @: give --cookie, --basic or --bearer before it"
            ));
        }
        "-b" | "--cookie" if !value.contains('=') => {
            return Err("curl reads cookies from that file; give --cookie @FILE before `curl`".to_owned());
        }
        "-b" | "--cookie" => dial.cookies.push(value),
        "-A" | "--user-agent" => dial.headers.push(format!("User-Agent: {value}")),
        "-e" | "--referer" => dial.headers.push(format!("Referer: {value}")),
        "-u" | "--user" => dial.basic = Some(value),
        "-x" | "--proxy" => {
            dial.proxy = Some(if value.contains("://") { value } else { format!("http://{value}") });
        }
        "--cacert" => dial.cacert = Some(PathBuf::from(value)),
        "-E" | "--cert" => dial.cert = Some(PathBuf::from(value)),
        "--key" => dial.key = Some(PathBuf::from(value)),
        "--oauth2-bearer" => dial.bearer = Some(value),
        "--connect-timeout" => dial.connect_timeout = Some(duration(&value)?),
        "--unix-socket" => set_unix(dial, value),
        // `-X GET` is what a WebSocket's handshake is.
        _ if value.eq_ignore_ascii_case("get") => {}
        _ => return Err(format!("a WebSocket begins with GET; {option} {value} cannot be")),
    }
    Ok(())
}

#[cfg(unix)]
fn set_unix(dial: &mut DialArguments, path: String) {
    dial.unix = Some(PathBuf::from(path));
}

#[cfg(not(unix))]
fn set_unix(_: &mut DialArguments, _: String) {}

/// Host and port of a URL, as a browser writes them into `Host`.
fn host_of(url: &str) -> &str {
    let rest = split_scheme(url).map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default()
}

const VALUES: &[&str] = &[
    "-b",
    "--cookie",
    "-A",
    "--user-agent",
    "-e",
    "--referer",
    "-u",
    "--user",
    "-x",
    "--proxy",
    "--cacert",
    "-E",
    "--cert",
    "--key",
    "--oauth2-bearer",
    "--connect-timeout",
    "--unix-socket",
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn copied(words: &[&str]) -> Result<Copied, String> {
        let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        Copied::parse(&words, DialArguments::default(), |option| option == "--json")
    }

    #[test]
    fn what_chrome_copies_is_understood() {
        let copied = copied(&[
            "wss://app.example/feed?room=1",
            "-H",
            "Upgrade: websocket",
            "-H",
            "Origin: https://app.example",
            "-H",
            "Cache-Control: no-cache",
            "-H",
            "Accept-Language: de-DE,de;q=0.9",
            "-H",
            "Pragma: no-cache",
            "-H",
            "Connection: Upgrade",
            "-H",
            "Sec-WebSocket-Key: 3sGyXYQ4qUW3xJ0mPmOqTw==",
            "-b",
            "session=s3cret; theme=dark",
            "-H",
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Chrome/141.0.0.0",
            "-H",
            "Sec-WebSocket-Version: 13",
            "-H",
            "Sec-WebSocket-Protocol: graphql-ws, json",
            "-H",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            "--insecure",
        ])
        .unwrap();
        assert_eq!(copied.url, "wss://app.example/feed?room=1");
        let dial = &copied.dial;
        assert_eq!(dial.origin.as_deref(), Some("https://app.example"));
        assert_eq!(dial.cookies, ["session=s3cret; theme=dark"]);
        assert_eq!(dial.subprotocols, ["graphql-ws", "json"]);
        assert!(dial.deflate && dial.insecure);
        assert_eq!(dial.headers.len(), 4, "{:?}", dial.headers);
        assert!(
            dial.headers.iter().all(|header| !header.starts_with("Sec-WebSocket") && !header.starts_with("Upgrade"))
        );
        dial.client(&copied.url).unwrap();
    }

    #[test]
    fn what_firefox_copies_is_understood() {
        let copied = copied(&[
            "https://app.example:8443/feed",
            "--compressed",
            "-H",
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
            "-H",
            "Accept: */*",
            "-H",
            "Accept-Encoding: gzip, deflate, br, zstd",
            "-H",
            "Sec-WebSocket-Version: 13",
            "-H",
            "Origin: https://app.example",
            "-H",
            "Sec-WebSocket-Extensions: permessage-deflate",
            "-H",
            "Sec-WebSocket-Key: hqvB7ZVmqdYXHTm3mPdZmg==",
            "-H",
            "Connection: keep-alive, Upgrade",
            "-H",
            "Cookie: a=b",
            "-H",
            "Sec-Fetch-Dest: empty",
            "-H",
            "Host: app.example:8443",
            "-H",
            "Upgrade: websocket",
        ])
        .unwrap();
        assert!(copied.dial.deflate && !copied.dial.insecure);
        let names: Vec<_> = copied.dial.headers.iter().filter_map(|header| header.split(':').next()).collect();
        assert_eq!(names, ["User-Agent", "Accept", "Cookie", "Sec-Fetch-Dest"]);
        copied.dial.client(&copied.url).unwrap();
    }

    #[test]
    fn options_may_be_attached_and_another_host_stays() {
        let copied = copied(&[
            "-HX-A: 1",
            "--proxy=proxy.example:3128",
            "-u",
            "me:you",
            "--url",
            "ws://127.0.0.1/",
            "-H",
            "Host: a.example",
            "-X",
            "GET",
            "-H",
            "X-Empty;",
            "-H",
            "User-Agent:",
        ])
        .unwrap();
        assert_eq!(copied.dial.headers, ["X-A: 1", "Host: a.example", "X-Empty: "]);
        assert_eq!(copied.dial.proxy.as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(copied.dial.basic.as_deref(), Some("me:you"));
    }

    #[test]
    fn the_key_may_be_in_the_file_of_the_certificate() {
        let of = |words: &[&str]| copied(words).unwrap().dial;
        let dial = of(&["wss://a/", "-E", "client.pem"]);
        assert_eq!((&dial.key, dial.key.is_some()), (&dial.cert, true));
        let dial = of(&["wss://a/", "--key", "key.pem", "--cert", "client.pem"]);
        assert_eq!(dial.key, Some(PathBuf::from("key.pem")));
        assert!(copied(&["wss://a/", "-v"]).unwrap().is_verbose && !copied(&["wss://a/"]).unwrap().is_verbose);
    }

    #[test]
    fn a_line_from_a_stranger_reads_no_file() {
        for words in [
            ["-b", "@/etc/passwd"],
            ["-b", "cookies.txt"],
            ["-u", "@/etc/passwd"],
            ["--oauth2-bearer", "@/etc/passwd"],
            ["-H", "@/etc/passwd"],
            ["-H", " @/etc/passwd: x"],
        ] {
            let error = copied(&[&["ws://a/"][..], &words].concat()).err().expect("an error");
            assert!(error.contains("before") && !error.contains(words[1]), "{error}");
        }
    }

    #[test]
    fn options_that_browsers_do_not_copy_are_understood_too() {
        let line = "-sS -L --http1.1 -A me/1.0 -e https://a.example/ --cacert ca.pem -E cert.pem --key key.pem \
            --oauth2-bearer t0ken --connect-timeout 2.5 --unix-socket /run/app.sock ws://localhost/feed";
        let Copied { url, dial, is_verbose } = copied(&line.split_whitespace().collect::<Vec<_>>()).unwrap();
        assert_eq!(url, "ws://localhost/feed");
        assert!(!is_verbose);
        assert_eq!(dial.headers, ["User-Agent: me/1.0", "Referer: https://a.example/"]);
        let path = |name: &str| Some(PathBuf::from(name));
        assert_eq!((dial.cacert, dial.cert, dial.key), (path("ca.pem"), path("cert.pem"), path("key.pem")));
        assert_eq!(dial.bearer.as_deref(), Some("t0ken"));
        assert_eq!(dial.connect_timeout, Some(Duration::from_millis(2500)));
        #[cfg(unix)]
        assert_eq!(dial.unix, path("/run/app.sock"));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (words, part) in [
            (&["ws://a/", "--data-raw", "x"][..], "--data-raw is not understood"),
            (&["ws://a/", "-d", "x"], "-d is not understood"),
            (&["ws://a/", "--json"], "before `curl`"),
            (&["ws://a/", "--key", "k.pem"], "--cert"),
            (&["ws://a/", "-X", "POST"], "POST"),
            (&["ws://a/", "-H", "@headers.txt"], "give taut -H @FILE before curl"),
            (&["ws://a/", "ws://b/"], "two URLs"),
            (&["-H", "a: b"], "no URL"),
            (&["ws://a/", "-H"], "needs a value"),
        ] {
            assert!(copied(words).err().unwrap().contains(part), "{words:?}");
        }
    }
}
