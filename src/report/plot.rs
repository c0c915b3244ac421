//! Plots as SVG, for pages that need no other file.

use super::axis::{Axis, Stretch};
use super::page::escaped;
use std::fmt::Write;

/// Of the whole picture.
const SIZE: [f64; 2] = [460.0, 280.0];
/// Room at the left, right, top and bottom for ticks and titles.
const ROOM: [f64; 4] = [64.0, 14.0, 14.0, 46.0];

/// How points are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Each a dot.
    Dots,
    /// Joined by a line.
    Line,
    /// Joined by a thin grey line.
    Faint,
    /// Each a hollow dot: beside the others, not among them.
    Hollow,
}

/// Points that belong together.
#[derive(Debug, Clone)]
pub struct Series {
    /// (x, y), and what is told when a pointer rests on it; may be empty.
    pub points: Vec<(f64, f64, String)>,
    /// How they are drawn.
    pub look: Look,
}

/// A picture of points.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Across.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// What is drawn, the last on top.
    pub series: Vec<Series>,
    /// Upright lines at values of x, with their words.
    pub marks: Vec<(f64, String)>,
}

impl Plot {
    /// The picture as an `svg` element.
    #[must_use]
    pub fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|series| &series.points);
        let marks = self.marks.iter().map(|(x, _)| *x);
        let frame = Frame {
            x: self.x.over(all().map(|p| p.0).chain(marks)),
            y: self.y.over(all().map(|p| p.1)),
        };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {} {}\" width=\"{}\" role=\"img\">\n",
            SIZE[0], SIZE[1], SIZE[0]
        );
        frame.draw_axes(&self.x.title, &self.y.title, &mut svg);
        for (x, words) in &self.marks {
            frame.draw_mark(*x, words, &mut svg);
        }
        for series in &self.series {
            frame.draw(series, &mut svg);
        }
        svg + "</svg>\n"
    }
}

struct Frame<'a> {
    x: Stretch<'a>,
    y: Stretch<'a>,
}

impl Frame<'_> {
    fn across(&self, value: f64) -> Option<f64> {
        let [left, right, ..] = ROOM;
        self.x.place(value).map(|share| left + share * (SIZE[0] - left - right))
    }

    fn down(&self, value: f64) -> Option<f64> {
        let [_, _, top, bottom] = ROOM;
        self.y.place(value).map(|share| SIZE[1] - bottom - share * (SIZE[1] - top - bottom))
    }

    // Writing to a string cannot fail.
    fn draw_axes(&self, x_title: &str, y_title: &str, svg: &mut String) {
        let [left, right, top, bottom] = ROOM;
        let (end, floor) = (SIZE[0] - right, SIZE[1] - bottom);
        for (value, text) in self.x.ticks() {
            let (Some(x), text) = (self.across(value), escaped(&text)) else { continue };
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {top}V{floor}\" stroke=\"#eee\"/><text x=\"{x:.1}\" y=\"{}\" \
                 text-anchor=\"middle\">{text}</text>",
                floor + 16.0
            );
        }
        for (value, text) in self.y.ticks() {
            let (Some(y), text) = (self.down(value), escaped(&text)) else { continue };
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {y:.1}H{end}\" stroke=\"#eee\"/><text x=\"{}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{text}</text>",
                left - 6.0,
                y + 4.0
            );
        }
        let middle = f64::midpoint(top, floor);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {top}V{floor}H{end}\" fill=\"none\" stroke=\"#888\"/><text x=\"{}\" \
             y=\"{}\" text-anchor=\"middle\">{}</text><text transform=\"translate(14 {middle}) \
             rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(left, end),
            SIZE[1] - 10.0,
            escaped(x_title),
            escaped(y_title)
        );
    }

    fn draw_mark(&self, value: f64, words: &str, svg: &mut String) {
        let Some(x) = self.across(value) else { return };
        let (top, floor) = (ROOM[2], SIZE[1] - ROOM[3]);
        // Words at the right edge would be cut off: they go to the left of their line.
        let (anchor, at) = if x > 0.7 * SIZE[0] { ("end", x - 4.0) } else { ("start", x + 4.0) };
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {top}V{floor}\" stroke=\"#c52\" stroke-dasharray=\"4 3\"/><text \
             x=\"{at:.1}\" y=\"{}\" text-anchor=\"{anchor}\" fill=\"#c52\">{}</text>",
            top + 10.0,
            escaped(words)
        );
    }

    fn draw(&self, series: &Series, svg: &mut String) {
        let places: Vec<(f64, f64, &str)> = series
            .points
            .iter()
            .filter_map(|(x, y, words)| Some((self.across(*x)?, self.down(*y)?, &**words)))
            .collect();
        let (fill, stroke) = match series.look {
            Look::Dots => ("#47c", "none"),
            Look::Hollow => ("#fff", "#47c"),
            Look::Line | Look::Faint => return self.join(&places, series.look, svg),
        };
        for (x, y, words) in places {
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{fill}\" stroke=\"{stroke}\"><title>{}\
                 </title></circle>",
                escaped(words)
            );
        }
    }

    fn join(&self, places: &[(f64, f64, &str)], look: Look, svg: &mut String) {
        let (colour, width) = if look == Look::Line { ("#47c", 2) } else { ("#bbb", 1) };
        let points: Vec<String> = places.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            points.join(" ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::axis::Scale;
    use super::*;

    fn plot(look: Look) -> String {
        let points = [(1e-3, 1.0), (1e-2, 0.5), (1e-1, f64::NAN)];
        let points = points.map(|(x, y)| (x, y, "a<b".to_owned())).to_vec();
        Plot {
            x: Axis::new("rate", Scale::Log),
            y: Axis::new("loss & more", Scale::Linear),
            series: vec![Series { points, look }],
            marks: vec![(1e-2, "best".to_owned())],
        }
        .svg()
    }

    #[test]
    fn each_point_that_has_a_place_is_drawn_with_its_words_as_text() {
        let svg = plot(Look::Dots);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert_eq!(svg.matches("a&lt;b").count(), 2);
        assert!(svg.contains("loss &amp; more") && svg.contains(">best</text>"), "{svg}");
    }

    #[test]
    fn a_line_goes_through_the_points_in_their_order() {
        let svg = plot(Look::Line);
        let line = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let x: Vec<f64> =
            line.split(' ').map(|p| p.split(',').next().unwrap().parse().unwrap()).collect();
        assert!(x.len() == 2 && x[0] < x[1], "{line}");
    }
}
