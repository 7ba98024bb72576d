//! Futures that are dropped midway lose, duplicate and reorder nothing.

use proptest::prelude::*;
use taut::testing::cancelled;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_is_lost_duplicated_or_reordered_by_dropping_futures(data in prop::collection::vec(any::<u8>(), 0..300)) {
        cancelled(&data);
    }
}

#[test]
fn a_workload_without_a_script_closes_cleanly() {
    cancelled(&[]);
}
