//! The browser's own WebSocket, and what it has told us.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use gloo_timers::callback::Timeout;
use js_sys::{Array, ArrayBuffer, JsString, Uint8Array};
use taut_proto::{Close, CloseCode, Message};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{BinaryType, CloseEvent, MessageEvent};

use crate::Error;
use crate::error::{Cause, OVERFLOW};

/// The browser's own WebSocket, and what it has told us. Dropping it closes it.
pub(crate) struct Link {
    socket: web_sys::WebSocket,
    state: Rc<RefCell<State>>,
    /// Since we have begun to close.
    closing: RefCell<Option<Timeout>>,
    subprotocol: OnceCell<Box<str>>,
    /// The browser may call them for as long as they are set.
    _on_open: Closure<dyn FnMut()>,
    _on_message: Closure<dyn FnMut(MessageEvent)>,
    _on_close: Closure<dyn FnMut(CloseEvent)>,
}

impl Link {
    /// Begins to connect.
    pub(crate) fn open(url: &str, subprotocols: &[String]) -> Result<Self, Error> {
        let offered: Array = subprotocols.iter().map(|name| JsValue::from_str(name)).collect();
        let socket = web_sys::WebSocket::new_with_str_sequence(url, &offered).map_err(|thrown| refused(&thrown))?;
        socket.set_binary_type(BinaryType::Arraybuffer);
        let state = Rc::new(RefCell::new(State::default()));

        let opening = Rc::clone(&state);
        let on_open = Closure::new(move || update(&opening, |state| state.phase = Phase::Open));
        socket.set_onopen(Some(on_open.as_ref().unchecked_ref()));

        let receiving = Rc::clone(&state);
        let reader = socket.clone();
        let on_message = Closure::new(move |event: MessageEvent| {
            update(&receiving, |state| state.received(&event.data(), &reader));
        });
        socket.set_onmessage(Some(on_message.as_ref().unchecked_ref()));

        let ending = Rc::clone(&state);
        let on_close = Closure::new(move |event: CloseEvent| update(&ending, |state| state.closed(&event)));
        socket.set_onclose(Some(on_close.as_ref().unchecked_ref()));

        Ok(Self {
            socket,
            state,
            closing: RefCell::default(),
            subprotocol: OnceCell::new(),
            _on_open: on_open,
            _on_message: on_message,
            _on_close: on_close,
        })
    }

    pub(crate) async fn opened(&self, timeout: Duration) -> Result<(), Error> {
        let _deadline = self.after(timeout, move |state| {
            if matches!(state.phase, Phase::Connecting) {
                state.fail(Cause::Connect(timeout));
            }
        });
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            match (&state.failure, &state.phase) {
                (Some(error), _) => Poll::Ready(Err(error.clone())),
                (None, Phase::Connecting) => state.wait(cx),
                // That it has been closed since is for `recv` to say.
                (None, Phase::Open | Phase::Over) => Poll::Ready(Ok(())),
            }
        })
        .await
    }

    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Message<'static>>, Error>> {
        let mut state = self.state.borrow_mut();
        if let Some(message) = state.inbox.pop_front() {
            state.bytes -= message.as_bytes().len();
            return Poll::Ready(Ok(Some(message)));
        }
        match (&state.failure, &state.phase) {
            (Some(error), _) => Poll::Ready(Err(error.clone())),
            (None, Phase::Over) => Poll::Ready(Ok(None)),
            (None, _) => state.wait(cx),
        }
    }

    /// Receives a message and lends it to `receive`.
    pub(crate) async fn recv_with<T>(&self, receive: impl FnOnce(Message<'_>) -> T) -> Result<Option<T>, Error> {
        Ok(poll_fn(|cx| self.poll_recv(cx)).await?.map(receive))
    }

    pub(crate) async fn send(&self, message: &Message<'_>) -> Result<(), Error> {
        self.pending_below(OUTGOING).await?;
        self.try_send(message)
    }

    pub(crate) fn try_send(&self, message: &Message<'_>) -> Result<(), Error> {
        self.sendable()?;
        if self.pending() >= OUTGOING {
            return Err(Cause::Full.into());
        }
        match message {
            Message::Text(text) => self.socket.send_with_str(text),
            Message::Binary(bytes) => self.socket.send_with_u8_array(bytes),
        }
        // It throws only while it connects.
        .map_err(|_| Cause::Closed.into())
    }

    /// Waits until everything is handed to the browser's network.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        self.pending_below(1).await
    }

    pub(crate) async fn close(&self, close: &Close) -> Result<(), Error> {
        let code = close.code();
        // WHATWG WebSockets, `close()`.
        if !matches!(code.as_u16(), 1000 | 3000..=4999) && code != CloseCode::NO_STATUS {
            return Err(Cause::CloseCode(code).into());
        }
        self.begin_to_close(close);
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            match (&state.failure, &state.phase) {
                (Some(error), _) => Poll::Ready(Err(error.clone())),
                (None, Phase::Over) => Poll::Ready(Ok(())),
                (None, _) => state.wait(cx),
            }
        })
        .await
    }

    pub(crate) fn is_open(&self) -> bool {
        self.sendable().is_ok()
    }

    pub(crate) fn pending(&self) -> usize {
        // WHATWG WebSockets: when the connection is closed, the browser leaves it as it was.
        let is_over = self.socket.ready_state() == web_sys::WebSocket::CLOSED;
        if is_over { 0 } else { self.socket.buffered_amount() as usize }
    }

    /// The subprotocol that was selected; asked for once it is open.
    pub(crate) fn subprotocol(&self) -> Option<&str> {
        let name = self.subprotocol.get_or_init(|| self.socket.protocol().into());
        Some(&**name).filter(|name| !name.is_empty())
    }

    pub(crate) fn peer_close(&self) -> Option<Close> {
        self.state.borrow().peer_close.clone()
    }

    fn begin_to_close(&self, close: &Close) {
        let mut closing = self.closing.borrow_mut();
        if closing.is_some() || self.sendable().is_err() {
            return;
        }
        let code = close.code();
        let begun = if code == CloseCode::NO_STATUS {
            self.socket.close()
        } else {
            self.socket.close_with_code_and_reason(code.as_u16(), close.reason())
        };
        debug_assert!(begun.is_ok(), "the code was checked, and a Close has no reason that is too long");
        self.state.borrow_mut().is_closing = true;
        *closing = Some(self.after(CLOSE, |state| {
            if !matches!(state.phase, Phase::Over) {
                state.fail(Cause::Close);
            }
        }));
    }

    /// Whether, and if not why not.
    fn sendable(&self) -> Result<(), Error> {
        if let Some(error) = &self.state.borrow().failure {
            return Err(error.clone());
        }
        if self.socket.ready_state() == web_sys::WebSocket::OPEN { Ok(()) } else { Err(Cause::Closed.into()) }
    }

    async fn pending_below(&self, limit: usize) -> Result<(), Error> {
        loop {
            self.sendable()?;
            if self.pending() < limit {
                return Ok(());
            }
            // No event tells it.
            let _timer = self.after(LOOK_AGAIN, |_| ());
            let mut has_waited = false;
            poll_fn(|cx| {
                if mem::replace(&mut has_waited, true) {
                    return Poll::Ready(());
                }
                self.state.borrow_mut().wait(cx)
            })
            .await;
        }
    }

    fn after(&self, delay: Duration, act: impl FnOnce(&mut State) + 'static) -> Timeout {
        let state = Rc::clone(&self.state);
        // What is longer fires at once.
        let delay = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX).min(i32::MAX as u32);
        Timeout::new(delay, move || update(&state, act))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.socket.set_onopen(None);
        self.socket.set_onmessage(None);
        self.socket.set_onclose(None);
        // Without a code it throws nothing, and does nothing the second time.
        let _ = self.socket.close();
    }
}

