//! From numbers to places along an axis, and the ticks beside it.

/// How values become places.
#[derive(Debug, Clone, PartialEq)]
pub enum Scale {
    /// Equal differences are equally long.
    Linear,
    /// Equal ratios are equally long; values are above 0.
    Log,
    /// Values are 0, 1, … and have these names.
    Names(Vec<String>),
}

/// One axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What it shows.
    pub title: String,
    /// How.
    pub scale: Scale,
}

impl Axis {
    /// An axis without names.
    #[must_use]
    pub fn new(title: &str, scale: Scale) -> Axis {
        Axis { title: title.to_owned(), scale }
    }

    /// An axis as wide as `values` and a little more. Values that are not finite, or that a logarithm does not
    /// take, count for nothing.
    #[must_use]
    pub fn over(&self, values: impl Iterator<Item = f64>) -> Stretch<'_> {
        let stretch = Stretch { scale: &self.scale, low: 0.0, high: 1.0 };
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for at in values.filter_map(|value| stretch.bend(value)) {
            (low, high) = (low.min(at), high.max(at));
        }
        if let Scale::Names(names) = &self.scale {
            let last = names.len().max(1) as f64 - 0.5;
            return Stretch { low: -0.5, high: last, ..stretch };
        }
        if low > high {
            return stretch;
        }
        let room = if high > low { 0.04 * (high - low) } else { 0.5 * high.abs().max(1e-3) };
        Stretch { low: low - room, high: high + room, ..stretch }
    }
}

/// An axis and the values at its ends.
#[derive(Debug, Clone, Copy)]
pub struct Stretch<'a> {
    scale: &'a Scale,
    low: f64,
    high: f64,
}

impl Stretch<'_> {
    fn bend(&self, value: f64) -> Option<f64> {
        let bent = if *self.scale == Scale::Log { value.log10() } else { value };
        bent.is_finite().then_some(bent)
    }

    /// Where a value is: 0 at the low end, 1 at the high one; `None` for one that has no place.
    #[must_use]
    pub fn place(&self, value: f64) -> Option<f64> {
        let share = (self.bend(value)? - self.low) / (self.high - self.low);
        (-1e-9..=1.0 + 1e-9).contains(&share).then_some(share)
    }

    /// About five values that are short to write, with their words.
    #[must_use]
    pub fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Names(names) => {
                names.iter().enumerate().map(|(i, name)| (i as f64, name.clone())).collect()
            }
            Scale::Linear => self.even(),
            Scale::Log => self.ratios(),
        }
    }

    fn even(&self) -> Vec<(f64, String)> {
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|&s| s >= rough);
        let step = step.unwrap_or(power);
        let first = (self.low / step).ceil() as i64;
        (first..first + 12)
            .map(|i| i as f64 * step)
            .take_while(|&value| value <= self.high)
            .map(|value| (value, short(value)))
            .collect()
    }

    fn ratios(&self) -> Vec<(f64, String)> {
        let decades = self.high - self.low;
        let within: &[f64] = if decades > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let every = (decades / 8.0).ceil().max(1.0) as usize;
        let powers = (self.low.floor() as i32..=self.high.ceil() as i32).step_by(every);
        powers
            .flat_map(|power| within.iter().map(move |n| n * 10f64.powi(power)))
            .filter(|value| self.place(*value).is_some())
            .map(|value| (value, short(value)))
            .collect()
    }
}

/// A number in as few characters as tell it: four significant digits.
#[must_use]
pub fn short(value: f64) -> String {
    let rounded: f64 = format!("{value:.3e}").parse().unwrap_or(value);
    let size = rounded.abs();
    match rounded {
        0.0 => "0".to_owned(),
        _ if !(1e-3..1e5).contains(&size) => format!("{rounded:e}"),
        _ => format!("{rounded}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(scale: Scale, values: &[f64]) -> Vec<String> {
        let axis = Axis::new("", scale);
        axis.over(values.iter().copied()).ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        assert_eq!(ticks(Scale::Linear, &[0.0, 1.0]), ["0", "0.5", "1"]);
        assert_eq!(ticks(Scale::Linear, &[-3.0, 11.0]), ["0", "5", "10"]);
        assert_eq!(ticks(Scale::Log, &[1e-4, 1e-1]), ["1e-4", "0.001", "0.01", "0.1"]);
        assert_eq!(ticks(Scale::Log, &[10.0, 60.0]), ["10", "20", "50"]);
        assert_eq!(ticks(Scale::Names(vec!["a".into(), "b".into()]), &[0.0]), ["a", "b"]);
    }

    #[test]
    fn an_axis_without_values_or_with_one_is_an_axis_all_the_same() {
        for values in [&[][..], &[f64::NAN], &[0.0], &[7.0, 7.0], &[-1.0], &[1e300, -1e300]] {
            for scale in [Scale::Linear, Scale::Log] {
                let axis = Axis::new("", scale);
                let stretch = axis.over(values.iter().copied());
                assert!(stretch.low < stretch.high, "{values:?}");
                assert!(stretch.ticks().len() < 40);
            }
        }
        let axis = Axis::new("", Scale::Log);
        let stretch = axis.over([1.0, 100.0].into_iter());
        assert!((stretch.place(10.0).unwrap() - 0.5).abs() < 1e-9);
        assert_eq!((stretch.place(0.0), stretch.place(1e9)), (None, None));
    }

    #[test]
    fn numbers_are_told_in_four_digits() {
        for (value, text) in
            [(0.012_345_6, "0.01235"), (64.0, "64"), (1.5e-7, "1.5e-7"), (0.0, "0"), (-2.5, "-2.5")]
        {
            assert_eq!(short(value), text);
        }
    }
}
