//! Nothing is told: the server without the feature `otel`.

#![expect(clippy::unused_self, reason = "there is nothing to look at, and with the feature there is")]

use axum::extract::Request;
use http::StatusCode;
use taut_proto::handshake;

#[derive(Debug)]
pub(crate) struct Span;

impl Span {
    pub(crate) fn answering(_: &Request, _: &'static str, _: &str, _: bool) -> Self {
        Self
    }

    pub(crate) fn upgrading(_: &handshake::Request<'_>, _: &str) -> Self {
        Self
    }

    pub(crate) fn asking<B>(_: &'static str, _: &str, _: &mut http::Request<B>) -> Self {
        Self
    }

    pub(crate) fn within(_: &'static str) -> Self {
        Self
    }

    pub(crate) fn follow<F: Future>(&self, future: F) -> F {
        future
    }

    pub(crate) fn trace_id(&self) -> Option<&'static str> {
        None
    }

    pub(crate) fn count(&self, _: &'static str, _: usize) {}

    pub(crate) fn answered(self, _: StatusCode) {}

    pub(crate) fn heard(self, _: Result<StatusCode, &str>) {}

    pub(crate) fn failed(&self, _: &'static str) {}

    pub(crate) fn end(self) {}
}

#[derive(Debug)]
pub(crate) struct Steps;

impl Steps {
    pub(crate) fn begin() -> Self {
        Self
    }

    pub(crate) fn next(&mut self) {}

    pub(crate) fn published(
        self,
        _: &handshake::Request<'_>,
        _: &str,
        _: &str,
        _: bool,
        _: &str,
        _: usize,
    ) -> Option<&'static str> {
        None
    }
}

pub(crate) fn name_app(_: &str) {}
