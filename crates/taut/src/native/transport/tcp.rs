//! From a name to a TCP connection, whichever of its addresses works first (Happy Eyeballs, RFC 8305).

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until};

use crate::Error;
use crate::error::{Cause, Doing};

/// The addresses of a host, in the order in which to try them. An address is its own.
///
/// # Cancel safety
/// Dropping it forgets the answer.
pub(crate) async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let lookup = |error| Cause::Lookup { host: host.to_owned(), error };
    let found: Vec<_> = lookup_host((host, port)).await.map_err(lookup)?.collect();
    if found.is_empty() {
        return Err(lookup(io::Error::new(io::ErrorKind::NotFound, "the name has no addresses")).into());
    }
    Ok(interleave(&found))
}

/// Connects to the first of the addresses that answers.
///
/// # Cancel safety
/// Dropping it drops all attempts.
pub(crate) async fn connect(addresses: Vec<SocketAddr>) -> Result<TcpStream, Error> {
    let stream = race(addresses, TcpStream::connect).await.map_err(|attempts| Cause::Unreachable { attempts })?;
    // A message is written whole, so there is nothing for Nagle's algorithm to gather.
    stream.set_nodelay(true).map_err(|error| Error::io(Doing::Connecting, error))?;
    Ok(stream)
}

/// RFC 8305 §4: the families take turns, IPv6 first; within one, the order of the resolver (RFC 6724) stays.
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut sixes = addresses.iter().copied().filter(SocketAddr::is_ipv6);
    let mut fours = addresses.iter().copied().filter(SocketAddr::is_ipv4);
    let mut ordered: Vec<SocketAddr> = Vec::with_capacity(addresses.len());
    loop {
        let turn = [sixes.next(), fours.next()];
        if turn == [None, None] {
            return ordered;
        }
        for address in turn.into_iter().flatten() {
            // A hosts file may say the same twice.
            if !ordered.contains(&address) {
                ordered.push(address);
            }
        }
    }
}

/// RFC 8305 §5: an attempt begins when the one before has failed, or has not succeeded for [`STAGGER`]; the first that
/// succeeds ends the others. Or all errors, in the order in which they came.
async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    dial: impl Fn(SocketAddr) -> F,
) -> Result<T, Vec<(SocketAddr, io::Error)>>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut attempts: Vec<(SocketAddr, Pin<Box<F>>)> = Vec::new();
    let mut failed = Vec::new();
    loop {
        match waiting.next() {
            Some(address) => attempts.push((address, Box::pin(dial(address)))),
            None if attempts.is_empty() => return Err(failed),
            None => {}
        }
        let mut stagger = (waiting.len() > 0).then(|| Box::pin(sleep_until(Instant::now() + STAGGER)));
        let ended = poll_fn(|cx| {
            for (index, (_, attempt)) in attempts.iter_mut().enumerate() {
                if let Poll::Ready(result) = attempt.as_mut().poll(cx) {
                    return Poll::Ready(Some((index, result)));
                }
            }
            match &mut stagger {
                Some(stagger) => stagger.as_mut().poll(cx).map(|()| None),
                None => Poll::Pending,
            }
        });
        match ended.await {
            Some((_, Ok(connected))) => return Ok(connected),
            Some((index, Err(error))) => failed.push((attempts.remove(index).0, error)),
            None => {}
        }
    }
}

