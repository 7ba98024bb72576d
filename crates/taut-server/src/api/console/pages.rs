//! The files of the console, part of the program.

use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderName;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

use super::super::pages::{BASE, POLICY};
use super::super::route::{Area, Route};

/// A file of the console. Unlike the chat's, it is not for pages of other sites.
struct File {
    content_type: &'static str,
    content: &'static [u8],
}

impl IntoResponse for File {
    fn into_response(self) -> Response {
        let headers: [(HeaderName, &str); 6] = [
            (CONTENT_TYPE, self.content_type),
            // A newer server brings newer pages.
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ];
        (headers, self.content).into_response()
    }
}

macro_rules! file {
    ($path:expr, $kind:literal, $content:expr) => {
        Route::new(Area::ConsolePages, $path, || {
            get(async || File { content_type: concat!($kind, "; charset=utf-8"), content: $content })
        })
        .counted_as("/console")
    };
}

macro_rules! script {
    ($name:literal) => {
        file!(
            concat!("/console/", $name),
            "text/javascript",
            include_bytes!(concat!("../../../../../web/console/", $name))
        )
    };
}

pub(crate) const ROUTES: [Route; 10] = [
    file!("/console", "text/html", include_bytes!("../../../../../web/console/index.html")),
    // Here as well, since a proxy may pass on nothing but the console.
    file!("/console/base.css", "text/css", BASE),
    file!("/console/console.css", "text/css", include_bytes!("../../../../../web/console/console.css")),
    script!("console.js"),
    script!("channels.js"),
    script!("connections.js"),
    script!("dom.js"),
    script!("events.js"),
    script!("overview.js"),
    script!("plot.js"),
];
