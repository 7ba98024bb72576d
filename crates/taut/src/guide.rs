//! The book: how to use this library, one subject a page.
//!
//! | page | what it answers |
//! |---|---|
//! | [tour] | What does it look like? What may I cancel? Who does the work? |
//! | [auth] | Who is the client, and which page is it on? |
//! | [heartbeats] | How do I notice that the other side is gone? |
//! | [backpressure] | What happens when somebody reads too slowly? How much memory can a peer take? |
//! | [closing] | How does a connection end, and what do I see of it? How does a server? |
//! | [reconnection] | How does a client stay connected? |
//! | [tls] | Whose certificates are trusted? How do I get through a proxy? |
//! | [testing] | How do I test what I have built on it? |
//!
//! The code on these pages is compiled and, where it needs no network, run by the tests of the library. Whole programs
//! are in the folder `examples` of the repository.

/// A tour: connect, send, receive, serve, split.
pub mod tour {
    #![doc = include_str!("guide/tour.md")]
}

/// Who is the client, and which page is it on?
pub mod auth {
    #![doc = include_str!("guide/auth.md")]
}

/// How to detect that the peer is gone.
pub mod heartbeats {
    #![doc = include_str!("guide/heartbeats.md")]
}

/// What happens when a peer reads too slowly, and how much memory it can take.
pub mod backpressure {
    #![doc = include_str!("guide/backpressure.md")]
}

/// How connections and servers end.
pub mod closing {
    #![doc = include_str!("guide/closing.md")]
}

/// How a client stays connected.
pub mod reconnection {
    #![doc = include_str!("guide/reconnection.md")]
}

/// Whose certificates are trusted, and the way through a proxy.
#[cfg(feature = "tls")]
pub mod tls {
    #![doc = include_str!("guide/tls.md")]
}

/// How to test what is built on this library.
pub mod testing {
    #![doc = include_str!("guide/testing.md")]
}
