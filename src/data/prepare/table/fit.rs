//! What each column of features becomes, from the rows of the training part alone.
//!
//! Numbers of a few columns at a time are taken together and sorted, so that quantiles are exact and no sum
//! depends on the order of the sources.

use super::layout::{Field, Layout};
use super::parts::Parts;
use super::rows::Rows;
use crate::config::{Clip, Missing};
use crate::error::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Shares at which quantiles are told.
pub const QUANTILES: [f64; 9] = [0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0];

/// Bytes of numbers that are sorted at once, where more than one column has so few.
const MEMORY: usize = 64 << 20;

/// What a column of features becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Column {
    /// (value − mean) / std.
    Numeric {
        /// Its name.
        name: String,
        /// Of the values after clipping.
        mean: f64,
        /// Of the values after clipping.
        std: f64,
        /// At [`QUANTILES`], before clipping; between two values in proportion, as NumPy does.
        quantiles: [f64; 9],
        /// What values beyond become.
        #[serde(skip_serializing_if = "Option::is_none")]
        clip: Option<[f64; 2]>,
        /// Values that were clipped, in training, validation and test.
        clipped: [u64; 3],
        /// Missing values in training, validation and test.
        missing: [u64; 3],
        /// What they count as.
        fill: f64,
    },
    /// A one at the place of its value, else zeros.
    Category {
        /// Its name.
        name: String,
        /// Sorted; the empty one is for missing values.
        values: Vec<String>,
        /// How often each is there.
        counts: Vec<u64>,
        /// Missing values in training, validation and test.
        missing: [u64; 3],
        /// What they count as.
        #[serde(skip_serializing_if = "Option::is_none")]
        fill: Option<String>,
    },
    /// The same in all of the training part: left out.
    Constant {
        /// Its name.
        name: String,
    },
}

/// Columns, numbers before categories, that are looked at together.
#[must_use]
pub fn units(layout: &Layout, parts: &Parts, ranks: usize) -> Vec<std::ops::Range<usize>> {
    let columns = layout.numbers.len() + layout.categories.len();
    let room = (MEMORY / (8 * parts.kept().max(1))).max(1);
    let unit = room.min(columns.div_ceil(ranks)).max(1);
    (0..columns).step_by(unit).map(|start| start..columns.min(start + unit)).collect()
}

/// What was found in a column.
#[derive(Default)]
struct Gathered {
    /// Of each part the numbers that are there.
    numbers: [Vec<f64>; 3],
    /// Of the training part how often each value is there.
    counts: Vec<u64>,
    missing: [u64; 3],
}

/// What these columns become.
///
/// # Errors
/// When the rows cannot be read; [`Error::Data`] if numbers are too large to have a deviation.
pub fn fit(
    layout: &Layout,
    rows: &Rows,
    parts: &Parts,
    unit: std::ops::Range<usize>,
) -> Result<Vec<Column>> {
    let numbers = layout.numbers.len();
    let mut gathered: Vec<Gathered> = unit.clone().map(|_| Gathered::default()).collect();
    for (column, found) in unit.clone().zip(&mut gathered) {
        match column.checked_sub(numbers) {
            None => {
                let [train, val, test] = parts.rows.each_ref().map(Vec::len);
                found.numbers = [train, val, test].map(Vec::with_capacity);
            }
            Some(i) => found.counts = vec![0; rows.values[i].len()],
        }
    }
    rows.each(|row, view| {
        let Some(part) = parts.part(row) else { return };
        for (column, found) in unit.clone().zip(&mut gathered) {
            match column.checked_sub(numbers) {
                None => match view.number(column) {
                    value if value.is_nan() => found.missing[part] += 1,
                    value => found.numbers[part].push(value),
                },
                Some(i) => match view.category(i) {
                    None => found.missing[part] += 1,
                    Some(place) => found.counts[place as usize] += u64::from(part == 0),
                },
            }
        }
    })?;
    let found: Vec<_> = unit.zip(gathered).collect();
    let finish = |(column, found): (usize, Gathered)| match column.checked_sub(numbers) {
        None => numeric(&layout.numbers[column], found),
        Some(i) => Ok(category(&layout.categories[i], &rows.values[i], &found)),
    };
    found.into_par_iter().map(finish).collect()
}

fn numeric(field: &Field, found: Gathered) -> Result<Column> {
    let (name, missing) = (field.name.clone(), found.missing);
    let [mut train, val, test] = found.numbers;
    if train.is_empty() {
        return Ok(Column::Constant { name });
    }
    train.sort_unstable_by(f64::total_cmp);
    let quantiles = QUANTILES.map(|share| quantile(&train, share));
    let clip = field.clip.map(|clip| bounds(clip, &train));
    let too_large = || {
        let name = name.escape_debug();
        Error::Data(format!(
            "column `{name}`: its numbers are too large to have a standard deviation; leave it out"
        ))
    };
    let [low, high] = clip.unwrap_or([f64::NEG_INFINITY, f64::INFINITY]);
    if low.is_nan() || high.is_nan() {
        return Err(too_large());
    }
    let count = |values: &[f64]| values.iter().filter(|v| **v < low || **v > high).count() as u64;
    let clipped = [count(&train), count(&val), count(&test)];
    train.iter_mut().for_each(|value| *value = value.clamp(low, high));
    let (mean, std) = moments(&train);
    if !std.is_finite() {
        return Err(too_large());
    }
    if std == 0.0 {
        return Ok(Column::Constant { name });
    }
    let given = field.fill.as_ref().and_then(|fill| field.parse(fill));
    let fill = given.unwrap_or_else(|| match field.missing {
        Missing::Drop | Missing::Fill => mean,
        Missing::Median => quantile(&train, 0.5),
        Missing::MostFrequent => most_frequent(&train),
    });
    Ok(Column::Numeric { name, mean, std, quantiles, clip, clipped, missing, fill })
}

