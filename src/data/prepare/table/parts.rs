//! What is kept of a table, what is removed and why, and which row is in which part: as [`plan`](crate::data::prepare::plan)
//! does it for few and large items, here in about 30 bytes a row.

use super::chunk::REFUSED;
use super::rows::Rows;
use crate::config::Prepare;
use crate::data::prepare::plan::PARTS;
use crate::error::{Error, Result};
use rayon::slice::ParallelSliceMut;
use std::collections::{BTreeMap, BTreeSet};

/// Why a row is in no part.
const REFUSE: u32 = u32::MAX;
const CONTRADICTION: u32 = u32::MAX - 1;
/// Training, validation, test: this less 0, 1, 2. What is below is the row that it is a copy of.
const PART: u32 = u32::MAX - 2;

/// The fate of all rows.
#[derive(Debug)]
pub struct Parts {
    fates: Vec<u32>,
    /// Of rows of equal content and different labels: the first, and one with another label.
    contradictions: BTreeMap<u128, (u32, u32)>,
    /// Names of the classes that are left, sorted: the label of one is its place.
    pub classes: Vec<String>,
    /// The label of each class of the rows.
    labels: Vec<u32>,
    /// Rows in the order of the files, of training, validation and test.
    pub rows: [Vec<u32>; 3],
    /// Of each class that is left the rows in each part.
    pub counts: Vec<[u64; 3]>,
    /// How many rows were removed for what.
    pub reasons: BTreeMap<String, u64>,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is in this part.
    Part(usize),
    /// It cannot be used.
    Refused,
    /// Another row has the same content.
    Copy(u32),
    /// Other rows have the same content and another label: the first of them, and one with another label than that.
    Contradiction(u32, u32),
}

impl Parts {
    /// Decides over all rows.
    ///
    /// # Errors
    /// [`Error::Data`] if less than two classes are left, or a part that was asked for is empty.
    pub fn of(rows: &Rows, wishes: &Prepare) -> Result<Parts> {
        let mut fates = vec![PART; rows.len()];
        for (fate, class) in fates.iter_mut().zip(&rows.classes) {
            if *class == REFUSED {
                *fate = REFUSE;
            }
        }
        let contradictions = refuse_copies(rows, &mut fates);
        let kept: Vec<u32> =
            (0..rows.len() as u32).filter(|&r| fates[r as usize] == PART).collect();
        let left: BTreeSet<u32> = kept.iter().map(|&r| rows.classes[r as usize]).collect();
        let mut parts = Parts {
            fates,
            contradictions,
            classes: left.iter().map(|&class| rows.names[class as usize].clone()).collect(),
            labels: Vec::new(),
            rows: Default::default(),
            counts: vec![[0; 3]; left.len()],
            reasons: BTreeMap::new(),
        };
        let label = |class| left.range(..class).count() as u32;
        parts.labels = (0..rows.names.len() as u32).map(label).collect();
        parts.count_reasons(rows);
        if left.len() < 2 {
            return Err(parts.too_few_classes(kept.len(), rows.len()));
        }
        let groups = Groups::of(rows, kept);
        let dealt = match rows.times.is_empty() {
            true => groups.deal(rows, wishes),
            false => groups.deal_by_time(wishes),
        };
        for (part, share) in wishes.split.iter().enumerate() {
            if *share > 0.0 && dealt[part].is_empty() {
                return Err(Error::Data(format!(
                    "the part `{}` (share {share}) would be empty: {} groups of rows are too few",
                    PARTS[part],
                    groups.starts.len()
                )));
            }
        }
        parts.take(rows, dealt, wishes.seed);
        Ok(parts)
    }

    /// Notes the part of each row, and puts the rows of a part into an order that their content decides.
    fn take(&mut self, rows: &Rows, dealt: [Vec<u32>; 3], seed: u64) {
        for (part, dealt) in dealt.into_iter().enumerate() {
            for &row in &dealt {
                self.fates[row as usize] = PART - part as u32;
                let label = self.label(rows, row) as usize;
                self.counts[label][part] += 1;
            }
            let mut order: Vec<(u64, u32)> =
                dealt.iter().map(|&row| (draw(seed, rows.hashes[row as usize]), row)).collect();
            // No two rows that are kept have the same hash.
            order.par_sort_unstable_by_key(|&(drawn, row)| (drawn, rows.hashes[row as usize]));
            self.rows[part] = order.into_iter().map(|(_, row)| row).collect();
        }
    }

    /// What became of a row.
    #[must_use]
    pub fn fate(&self, rows: &Rows, row: usize) -> Fate {
        match self.fates[row] {
            REFUSE => Fate::Refused,
            CONTRADICTION => {
                let pair = self.contradictions.get(&rows.hashes[row]);
                pair.map_or(Fate::Refused, |&(first, odd)| Fate::Contradiction(first, odd))
            }
            fate if fate > PART - 3 => Fate::Part((PART - fate) as usize),
            first => Fate::Copy(first),
        }
    }

    /// The part of a row that is in one.
    #[must_use]
    pub fn part(&self, row: usize) -> Option<usize> {
        let place = PART.wrapping_sub(self.fates[row]) as usize;
        (place < 3).then_some(place)
    }

    /// The label of a row that is in a part.
    #[must_use]
    pub fn label(&self, rows: &Rows, row: u32) -> u32 {
        self.labels[rows.classes[row as usize] as usize]
    }

