//! What the tests share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::client::Request;
use super::parameters::Parameters;

/// A directory that is removed afterwards.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("taut-fastcgi-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A request for a script, with a secret in each place where a client can put one.
pub(crate) fn post<'a>(script: &'a str, headers: &'a [(&'a str, &'a [u8])], body: &'a [u8]) -> Request<'a> {
    let parameters = Parameters {
        method: "POST",
        script_filename: script,
        document_root: "/",
        script_name: "/script.php",
        request_uri: "/chat?token=hunter2",
        query_string: "token=hunter2",
        protocol: "HTTP/1.1",
        content_type: Some("application/octet-stream"),
        remote: "192.0.2.7:51000".parse().expect("an address"),
        server: "127.0.0.1:8080".parse().expect("an address"),
        server_name: "example.com",
        is_https: true,
        headers,
    };
    Request { parameters, body }
}

/// Later than any test takes.
pub(crate) fn later() -> Instant {
    Instant::now() + Duration::from_secs(30)
}
