//! The rows of a table as the numbers of a sample.

use super::fit::Column;
use super::layout::Layout;
use super::parts::Parts;
use super::rows::{Rows, View};
use crate::data::limits;
use crate::error::{Error, Result};

/// What becomes of a row.
#[derive(Debug)]
pub struct Encoder {
    made: Vec<Made>,
    /// Numbers of a sample.
    pub width: usize,
}

#[derive(Debug)]
enum Made {
    Number { i: usize, clip: Option<[f64; 2]>, fill: f64, mean: f64, std: f64 },
    Category { i: usize, places: Vec<Option<usize>>, missing: Option<usize>, width: usize },
}

/// Columns in the order of the header, from those of numbers and then those of categories.
#[must_use]
pub fn in_order(layout: &Layout, columns: Vec<Column>) -> Vec<Column> {
    let fields = layout.numbers.iter().chain(&layout.categories);
    let mut cells: Vec<(usize, Column)> = fields.map(|field| field.cell).zip(columns).collect();
    cells.sort_by_key(|(cell, _)| *cell);
    cells.into_iter().map(|(_, column)| column).collect()
}

impl Encoder {
    /// From the columns in the order of the header.
    ///
    /// # Errors
    /// [`Error::Data`] if all columns are constant.
    pub fn of(layout: &Layout, rows: &Rows, columns: &[Column]) -> Result<Encoder> {
        let number = |name: &str| layout.numbers.iter().position(|field| field.name == name);
        let category = |name: &str| layout.categories.iter().position(|field| field.name == name);
        let make = |column: &Column| match column {
            Column::Numeric { name, mean, std, clip, fill, .. } => Some(Made::Number {
                i: number(name)?,
                clip: *clip,
                fill: *fill,
                mean: *mean,
                std: *std,
            }),
            Column::Category { name, values, fill, .. } => {
                let (i, place) = (category(name)?, |v: &String| values.binary_search(v).ok());
                Some(Made::Category {
                    i,
                    places: rows.values[i].iter().map(place).collect(),
                    missing: fill.as_ref().and_then(place),
                    width: values.len(),
                })
            }
            Column::Constant { .. } => None,
        };
        let made: Vec<Made> = columns.iter().filter_map(make).collect();
        let of = |made: &Made| if let Made::Category { width, .. } = made { *width } else { 1 };
        let width = made.iter().map(of).sum();
        match width {
            0 => Err(Error::Data(
                "every column is the same in all rows of the training part; there is nothing to learn from"
                    .to_owned(),
            )),
            _ => Ok(Encoder { made, width }),
        }
    }

    /// Writes the sample of a row into `out`, which holds zeros.
    fn encode(&self, view: &View, out: &mut [f32]) {
        let mut at = 0;
        for made in &self.made {
            match made {
                Made::Number { i, clip, fill, mean, std } => {
                    let value = view.number(*i);
                    let value = match clip {
                        _ if value.is_nan() => *fill,
                        Some([low, high]) => value.clamp(*low, *high),
                        None => value,
                    };
                    out[at] = ((value - mean) / std) as f32;
                    at += 1;
                }
                Made::Category { i, places, missing, width } => {
                    let place = view.category(*i).map_or(*missing, |place| places[place as usize]);
                    if let Some(place) = place {
                        out[at + place] = 1.0;
                    }
                    at += width;
                }
            }
        }
    }

    /// The samples and labels of rows.
    ///
    /// # Errors
    /// When they cannot be read; [`Error::Data`] if they are too many for a file.
    pub fn samples(&self, rows: &Rows, parts: &Parts, of: &[u32]) -> Result<(Vec<f32>, Vec<u32>)> {
        if 4 * self.width * of.len() > limits::PREPARE_SHARD {
            return Err(Error::Data(
                "the rows of one file have more than 1 GiB; give a smaller --shard (prepare.shard)"
                    .to_owned(),
            ));
        }
        let mut values = vec![0f32; self.width * of.len()];
        // In the order in which they lie in the file.
        let mut order: Vec<(u32, usize)> = of.iter().copied().zip(0..).collect();
        order.sort_unstable();
        rows.pick(&order, |place, view| {
            self.encode(view, &mut values[place * self.width..][..self.width]);
        })?;
        let labels = of.iter().map(|&row| parts.label(rows, row)).collect();
        Ok((values, labels))
    }
}
