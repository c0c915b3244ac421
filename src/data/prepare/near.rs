//! Which pictures look alike: perceptual hashes that differ in few bits, and chains of such.

use std::collections::BTreeMap;

/// For each hash the first place that is in its group. Hashes in a group are linked by steps of at most
/// `limit` bits.
#[must_use]
pub fn groups(looks: &[u64], limit: u32) -> Vec<usize> {
    let mut first = BTreeMap::new();
    let mut parent: Vec<usize> = (0..looks.len()).collect();
    for (place, &look) in looks.iter().enumerate() {
        parent[place] = *first.entry(look).or_insert(place);
    }
    // Of two hashes that differ in at most `limit` bits, cut into limit + 1 bands, one band is the same.
    let bands = (limit + 1).min(64);
    for band in 0..bands {
        let (from, to) = (64 * band / bands, 64 * (band + 1) / bands);
        let mask = (u64::MAX >> (64 - (to - from))) << from;
        let mut alike: BTreeMap<u64, Vec<(u64, usize)>> = BTreeMap::new();
        for (&look, &place) in &first {
            alike.entry(look & mask).or_default().push((look, place));
        }
        for bucket in alike.values() {
            for (i, &(a, at)) in bucket.iter().enumerate() {
                for &(b, other) in &bucket[i + 1..] {
                    if (a ^ b).count_ones() <= limit {
                        join(&mut parent, at, other);
                    }
                }
            }
        }
    }
    (0..looks.len()).map(|place| root(&mut parent, place)).collect()
}

fn root(parent: &mut [usize], mut place: usize) -> usize {
    while parent[place] != place {
        parent[place] = parent[parent[place]];
        place = parent[place];
    }
    place
}

/// The smaller root becomes the root of both.
fn join(parent: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parent, a), root(parent, b));
    parent[a.max(b)] = a.min(b);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_one_group_and_strangers_are_not() {
        let looks = [0, u64::MAX, 0b111, 0b111_111, 0, u64::MAX << 4];
        assert_eq!(groups(&looks, 3), [0, 1, 0, 0, 0, 5]);
        assert_eq!(groups(&looks, 4), [0, 1, 0, 0, 0, 1]);
        assert_eq!(groups(&looks, 0), [0, 1, 2, 3, 0, 5]);
    }

    #[test]
    fn bands_find_what_comparing_all_pairs_finds() {
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        let looks: Vec<u64> = (0..300)
            .map(|_| {
                ((noise() % 8) * 0x1111_2222_3333_4444)
                    ^ (1 << (noise() % 64))
                    ^ (1 << (noise() % 64))
            })
            .collect();
        for limit in [1, 2, 5, 9] {
            let found = groups(&looks, limit);
            let mut parent: Vec<usize> = (0..looks.len()).collect();
            for a in 0..looks.len() {
                for b in a..looks.len() {
                    if (looks[a] ^ looks[b]).count_ones() <= limit {
                        join(&mut parent, a, b);
                    }
                }
            }
            let all: Vec<usize> = (0..looks.len()).map(|i| root(&mut parent, i)).collect();
            assert_eq!(found, all, "limit {limit}");
        }
    }
}