    /// Rows that are in a part.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.rows.iter().map(Vec::len).sum()
    }

    fn count_reasons(&mut self, rows: &Rows) {
        let mut add = |reason: &str, n: u64| {
            if n > 0 {
                *self.reasons.entry(reason.to_owned()).or_default() += n;
            }
        };
        for why in rows.refused.values() {
            add(why.split(':').next().unwrap_or(why), 1);
        }
        let count = |of: &dyn Fn(u32) -> bool| self.fates.iter().filter(|f| of(**f)).count() as u64;
        add("contradiction", count(&|fate| fate == CONTRADICTION));
        add("duplicate", count(&|fate| fate < PART));
    }

    fn too_few_classes(&self, left: usize, of: usize) -> Error {
        let reasons: Vec<_> = self.reasons.iter().map(|(r, n)| format!("{n} {r}")).collect();
        Error::Data(format!(
            "{left} of {of} items are left, of {} class(es); at least two classes are needed; removed: {}",
            self.classes.len(),
            if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") }
        ))
    }
}

/// Refuses all but the first row of the same content; all of them when the labels differ.
fn refuse_copies(rows: &Rows, fates: &mut [u32]) -> BTreeMap<u128, (u32, u32)> {
    let mut order: Vec<u32> =
        (0..rows.len() as u32).filter(|&r| fates[r as usize] == PART).collect();
    order.par_sort_unstable_by_key(|&row| (rows.hashes[row as usize], row));
    let mut contradictions = BTreeMap::new();
    for same in order.chunk_by(|&a, &b| rows.hashes[a as usize] == rows.hashes[b as usize]) {
        let class = |row: u32| rows.classes[row as usize];
        let first = same[0];
        match same.iter().find(|&&row| class(row) != class(first)) {
            Some(&odd) => {
                same.iter().for_each(|&row| fates[row as usize] = CONTRADICTION);
                contradictions.insert(rows.hashes[first as usize], (first, odd));
            }
            None => same[1..].iter().for_each(|&row| fates[row as usize] = first),
        }
    }
    contradictions
}

/// Rows that must not be parted, one group after another.
struct Groups {
    order: Vec<u32>,
    /// Where in the order each group begins.
    starts: Vec<u32>,
}

impl Groups {
    fn of(rows: &Rows, mut kept: Vec<u32>) -> Groups {
        if !rows.groups.is_empty() {
            kept.par_sort_unstable_by_key(|&row| (rows.groups[row as usize], row));
        } else if !rows.times.is_empty() {
            kept.par_sort_unstable_by(|&a, &b| {
                rows.times[a as usize].total_cmp(&rows.times[b as usize]).then(a.cmp(&b))
            });
        }
        let together = |a: u32, b: u32| {
            let (a, b) = (a as usize, b as usize);
            (!rows.groups.is_empty() && rows.groups[a] == rows.groups[b])
                || (!rows.times.is_empty() && rows.times[a].to_bits() == rows.times[b].to_bits())
        };
        let begins = |&at: &usize| at == 0 || !together(kept[at - 1], kept[at]);
        let starts = (0..kept.len()).filter(begins).map(|at| at as u32).collect();
        Groups { order: kept, starts }
    }

    fn group(&self, group: u32) -> &[u32] {
        let end = self.starts.get(group as usize + 1).map_or(self.order.len(), |&end| end as usize);
        &self.order[self.starts[group as usize] as usize..end]
    }

    /// Deals the groups of each class to the parts. A group goes by the smallest hash in it, so that the order of
    /// the sources does not matter.
    fn deal(&self, rows: &Rows, wishes: &Prepare) -> [Vec<u32>; 3] {
        let hash = |row: u32| rows.hashes[row as usize];
        let mut drawn: Vec<(u32, u64, u32)> = (0..self.starts.len() as u32)
            .map(|group| {
                let least = self.group(group).iter().copied().min_by_key(|&row| hash(row));
                let least = least.unwrap_or_default();
                (rows.classes[least as usize], draw(wishes.seed, hash(least)), group)
            })
            .collect();
        // Equal draws are all but impossible; the first row of a group then decides by its content.
        let key = |&(class, drawn, group): &(u32, u64, u32)| {
            (class, drawn, hash(self.order[self.starts[group as usize] as usize]))
        };
        drawn.par_sort_unstable_by_key(key);
        let mut parts: [Vec<u32>; 3] = Default::default();
        for of_class in drawn.chunk_by(|a, b| a.0 == b.0) {
            let samples: usize = of_class.iter().map(|&(.., group)| self.group(group).len()).sum();
            let room = |share: f64| (share * samples as f64).round() as usize;
            let mut room = [samples, room(wishes.split[1]), room(wishes.split[2])];
            for &(.., group) in of_class {
                let group = self.group(group);
                // Test and validation first, as long as a group fits; the rest is for training.
                let part = [2, 1].into_iter().find(|&part| room[part] >= group.len()).unwrap_or(0);
                room[part] = room[part].saturating_sub(group.len());
                parts[part].extend_from_slice(group);
            }
        }
        parts
    }

    /// The latest groups are for test, as long as they fit its share, those before them for validation, all others
    /// for training.
    fn deal_by_time(&self, wishes: &Prepare) -> [Vec<u32>; 3] {
        let mut parts: [Vec<u32>; 3] = Default::default();
        let mut groups = self.starts.len() as u32;
        for part in [2, 1] {
            let room = (wishes.split[part] * self.order.len() as f64).round() as usize;
            while groups > 0 && parts[part].len() + self.group(groups - 1).len() <= room {
                groups -= 1;
                parts[part].extend_from_slice(self.group(groups));
            }
        }
        parts[0] = (0..groups).flat_map(|group| self.group(group).iter().copied()).collect();
        parts
    }
}

/// A place drawn for content: the finaliser of SplitMix64 (Steele et al., 2014), keyed by the seed.
fn draw(seed: u64, hash: u128) -> u64 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let key = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    mix(mix(hash as u64 ^ key) ^ (hash >> 64) as u64)
}
