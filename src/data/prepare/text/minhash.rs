//! MinHash (Broder, "On the resemblance and containment of documents", 1997) with bands (Leskovec, Rajaraman
//! and Ullman, "Mining of Massive Datasets", section 3.4).
//!
//! Of 128 permutations of all possible runs each keeps a document's least run. Two documents agree in as many
//! of them, in the mean, as the share of runs they have in common among those that either has (Jaccard):
//! the estimate's deviation is √(J(1 − J) / 128), at most 4.4 points. A pair is compared if it agrees in all of
//! a band of permutations; bands are so narrow that a pair at the threshold is missed once in a thousand.

/// Permutations.
pub const LANES: usize = 128;

/// Of each permutation the least run, 16 bits of it: two that differ look the same once in 65,536.
pub type Signature = [u16; LANES];

/// h → a·h + b modulo 2³², a odd. The runs are hashes already.
static PERMUTATIONS: [[u32; LANES]; 2] = {
    let mut both = [[0; LANES]; 2];
    let mut i = 0;
    while i < LANES {
        both[0][i] = splitmix(2 * i as u64) as u32 | 1;
        both[1][i] = splitmix(2 * i as u64 + 1) as u32;
        i += 1;
    }
    both
};

/// SplitMix64's numbers (Steele, Lea and Flood, 2014).
const fn splitmix(index: u64) -> u64 {
    let x = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Permutations whose minima are in registers while all runs pass.
const BLOCK: usize = 16;

/// The signature of a document with these runs; how often and in which order they come does not matter.
#[must_use]
pub fn sign(runs: &[u32]) -> Signature {
    let mut signature = [0; LANES];
    let [factors, addends] = &PERMUTATIONS;
    for (i, out) in signature.chunks_exact_mut(BLOCK).enumerate() {
        let range = i * BLOCK..(i + 1) * BLOCK;
        let (factors, addends) = (&factors[range.clone()], &addends[range]);
        let mut least = [u32::MAX; BLOCK];
        for &run in runs {
            for ((least, a), b) in least.iter_mut().zip(factors).zip(addends) {
                *least = (*least).min(run.wrapping_mul(*a).wrapping_add(*b));
            }
        }
        for (out, least) in out.iter_mut().zip(least) {
            *out = (least ^ (least >> 16)) as u16;
        }
    }
    signature
}

/// The permutations in which two documents agree.
#[must_use]
pub fn agreeing(a: &Signature, b: &Signature) -> usize {
    a.iter().zip(b).map(|(a, b)| u16::from(a == b)).sum::<u16>() as usize
}

/// Bands, and permutations of a band, for a threshold: the widest band with which a pair at the threshold
/// agrees in at least one of them but for one case in a thousand.
#[must_use]
pub fn bands(threshold: f64) -> [usize; 2] {
    let rows = (1..=LANES / 2).rev().find(|&rows| {
        let all_differ = (1.0 - power(threshold, rows)).max(0.0);
        power(all_differ, LANES / rows) <= 1e-3
    });
    let rows = rows.unwrap_or(1);
    [LANES / rows, rows]
}

/// The same bits on every machine, which `powi` does not promise.
fn power(x: f64, n: usize) -> f64 {
    (0..n).fold(1.0, |product, _| product * x)
}

/// Documents that were kept, found again by each of their bands.
#[derive(Debug)]
pub struct Kept {
    rows: usize,
    least: usize,
    /// Number and signature.
    documents: Vec<(u32, Signature)>,
    /// Of each band a hash table with open addressing: the band's hash, and a place in `documents`.
    tables: Vec<Vec<[u32; 2]>>,
}

const FREE: [u32; 2] = [0, u32::MAX];

impl Kept {
    /// None yet, room for `most`; documents agree if the estimate is `threshold` or more.
    #[must_use]
    pub fn new(threshold: f64, most: usize) -> Kept {
        let [bands, rows] = bands(threshold);
        let slots = most + most / 2 + 1;
        let least = (threshold * LANES as f64).ceil() as usize;
        Kept { rows, least, documents: Vec::new(), tables: vec![vec![FREE; slots]; bands] }
    }

    /// The first document that was kept and nearly equals this one, with the number of permutations in which
    /// they agree; without one this one is kept, unless there is no room.
    pub fn place(&mut self, number: u32, signature: &Signature) -> Option<(u32, usize)> {
        let mut candidates = Vec::new();
        let bands = signature.chunks_exact(self.rows);
        let keys: Vec<u32> = bands.take(self.tables.len()).map(hash).collect();
        let free: Vec<usize> = self
            .tables
            .iter()
            .zip(&keys)
            .map(|(table, &key)| find(table, key, &mut candidates))
            .collect();
        candidates.sort_unstable();
        candidates.dedup();
        for candidate in candidates {
            let (other, theirs) = &self.documents[candidate as usize];
            let agreeing = agreeing(signature, theirs);
            if agreeing >= self.least {
                return Some((*other, agreeing));
            }
        }
        let place = self.documents.len() as u32;
        self.documents.push((number, *signature));
        for ((table, slot), key) in self.tables.iter_mut().zip(free).zip(keys) {
            table[slot] = [key, place];
        }
        None
    }
}

/// Appends the places that a table has for a key; gives the next free slot.
fn find(table: &[[u32; 2]], key: u32, found: &mut Vec<u32>) -> usize {
    let mut slot = ((u64::from(key) * table.len() as u64) >> 32) as usize;
    while table[slot] != FREE {
        if table[slot][0] == key {
            found.push(table[slot][1]);
        }
        slot = if slot + 1 == table.len() { 0 } else { slot + 1 };
    }
    slot
}

/// Of the numbers of a band.
fn hash(band: &[u16]) -> u32 {
    let all = band.iter().fold(0, |all, &number| splitmix(all ^ u64::from(number)));
    (all >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn random(seed: u64, index: u64) -> u32 {
        splitmix(splitmix(seed) ^ index) as u32
    }

    /// Two sets of runs with `both` in common and `a` and `b` of their own.
    fn sets(seed: u64, both: u64, a: u64, b: u64) -> [Vec<u32>; 2] {
        let of = |range: std::ops::Range<u64>| range.map(move |i| random(seed, i));
        [
            of(0..both).chain(of(both..both + a)).collect(),
            of(0..both).chain(of(both + a..both + a + b)).collect(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn the_estimate_is_near_the_true_share(
            seed in any::<u64>(), both in 0..3000u64, a in 1..1000u64, b in 1..1000u64,
        ) {
            let [x, y] = sets(seed, both, a, b);
            let unite: BTreeSet<u32> = x.iter().chain(&y).copied().collect();
            let in_both = BTreeSet::from_iter(x.clone()).intersection(&BTreeSet::from_iter(y.clone())).count();
            let truth = in_both as f64 / unite.len() as f64;
            let estimate = agreeing(&sign(&x), &sign(&y)) as f64 / LANES as f64;
            let deviation = (truth * (1.0 - truth) / LANES as f64).sqrt();
            // 256 draws come five deviations off once in 7,000 runs, if the permutations are good.
            prop_assert!((estimate - truth).abs() <= 5.0 * deviation + 1.0 / LANES as f64, "{} {}", estimate, truth);
        }
    }

    #[test]
    fn the_estimate_has_the_mean_and_the_deviation_of_independent_permutations() {
        for (both, each) in [(10, 5), (300, 100), (2000, 60)] {
            let n = 400;
            let truth = both as f64 / (both + 2 * each) as f64;
            let off: Vec<f64> = (0..n)
                .map(|seed| {
                    let [x, y] = sets(seed, both, each, each);
                    agreeing(&sign(&x), &sign(&y)) as f64 / LANES as f64 - truth
                })
                .collect();
            let mean = off.iter().sum::<f64>() / n as f64;
            let deviation = (off.iter().map(|off| off * off).sum::<f64>() / n as f64).sqrt();
            let ideal = (truth * (1.0 - truth) / LANES as f64).sqrt();
            assert!(
                mean.abs() < 4.0 * ideal / (n as f64).sqrt(),
                "{both}: mean {mean}, ideal {ideal}"
            );
            assert!((0.85..1.2).contains(&(deviation / ideal)), "{both}: {deviation}, not {ideal}");
        }
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        let runs: Vec<u32> = (0..100).map(|i| random(1, i)).collect();
        let turned: Vec<u32> = runs.iter().rev().chain(&runs[..50]).copied().collect();
        assert_eq!(sign(&runs), sign(&turned));
    }

    #[test]
    fn bands_are_wide_for_high_thresholds_and_miss_few_at_any() {
        assert_eq!(bands(0.8), [25, 5]);
        assert_eq!(bands(1.0), [2, 64]);
        for percent in 20..=100 {
            let threshold = f64::from(percent) / 100.0;
            let [bands, rows] = bands(threshold);
            assert!(bands * rows <= LANES);
            let missed = power((1.0 - power(threshold, rows)).max(0.0), bands);
            assert!(missed <= 1e-3, "{percent} % misses {missed}");
        }
    }

    #[test]
    fn what_the_bands_find_is_what_comparing_with_all_kept_ones_finds() {
        // Families whose members have 50 to 100 % in common.
        let runs = |i: u64| -> Vec<u32> {
            let (family, own) = (i % 20, (i * 7) % 60);
            let shared = (0..180).map(|j| random(family, j));
            shared.chain((0..own).map(|j| random(1000 + i, j))).collect()
        };
        let signatures: Vec<Signature> = (0..300).map(|i| sign(&runs(i))).collect();
        let mut kept = Kept::new(0.8, signatures.len());
        let mut all: Vec<usize> = Vec::new();
        let mut dropped = 0;
        for (i, signature) in signatures.iter().enumerate() {
            let found = kept.place(i as u32, signature);
            let near = |&&j: &&usize| agreeing(&signatures[j], signature) >= 103;
            let expected = all.iter().find(near).map(|&j| j as u32);
            assert_eq!(found.map(|(other, _)| other), expected, "{i}");
            dropped += usize::from(found.is_some());
            if found.is_none() {
                all.push(i);
            }
        }
        assert!(dropped > 50 && all.len() > 20, "{dropped} dropped of 300");
    }
}
