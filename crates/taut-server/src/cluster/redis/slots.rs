//! Where Redis Cluster keeps a name: one of 16,384 slots, each of which one of its servers owns.

use crate::cluster::crc::crc16;

/// Slots of a Redis Cluster.
pub(super) const SLOTS: u16 = 16_384;

/// The slot of a key or of a sharded pub/sub channel. Only what stands between its first braces counts, if anything does.
///
/// Redis Cluster specification, "Hash tags".
pub(super) fn slot(name: &str) -> u16 {
    let tag = name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(name).as_bytes()) % SLOTS
}

/// Tags of `count` partitions, a power of two: the slot of each is in its own equal share of all slots, in order. So servers that own equal
/// ranges of slots own equally many partitions.
///
/// The smallest numbers that do. What they are is part of the format: another choice would lose every key.
pub(super) fn tags(count: u16) -> Vec<String> {
    let mut tags = vec![None; usize::from(count)];
    let mut missing = count;
    for number in 0_u32.. {
        if missing == 0 {
            break;
        }
        let tag = number.to_string();
        let place = &mut tags[usize::from(crc16(tag.as_bytes()) % SLOTS / (SLOTS / count))];
        if place.is_none() {
            *place = Some(tag);
            missing -= 1;
        }
    }
    tags.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!((slot("foo"), slot("{foo}:bar"), slot("x{foo}{bar}")), (12182, 12182, 12182));
        assert_eq!(slot("{}foo"), crc16(b"{}foo") % SLOTS, "an empty tag is none");
    }

    #[test]
    fn partitions_are_spread_evenly_over_three_and_over_six_servers() {
        let tags = tags(64);
        assert_eq!(tags.len(), 64);
        for servers in [1, 3, 4, 6] {
            // About as redis-cli --cluster create shares slots out.
            let share = SLOTS.div_ceil(servers);
            let mut owned = vec![0; usize::from(servers)];
            for tag in &tags {
                owned[usize::from(slot(tag) / share)] += 1;
            }
            let (least, most) = (owned.iter().min().expect("one"), owned.iter().max().expect("one"));
            assert!(most - least <= 1, "{owned:?}");
        }
    }

    #[test]
    fn tags_stay_what_they_are() {
        let tags = tags(64);
        assert_eq!(tags.iter().map(|tag| slot(tag) / 256).collect::<Vec<_>>(), (0..64).collect::<Vec<_>>());
        assert_eq!(
            tags.join(" "),
            "10 18 113 342 29 21 3 122 69 61 72 162 50 58 153 43 11 19 112 343 28 20 2 123 68 60 73 163 51 59 152 42 \
             12 102 111 119 133 23 1 9 173 63 70 78 52 142 49 41 13 103 110 118 132 22 0 8 172 62 71 79 53 143 48 40"
        );
    }
}
