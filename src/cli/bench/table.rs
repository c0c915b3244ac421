//! Tables for people, at most 100 columns wide, printed row by row while they are measured.

use crate::report::console::say;

/// A column: its heading and its width. Cells are set to the right.
pub struct Column {
    head: &'static str,
    width: usize,
}

/// A column.
#[must_use]
pub const fn column(head: &'static str, width: usize) -> Column {
    Column { head, width }
}

/// A table that only rank 0 prints.
pub struct Table {
    shown: bool,
    columns: Vec<Column>,
}

impl Table {
    /// A table; its heading is printed at once.
    #[must_use]
    pub fn begin(shown: bool, columns: Vec<Column>) -> Table {
        let table = Table { shown, columns };
        let heads: Vec<String> = table.columns.iter().map(|c| c.head.to_owned()).collect();
        let head = table.line(&heads);
        table.print("");
        table.print(&head);
        table.print(&format!("  {}", "─".repeat(width(&head).saturating_sub(2))));
        table
    }

    /// Prints one row.
    pub fn row(&self, cells: &[String]) {
        self.print(&self.line(cells));
    }

    /// Prints a line of text below the table.
    pub fn note(&self, text: &str) {
        self.print(&format!("  {text}"));
    }

    fn line(&self, cells: &[String]) -> String {
        let mut line = String::from(" ");
        for (cell, column) in cells.iter().zip(&self.columns) {
            let blank = column.width.saturating_sub(width(cell));
            line += &format!(" {}{cell}", " ".repeat(blank));
        }
        line
    }

    fn print(&self, text: &str) {
        if self.shown {
            say(text);
        }
    }
}

/// Characters, not bytes: `µ` is one column wide.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// Three significant digits: `0.412`, `4.12`, `41.2`, `412`, `4120`.
#[must_use]
pub fn digits(x: f64) -> String {
    match x.abs() {
        a if !a.is_finite() => "–".to_owned(),
        a if a < 0.9995 => format!("{x:.3}"),
        a if a < 9.995 => format!("{x:.2}"),
        a if a < 99.95 => format!("{x:.1}"),
        _ => format!("{x:.0}"),
    }
}

/// `0.412 µs`, `41.2 µs`, `4.12 ms`, `1.23 s`.
#[must_use]
pub fn time(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "–".to_owned(),
        s if s < 999.5e-6 => format!("{} µs", digits(s * 1e6)),
        s if s < 0.9995 => format!("{} ms", digits(s * 1e3)),
        s => format!("{} s", digits(s)),
    }
}

/// `8 B`, `64 KiB`, `1 MiB`, in powers of 1024; sizes between them as they are.
#[must_use]
pub fn size(bytes: usize) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

/// `83 %`, or `–` where there is nothing to show.
#[must_use]
pub fn percent(share: Option<f64>) -> String {
    match share.filter(|s| s.is_finite()) {
        Some(s) if s < 0.0995 => format!("{:.1} %", 100.0 * s),
        Some(s) => format!("{:.0} %", 100.0 * s),
        None => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_the_unit_that_suits_them() {
        assert_eq!(time(0.412e-6), "0.412 µs");
        assert_eq!(time(12.34e-6), "12.3 µs");
        assert_eq!(time(999.9e-6), "1.00 ms");
        assert_eq!(time(0.1346), "135 ms");
        assert_eq!(time(1.5), "1.50 s");
        assert_eq!(time(f64::NAN), "–");
        assert_eq!((digits(9.999), digits(0.9999)), ("10.0".to_owned(), "1.00".to_owned()));
        assert_eq!((size(8), size(65_536)), ("8 B".to_owned(), "64 KiB".to_owned()));
        assert_eq!((size(1 << 28), size(1025)), ("256 MiB".to_owned(), "1025 B".to_owned()));
        assert_eq!(percent(Some(0.831)), "83 %");
        assert_eq!((percent(Some(0.0123)), percent(None)), ("1.2 %".to_owned(), "–".to_owned()));
    }

    #[test]
    fn cells_stand_below_their_headings_whatever_characters_they_hold() {
        let table = Table { shown: false, columns: vec![column("size", 8), column("p50", 9)] };
        assert_eq!(table.line(&["8 B".into(), "0.41 µs".into()]), "       8 B   0.41 µs");
    }
}
