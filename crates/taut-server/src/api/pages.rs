//! The pages that the server carries.

use axum::response::{IntoResponse, Response};
use http::HeaderName;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};

/// A file that is part of the program.
#[derive(Clone, Copy)]
pub(crate) struct Page {
    pub(crate) path: &'static str,
    content_type: &'static str,
    content: &'static [u8],
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let headers: [(HeaderName, &str); 6] = [
            // Pages of other sites may use taut.js; there is nothing secret in any of these files.
            (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (CONTENT_TYPE, self.content_type),
            // A newer server brings newer pages.
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (headers, self.content).into_response()
    }
}

/// The chat: a page with which a newcomer sees two browser tabs talk to each other.
pub(crate) const PAGES: [Page; 5] = [
    Page { path: "/", content_type: "text/html; charset=utf-8", content: include_bytes!("../../../../web/index.html") },
    Page { path: "/base.css", content_type: "text/css; charset=utf-8", content: BASE },
    Page {
        path: "/chat.css",
        content_type: "text/css; charset=utf-8",
        content: include_bytes!("../../../../web/chat.css"),
    },
    Page {
        path: "/chat.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_bytes!("../../../../web/chat.js"),
    },
    Page {
        path: "/taut.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_bytes!("../../../../web/taut.js"),
    },
];

/// The rules that all pages have in common.
pub(super) const BASE: &[u8] = include_bytes!("../../../../web/base.css");

/// Nothing but what this server carries runs, and nobody else may put the page into a frame. The icon is a `data:` URL.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
