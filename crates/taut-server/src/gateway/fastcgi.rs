//! A FastCGI client: one request per connection, over a Unix socket or TCP, to php-fpm and its like.

mod address;
mod client;
mod head;
mod parameters;
#[cfg(test)]
mod php_fpm;
mod records;
#[cfg(test)]
mod testing;

pub(super) use address::Address;
pub(super) use client::{Limits, Request, request};
pub(super) use parameters::Parameters;
pub(super) use records::Stderr;
