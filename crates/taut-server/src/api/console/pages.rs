//! The files of the console, part of the program.

use axum::response::{IntoResponse, Response};
use http::HeaderName;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

use super::super::pages::{BASE, POLICY};

/// A file of the console.
#[derive(Clone, Copy)]
pub(super) struct File {
    pub(super) path: &'static str,
    content_type: &'static str,
    content: &'static [u8],
}

/// The answer to who asks for one. Other than the chat's, these files are for no other site's pages.
pub(super) struct Shown(pub(super) File);

impl IntoResponse for Shown {
    fn into_response(self) -> Response {
        let headers: [(HeaderName, &str); 6] = [
            (CONTENT_TYPE, self.0.content_type),
            // A newer server brings newer pages.
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ];
        (headers, self.0.content).into_response()
    }
}

macro_rules! file {
    ($path:literal, $kind:expr, $name:literal) => {
        File {
            path: $path,
            content_type: $kind,
            content: include_bytes!(concat!("../../../../../web/console/", $name)),
        }
    };
}

pub(super) const PAGES: [File; 10] = [
    file!("/console", HTML, "index.html"),
    // Here as well, since a proxy may pass on nothing but the console.
    File { path: "/console/base.css", content_type: CSS, content: BASE },
    file!("/console/console.css", CSS, "console.css"),
    file!("/console/console.js", SCRIPT, "console.js"),
    file!("/console/channels.js", SCRIPT, "channels.js"),
    file!("/console/connections.js", SCRIPT, "connections.js"),
    file!("/console/dom.js", SCRIPT, "dom.js"),
    file!("/console/events.js", SCRIPT, "events.js"),
    file!("/console/overview.js", SCRIPT, "overview.js"),
    file!("/console/plot.js", SCRIPT, "plot.js"),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