/// What the browser has told us.
#[derive(Default)]
struct State {
    phase: Phase,
    /// Why it is of no more use; the first reason.
    failure: Option<Error>,
    is_closing: bool,
    peer_close: Option<Close>,
    inbox: VecDeque<Message<'static>>,
    /// Payload bytes in it.
    bytes: usize,
    /// Of all who wait for a change.
    wakers: Vec<Waker>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Connecting,
    Open,
    Over,
}

impl State {
    fn received(&mut self, data: &JsValue, socket: &web_sys::WebSocket) {
        if self.failure.is_some() {
            return;
        }
        if self.inbox.len() >= MESSAGES || self.bytes >= BYTES {
            // As natively: what comes before the answer to our close is kept as far as there is room.
            if !self.is_closing {
                self.fail(Cause::Overflow);
                let _ = socket.close_with_code_and_reason(OVERFLOW, "too much at once");
            }
            return;
        }
        let message: Message<'static> = match data.dyn_ref::<JsString>() {
            Some(text) => String::from(text).into(),
            None => Uint8Array::new(data.unchecked_ref::<ArrayBuffer>()).to_vec().into(),
        };
        self.bytes += message.as_bytes().len();
        self.inbox.push_back(message);
    }

    fn closed(&mut self, event: &CloseEvent) {
        if event.was_clean() {
            self.peer_close = Some(Close::new(CloseCode::new(event.code()), event.reason()));
        } else if matches!(self.phase, Phase::Connecting) {
            self.fail(Cause::Unopened);
        } else {
            self.fail(Cause::Broken);
        }
        self.phase = Phase::Over;
    }

    fn fail(&mut self, cause: Cause) {
        self.failure.get_or_insert_with(|| cause.into());
    }

    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        if !self.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Changes the state and then, when it is let go, wakes all who wait.
fn update(state: &RefCell<State>, act: impl FnOnce(&mut State)) {
    let wakers = {
        let mut state = state.borrow_mut();
        act(&mut state);
        mem::take(&mut state.wakers)
    };
    wakers.into_iter().for_each(Waker::wake);
}

fn refused(thrown: &JsValue) -> Error {
    let wrong = thrown.dyn_ref::<js_sys::Error>().map(|error| String::from(error.message()));
    Cause::Setting(wrong.unwrap_or_else(|| format!("{thrown:?}"))).into()
}

/// Bytes that are pending before `send` waits; as natively.
const OUTGOING: usize = 1 << 20;

/// Messages and their bytes that wait for `recv`; as natively.
const MESSAGES: usize = 1024;
const BYTES: usize = 1 << 20;

/// From our close frame to the peer's; as natively.
const CLOSE: Duration = Duration::from_secs(5);

/// How often a `send` that waits looks at what is pending. In a page that is not shown, browsers make it a second.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
