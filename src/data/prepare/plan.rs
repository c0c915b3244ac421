//! What is kept, what is removed and why, and which sample is in which part.

use super::{Record, near};
use crate::config::Prepare;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Names of the parts.
pub const PARTS: [&str; 3] = ["train", "val", "test"];

/// The fate of all items.
#[derive(Debug)]
pub struct Plan {
    /// Names of the classes, sorted: the label of one is its place.
    pub classes: Vec<String>,
    /// Item and label, in the order of the files, of training, validation and test.
    pub parts: [Vec<(usize, u32)>; 3],
    /// Item and reason, in the order of the items.
    pub removed: Vec<(usize, String)>,
    /// Items of each group of pictures that look alike and were kept, of two or more.
    pub alike: Vec<Vec<usize>>,
    /// Rows and columns of the pictures.
    pub size: [usize; 2],
}

/// Decides over all items.
///
/// # Errors
/// [`Error::Data`] if less than two classes are left, or a part that was asked for is empty.
pub fn make(records: &[Record], name: impl Fn(usize) -> String, options: &Prepare) -> Result<Plan> {
    let mut why: Vec<Option<String>> = records.iter().map(|r| r.refused.clone()).collect();
    let pictures = options.pictures.clone().unwrap_or_default();
    let size = refuse_sizes(records, &mut why, pictures.resize);
    refuse_copies(records, &mut why, &name);
    let kept: Vec<usize> = (0..records.len()).filter(|&i| why[i].is_none()).collect();
    let mut groups = together(records, &kept, pictures.near);
    let mut alike = Vec::new();
    for group in &mut groups {
        if group.len() > 1 && pictures.drop_near {
            for &i in &group[1..] {
                why[i] = Some(format!("near-duplicate of {}", name(group[0])));
            }
            group.truncate(1);
        } else if group.len() > 1 {
            alike.push(group.clone());
        }
    }
    let names: BTreeSet<&str> = groups.iter().flatten().map(|&i| &*records[i].class).collect();
    let classes: Vec<String> = names.iter().map(|&class| class.to_owned()).collect();
    if classes.len() < 2 {
        let (left, of) = (groups.iter().map(Vec::len).sum::<usize>(), records.len());
        let reasons = counts(why.iter().flatten().map(String::as_str));
        let reasons: Vec<_> = reasons.iter().map(|(r, n)| format!("{n} {r}")).collect();
        return Err(Error::Data(format!(
            "{left} of {of} items are left, of {} class(es); at least two classes are needed; \
             removed: {}",
            classes.len(),
            if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") }
        )));
    }
    let parts = split(records, &groups, &classes, options);
    for (part, share) in options.split.iter().enumerate() {
        if *share > 0.0 && parts[part].is_empty() {
            return Err(Error::Data(format!(
                "the part `{}` (share {share}) would be empty: {} groups of samples are too few",
                PARTS[part],
                groups.len()
            )));
        }
    }
    let removed = why.into_iter().enumerate().filter_map(|(i, why)| Some((i, why?))).collect();
    Ok(Plan { classes, parts, removed, alike, size })
}