/// RFC 8305 §5: the Connection Attempt Delay; 250 ms is what it recommends.
const STAGGER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    const SIX: &str = "[2001:db8::1]:443";
    const OTHER_SIX: &str = "[2001:db8::2]:443";
    const FOUR: &str = "192.0.2.1:443";
    const OTHER_FOUR: &str = "192.0.2.2:443";

    // RFC 8305 §4: families are interleaved, IPv6 first.
    #[test]
    fn families_take_turns_and_version_6_begins() {
        let found = addresses(&[FOUR, OTHER_FOUR, "192.0.2.3:443", SIX, OTHER_SIX, FOUR]);
        let expected = addresses(&[SIX, FOUR, OTHER_SIX, OTHER_FOUR, "192.0.2.3:443"]);
        assert_eq!(interleave(&found), expected);
        assert_eq!(interleave(&[]), []);
    }

    /// Runs a race in which each address does what `behave` says; who won after how long, and who was tried when.
    async fn raced<F: Future<Output = io::Result<()>>>(
        texts: &[&str],
        behave: impl Fn(usize) -> F,
    ) -> (Result<SocketAddr, Vec<(SocketAddr, io::Error)>>, u128, Vec<u128>) {
        let all = addresses(texts);
        let start = Instant::now();
        let tried = RefCell::new(Vec::new());
        let dial = |address| {
            let index = all.iter().position(|&one| one == address).unwrap();
            tried.borrow_mut().push(start.elapsed().as_millis());
            let attempt = behave(index);
            async move { attempt.await.map(|()| address) }
        };
        let result = race(all.clone(), dial).await;
        (result, start.elapsed().as_millis(), tried.into_inner())
    }

    // RFC 8305 §5: a path that is silently dead costs one Connection Attempt Delay, not a TCP time-out.
    #[tokio::test(start_paused = true)]
    async fn a_dead_ipv6_path_costs_a_quarter_of_a_second() {
        let (won, took, tried) = raced(&[SIX, FOUR], async |index| match index {
            0 => pending().await,
            _ => Ok(()),
        })
        .await;
        assert_eq!(won.unwrap().to_string(), FOUR);
        assert_eq!((took, tried), (250, vec![0, 250]));
    }

    // RFC 8305 §5: an attempt that fails lets the next begin at once.
    #[tokio::test(start_paused = true)]
    async fn a_refused_attempt_makes_the_next_begin_at_once() {
        let (won, took, tried) = raced(&[SIX, FOUR, OTHER_SIX], async |index| {
            match index {
                0 => sleep(Duration::from_millis(20)).await,
                1 => sleep(Duration::from_millis(30)).await,
                _ => return Ok(()),
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
        .await;
        assert_eq!(won.unwrap().to_string(), OTHER_SIX);
        assert_eq!((took, tried), (50, vec![0, 20, 50]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_attempt_may_still_win() {
        let (won, took, tried) = raced(&[SIX, FOUR, OTHER_SIX, OTHER_FOUR], async |index| {
            match index {
                0 => sleep(Duration::from_millis(600)).await,
                _ => pending().await,
            }
            Ok(())
        })
        .await;
        assert_eq!(won.unwrap().to_string(), SIX);
        assert_eq!((took, tried), (600, vec![0, 250, 500]));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_each_address_is_told_with_its_error() {
        let (lost, ..) = raced(&[SIX, FOUR], async |index| {
            sleep(Duration::from_millis(400)).await;
            Err(match index {
                0 => io::ErrorKind::NetworkUnreachable.into(),
                _ => io::ErrorKind::ConnectionRefused.into(),
            })
        })
        .await;
        let error = Error::from(Cause::Unreachable { attempts: lost.unwrap_err() });
        assert!(error.is_io());
        let text = error.to_string();
        for part in [SIX, "unreachable", FOUR, "refused"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[tokio::test]
    async fn the_losers_are_dropped() {
        struct Witness(std::sync::Arc<()>);
        let alive = std::sync::Arc::new(());
        let result = race(addresses(&[SIX, FOUR]), |address| {
            let witness = Witness(std::sync::Arc::clone(&alive));
            async move {
                if address.is_ipv6() {
                    pending::<()>().await;
                }
                drop(witness.0);
                Ok(())
            }
        });
        result.await.unwrap();
        assert_eq!(std::sync::Arc::strong_count(&alive), 1);
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_left_for_one_where_somebody_does() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let stream = connect(vec![free, open]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        assert!(stream.nodelay().unwrap());
        let error = connect(vec![free]).await.unwrap_err();
        assert!(error.is_io() && error.to_string().contains(&free.to_string()), "{error}");
    }

    #[tokio::test]
    async fn an_address_is_its_own_answer_and_a_name_without_one_is_told() {
        assert_eq!(lookup("127.0.0.1", 9).await.unwrap(), addresses(&["127.0.0.1:9"]));
        assert_eq!(lookup("::1", 9).await.unwrap(), addresses(&["[::1]:9"]));
        // RFC 6761 §6.4: `invalid` never exists.
        let error = lookup("nobody.invalid", 9).await.unwrap_err();
        assert!(error.is_io() && error.to_string().contains("nobody.invalid"), "{error}");
    }
}
