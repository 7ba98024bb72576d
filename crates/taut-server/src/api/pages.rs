//! The pages that the server carries.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderName;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};

use super::Context;
use super::route::{Area, Route};

/// A file that is part of the program.
struct Page {
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

macro_rules! page {
    ($path:literal, $kind:literal, $content:expr) => {
        Route::new(Area::Chat, $path, || {
            get(async || Page { content_type: concat!($kind, "; charset=utf-8"), content: $content })
        })
    };
}

/// The chat: a page with which a newcomer sees two browser tabs talk to each other. A server with apps of its own says what it is instead.
pub(super) const ROUTES: [Route; 6] = [
    Route::new(Area::Chat, "/", || get(root)),
    page!("/base.css", "text/css", BASE),
    page!("/server.css", "text/css", include_bytes!("../../../../web/server.css")),
    page!("/chat.css", "text/css", include_bytes!("../../../../web/chat.css")),
    page!("/chat.js", "text/javascript", include_bytes!("../../../../web/chat.js")),
    page!("/taut.js", "text/javascript", include_bytes!("../../../../web/taut.js")),
];

/// `GET /`: the chat while the development app is served, and otherwise what somebody may know who has come here by chance: neither version
/// nor apps.
async fn root(State(context): State<Arc<Context>>) -> Page {
    let has_chat = context.node().apps().development_app().is_some();
    let chat: &[u8] = include_bytes!("../../../../web/index.html");
    let server: &[u8] = include_bytes!("../../../../web/server.html");
    Page { content_type: "text/html; charset=utf-8", content: if has_chat { chat } else { server } }
}

/// The rules that all pages have in common.
pub(super) const BASE: &[u8] = include_bytes!("../../../../web/base.css");

/// Nothing but what this server carries runs, and nobody else may put the page into a frame. The icon is a `data:` URL.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