/// How many items were removed for what: the reason up to its first colon, or `of`.
#[must_use]
pub fn counts<'a>(reasons: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for reason in reasons {
        let kind = reason.split(':').next().unwrap_or(reason);
        let kind = kind.split(" of ").next().unwrap_or(kind);
        *counts.entry(kind.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// Refuses pictures of another size than most have.
fn refuse_sizes(
    records: &[Record],
    why: &mut [Option<String>],
    resize: Option<[u32; 2]>,
) -> [usize; 2] {
    let mut sizes = BTreeMap::new();
    for record in records.iter().filter(|record| record.refused.is_none()) {
        *sizes.entry(record.size).or_insert(0usize) += 1;
    }
    // Of two that are as common, the smaller one.
    let common = sizes.iter().rev().max_by_key(|&(_, &count)| count).map(|(&size, _)| size);
    let [rows, columns] =
        resize.map_or(common.unwrap_or_default(), |size| size.map(|side| side as usize));
    for (record, why) in records.iter().zip(why) {
        if why.is_none() && record.size != [rows, columns] {
            let [r, c] = record.size;
            *why = Some(format!("wrong size: {r} x {c} where most have {rows} x {columns}"));
        }
    }
    [rows, columns]
}

/// Refuses all but the first of the same content; all of it when the labels differ.
fn refuse_copies(records: &[Record], why: &mut [Option<String>], name: impl Fn(usize) -> String) {
    let mut copies: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, record) in records.iter().enumerate() {
        if why[i].is_none() {
            copies.entry(&record.hash).or_default().push(i);
        }
    }
    for same in copies.values().filter(|same| same.len() > 1) {
        let first = same[0];
        let odd = same.iter().find(|&&i| records[i].class != records[first].class);
        if let Some(&odd) = odd {
            let (a, b) = (&records[first].class, &records[odd].class);
            let text = format!(
                "contradiction: the same content has class `{}` in {} and `{}` in {}",
                a.escape_debug(),
                name(first),
                b.escape_debug(),
                name(odd)
            );
            same.iter().for_each(|&i| why[i] = Some(text.clone()));
        } else {
            let text = format!("duplicate of {}", name(first));
            same[1..].iter().for_each(|&i| why[i] = Some(text.clone()));
        }
    }
}

/// Items that must not be parted, each group and the groups in the order of the items: pictures that look alike.
fn together(records: &[Record], kept: &[usize], limit: u32) -> Vec<Vec<usize>> {
    let looks: Option<Vec<u64>> = kept.iter().map(|&i| records[i].look).collect();
    let Some(looks) = looks else {
        return kept.iter().map(|&i| vec![i]).collect();
    };
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, group) in near::groups(&looks, limit).into_iter().enumerate() {
        groups.entry(group).or_default().push(kept[place]);
    }
    groups.into_values().collect()
}

/// A group by the hash that decides its place.
type Drawn<'a> = ([u8; 32], &'a Vec<usize>);

/// Deals the groups of each class to the parts. A group goes by the smallest hash in it, so that the order
/// of the sources does not matter.
fn split(
    records: &[Record],
    groups: &[Vec<usize>],
    classes: &[String],
    options: &Prepare,
) -> [Vec<(usize, u32)>; 3] {
    let mut of_class: BTreeMap<&str, Vec<Drawn>> = BTreeMap::new();
    for group in groups {
        let least = group.iter().min_by_key(|&&i| &records[i].hash);
        if let Some(&least) = least {
            let drawn = draw(options.seed, &records[least].hash);
            of_class.entry(&records[least].class).or_default().push((drawn, group));
        }
    }
    let mut parts = [const { Vec::new() }; 3];
    for groups in of_class.values_mut() {
        groups.sort_unstable();
        let samples: usize = groups.iter().map(|(_, group)| group.len()).sum();
        let room = |share: f64| (share * samples as f64).round() as usize;
        let mut room = [samples, room(options.split[1]), room(options.split[2])];
        for (_, group) in groups {
            // Test and validation first, as long as a group fits; the rest is for training.
            let part = [2, 1].into_iter().find(|&part| room[part] >= group.len()).unwrap_or(0);
            room[part] = room[part].saturating_sub(group.len());
            parts[part].extend(group.iter().copied());
        }
    }
    in_order(records, parts, classes, options.seed)
}

/// A place drawn for content.
fn draw(seed: u64, hash: &str) -> [u8; 32] {
    let mut drawn = blake3::Hasher::new();
    drawn.update(&seed.to_le_bytes()).update(hash.as_bytes());
    *drawn.finalize().as_bytes()
}

/// The items of each part in an order that their content decides, with their labels.
fn in_order(
    records: &[Record],
    parts: [Vec<usize>; 3],
    classes: &[String],
    seed: u64,
) -> [Vec<(usize, u32)>; 3] {
    parts.map(|mut items| {
        items.sort_by_cached_key(|&i| draw(seed, &records[i].hash));
        let label = |i: usize| classes.binary_search(&records[i].class);
        items.into_iter().map(|i| (i, label(i).unwrap_or_default() as u32)).collect()
    })
}
