//! A line as a picture of characters, for a terminal.

use super::axis::Axis;

/// Room for the ticks at the left.
const LEFT: usize = 9;

/// Points (x, y) on `width` × `height` characters and the two axes, in Braille: each character has 2 × 4 dots.
#[must_use]
pub fn sketch(x: &Axis, y: &Axis, points: &[(f64, f64)], width: usize, height: usize) -> String {
    let (width, height) = (width.saturating_sub(LEFT + 1).max(8), height.max(3));
    let (across, up) = (x.over(points.iter().map(|p| p.0)), y.over(points.iter().map(|p| p.1)));
    let mut cells = vec![0u8; width * height];
    let places: Vec<(f64, f64)> = points
        .iter()
        .filter_map(|&(px, py)| {
            let column = across.place(px)? * (2 * width - 1) as f64;
            Some((column, (1.0 - up.place(py)?) * (4 * height - 1) as f64))
        })
        .collect();
    let joined = places.windows(2).flat_map(|pair| between(pair[0], pair[1]));
    for (column, row) in joined.chain(places.first().copied()) {
        let (column, row) = (column.round() as usize, row.round() as usize);
        cells[row / 4 * width + column / 2] |= DOTS[row % 4][column % 2];
    }
    let mut labels = vec![String::new(); height];
    for (value, text) in up.ticks() {
        if let Some(share) = up.place(value) {
            labels[((1.0 - share) * (height - 1) as f64).round() as usize] = text;
        }
    }
    let mut text = String::new();
    for (label, row) in labels.iter().zip(cells.chunks(width)) {
        let row: String = row
            .iter()
            .map(|&dots| char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' '))
            .collect();
        text += format!("{label:>LEFT$}│{row}").trim_end_matches(['\u{2800}']);
        text.push('\n');
    }
    text += &format!("{:>LEFT$}└{}\n", "", "─".repeat(width));
    text + &below(
        &across
            .ticks()
            .into_iter()
            .filter_map(|(v, t)| Some((across.place(v)?, t)))
            .collect::<Vec<_>>(),
        width,
    ) + &format!("  {}", x.title)
}

/// The dots of a Braille character by row and column.
const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

/// Places from one point to the next, a dot apart.
fn between((x0, y0): (f64, f64), (x1, y1): (f64, f64)) -> impl Iterator<Item = (f64, f64)> {
    let steps = (x1 - x0).abs().max((y1 - y0).abs()).ceil().max(1.0);
    (1..=steps as usize).map(move |i| {
        let share = i as f64 / steps;
        (x0 + share * (x1 - x0), y0 + share * (y1 - y0))
    })
}

/// The line of ticks; one that would run into the tick before it is left out.
fn below(ticks: &[(f64, String)], width: usize) -> String {
    let mut line = " ".repeat(LEFT + 1);
    for (share, text) in ticks {
        let middle = LEFT + 1 + (share * (width - 1) as f64).round() as usize;
        let start = middle.saturating_sub(text.len() / 2);
        let used = line.trim_end().len();
        if used == 0 || start > used {
            line = format!("{:<start$}{text}", line.trim_end());
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::axis::Scale;
    use super::*;

    #[test]
    fn a_falling_line_begins_at_the_top_left_and_ends_at_the_bottom_right() {
        let (x, y) = (Axis::new("rate", Scale::Log), Axis::new("loss", Scale::Linear));
        let points: Vec<(f64, f64)> =
            (0..10).map(|i| (10f64.powi(i), 10.0 - f64::from(i))).collect();
        let text = sketch(&x, &y, &points, 40, 6);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 8, "{text}");
        let drawn = |line: &str| {
            let of = |c: char| ('\u{2801}'..='\u{28ff}').contains(&c);
            (line.chars().position(of), line.chars().filter(|&c| of(c)).count())
        };
        let (first, last) = (drawn(lines[0]), drawn(lines[5]));
        assert!(first.0 < last.0 && first.1 > 0 && last.1 > 0, "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= 48), "{text}");
        assert!(lines[7].contains("1e5") && lines[7].ends_with("rate"), "{text}");
    }

    #[test]
    fn no_points_are_an_empty_picture() {
        let axis = Axis::new("", Scale::Linear);
        assert_eq!(sketch(&axis, &axis, &[], 30, 4).lines().count(), 6);
        assert_eq!(sketch(&axis, &axis, &[(1.0, f64::NAN)], 0, 0).lines().count(), 5);
    }
}
