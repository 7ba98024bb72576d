//! The order of an interleaved run.

use serde::Serialize;

use crate::peers::RAW;
use crate::window::Window;

/// One measured window, and where in the run it stood.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// In which round.
    pub round: usize,
    /// The position of the case.
    pub case: usize,
    /// The position of the server.
    pub peer: usize,
    /// What it has shown.
    #[serde(flatten)]
    pub window: Window,
}

/// `raw, a, raw, b, raw, c, raw`, where each round begins with another of the peers: what drifts, drifts for all.
pub fn order_of_round(peers: usize, round: usize) -> Vec<usize> {
    let others = peers - 1;
    let mut order = vec![RAW];
    for position in 0..others {
        order.push(1 + (round + position) % others);
        order.push(RAW);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_of_a_peer_lies_between_two_of_the_raw_server() {
        for round in 0..5 {
            let order = order_of_round(4, round);
            assert_eq!(order.len(), 7);
            assert!(order.iter().step_by(2).all(|peer| *peer == RAW));
            let mut others: Vec<_> = order.iter().skip(1).step_by(2).copied().collect();
            assert_eq!(others[0], 1 + round % 3);
            others.sort_unstable();
            assert_eq!(others, [1, 2, 3]);
        }
    }

    #[test]
    fn the_raw_server_alone_is_measured_once_a_round() {
        assert_eq!(order_of_round(1, 3), [RAW]);
    }
}