/// The numbers that others are clipped to.
fn bounds(clip: Clip, sorted: &[f64]) -> [f64; 2] {
    match (clip.quantiles, clip.deviations, clip.bounds) {
        (Some(shares), ..) => shares.map(|share| quantile(sorted, share)),
        (_, Some(deviations), _) => {
            let (mean, std) = moments(sorted);
            [mean - deviations * std, mean + deviations * std]
        }
        (.., Some(bounds)) => bounds,
        (None, None, None) => [f64::NEG_INFINITY, f64::INFINITY],
    }
}

/// Between the two nearest of `sorted`, in proportion (Hyndman and Fan, 1996, number 7).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    // Halves first: the difference of two finite numbers may be infinite.
    let part = place - place.floor();
    if part == 0.0 { below } else { 2.0 * (below / 2.0 + (above / 2.0 - below / 2.0) * part) }
}

/// The least of the values that are there most often.
fn most_frequent(sorted: &[f64]) -> f64 {
    let runs = sorted.chunk_by(|a, b| a == b);
    let longest =
        runs.fold(&sorted[..1], |best, run| if run.len() > best.len() { run } else { best });
    longest[0]
}

/// Mean and standard deviation, by Welford: no cancellation where the mean is large.
fn moments(values: &[f64]) -> (f64, f64) {
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        n += 1.0;
        let off: f64 = value - mean;
        mean += off / n;
        squares += off * (value - mean);
    }
    (mean, if n > 0.0 { (squares / n).sqrt() } else { 0.0 })
}

fn category(field: &Field, all: &[String], found: &Gathered) -> Column {
    let (name, missing) = (field.name.clone(), found.missing);
    let mut there: Vec<(String, u64)> = all
        .iter()
        .zip(&found.counts)
        .filter(|(_, count)| **count > 0)
        .map(|(value, count)| (value.clone(), *count))
        .collect();
    let most = there.iter().map(|(_, count)| *count).max();
    let fill = match (&field.fill, field.missing) {
        (Some(fill), _) => Some(fill.clone()),
        (None, Missing::MostFrequent) => {
            let first = there.iter().find(|(_, count)| Some(*count) == most);
            first.map(|(value, _)| value.clone())
        }
        (None, _) => (missing[0] > 0).then(String::new),
    };
    if let Some(fill) = &fill {
        match there.binary_search_by(|(value, _)| value.cmp(fill)) {
            Ok(at) => there[at].1 += missing[0],
            Err(at) if missing[0] > 0 => there.insert(at, (fill.clone(), missing[0])),
            Err(_) => {}
        }
    }
    match there.len() {
        0 | 1 => Column::Constant { name },
        _ => {
            let (values, counts) = there.into_iter().unzip();
            Column::Category { name, values, counts, missing, fill }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_numpy() {
        let sorted = [-3.0, 1.0, 2.0, 10.0];
        let expected = [-3.0, -2.88, -2.4, 0.0, 1.5, 4.0, 8.8, 9.76, 10.0];
        for (share, expected) in QUANTILES.into_iter().zip(expected) {
            assert!((quantile(&sorted, share) - expected).abs() < 1e-12, "{share}");
        }
        assert_eq!(quantile(&[7.0], 0.3), 7.0);
        assert!(quantile(&[-f64::MAX, f64::MAX], 0.25).is_finite());
    }

    #[test]
    fn the_most_frequent_value_is_the_least_of_several() {
        assert_eq!(most_frequent(&[1.0, 2.0, 2.0, 3.0, 3.0]), 2.0);
        assert_eq!(most_frequent(&[4.0]), 4.0);
    }

    #[test]
    fn bounds_are_numbers_quantiles_or_deviations() {
        let sorted = [0.0, 1.0, 2.0, 3.0, 4.0];
        let of = |clip: Clip| bounds(clip, &sorted);
        let quantiles = Clip { quantiles: Some([0.25, 0.75]), ..Clip::default() };
        assert_eq!(of(quantiles), [1.0, 3.0]);
        assert_eq!(of(Clip { bounds: Some([0.5, 9.0]), ..Clip::default() }), [0.5, 9.0]);
        let [low, high] = of(Clip { deviations: Some(1.0), ..Clip::default() });
        assert!((low - (2.0 - 2f64.sqrt())).abs() < 1e-12 && (low + high - 4.0).abs() < 1e-12);
    }
}
