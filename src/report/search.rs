//! What a search found: `table.json`, `table.csv`, `table.html`, and lines for a terminal. No time is in the files, so
//! that a search which was interrupted ends with the same ones.

use super::axis::{Axis, Scale, short};
use super::page::{self, escaped};
use super::plot::{Look, Plot, Series};
use crate::error::{Error, Result};
use crate::util::files::write_whole;
use crate::util::human;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// How far a trial came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// To the end of its card.
    Completed,
    /// To a comparison in which others were better.
    GivenUp,
    /// It has no result, for the reason given.
    Failed,
    /// It is not over yet.
    Open,
}

/// One trial.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// From 1, the best; none while it is open.
    pub rank: Option<usize>,
    /// Its number, from 0.
    pub trial: usize,
    /// The searched options and its values of them.
    pub values: Map<String, Value>,
    /// The objective.
    pub metric: Option<f64>,
    /// Steps done.
    pub step: u64,
    /// How far it came.
    pub state: State,
    /// That of its run.
    pub exit_code: Option<u8>,
    /// Why it failed.
    pub reason: Option<String>,
    /// How long it ran; for the terminal alone.
    #[serde(skip)]
    pub seconds: f64,
}

/// The whole search.
#[derive(Debug, Serialize)]
pub struct Table {
    /// What the card is about.
    pub about: String,
    /// `grid`, `random` or `halving`.
    pub method: String,
    /// Name of the objective.
    pub objective: String,
    /// `max` or `min`.
    pub goal: &'static str,
    /// The best trial, once there is one.
    pub best: Option<usize>,
    /// All trials, the best first.
    pub rows: Vec<Row>,
    /// How the values of each option are spread, by its path.
    #[serde(skip)]
    pub options: Vec<(String, Scale)>,
}

impl Table {
    /// Writes the three files into `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::Internal(format!("the table as JSON: {e}")))?;
        json.push(b'\n');
        write_whole(&folder.join("table.json"), &json)?;
        write_whole(&folder.join("table.csv"), &self.csv()?)?;
        write_whole(&folder.join("table.html"), self.page().as_bytes())
    }

    fn csv(&self) -> Result<Vec<u8>> {
        let failed = |e: &dyn std::fmt::Display| Error::Internal(format!("table.csv: {e}"));
        let mut csv = csv::Writer::from_writer(Vec::new());
        let options: Vec<&str> = self.options.iter().map(|(path, _)| &**path).collect();
        let ends = [&*self.objective, "step", "state", "exit_code", "reason"];
        csv.write_record([&["rank", "trial"], &options[..], &ends].concat())
            .map_err(|e| failed(&e))?;
        for row in &self.rows {
            let mut cells = vec![text(row.rank.as_ref()), row.trial.to_string()];
            cells.extend(self.options.iter().map(|(path, _)| plain(row.values.get(path))));
            let state = serde_json::to_value(row.state).unwrap_or_default();
            cells.extend([text(row.metric.as_ref()), row.step.to_string(), plain(Some(&state))]);
            cells.extend([text(row.exit_code.as_ref()), row.reason.clone().unwrap_or_default()]);
            csv.write_record(&cells).map_err(|e| failed(&e))?;
        }
        csv.into_inner().map_err(|e| failed(&e))
    }

    /// The cells of the table for people, the heading first; the last column is left to the caller.
    fn cells(&self) -> Vec<Vec<String>> {
        let names = self.options.iter().map(|(path, _)| self.short_name(path));
        let first = ["rank", "trial"].map(str::to_owned).into_iter();
        let last = [self.objective.clone(), "steps".to_owned()];
        let mut lines = vec![first.chain(names).chain(last).collect::<Vec<_>>()];
        for row in &self.rows {
            let mut cells = vec![text(row.rank.as_ref()), row.trial.to_string()];
            cells.extend(self.options.iter().map(|(path, _)| brief(row.values.get(path))));
            cells.extend([
                row.metric.map_or("–".to_owned(), |m| format!("{m:.6}")),
                human::count(row.step),
            ]);
            lines.push(cells);
        }
        lines
    }

    /// The last part of an option's path, if that tells it from the others.
    fn short_name(&self, path: &str) -> String {
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let alike = self.options.iter().filter(|(other, _)| last(other) == last(path)).count();
        if alike == 1 { last(path) } else { path.to_owned() }
    }

    /// The table for a terminal, with times.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut cells = self.cells();
        cells[0].push("time".to_owned());
        for (row, cells) in self.rows.iter().zip(&mut cells[1..]) {
            cells.push(human::duration(
                Duration::try_from_secs_f64(row.seconds).unwrap_or_default(),
            ));
        }
        let width = |column: usize| {
            cells.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..cells[0].len()).map(width).collect();
        let notes = std::iter::once(String::new()).chain(self.rows.iter().map(note));
        let line = |(cells, note): (&Vec<String>, String)| {
            let padded: Vec<String> =
                cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}")).collect();
            format!("  {}  {note}", padded.join("  ")).trim_end().to_owned()
        };
        cells.iter().zip(notes).map(line).collect()
    }

    fn page(&self) -> String {
        let mut html = page::begin(&format!("Search: {}", self.about));
        let done = self.rows.iter().filter(|row| row.state != State::Open).count();
        // Writing to a string cannot fail.
        let _ = writeln!(
            html,
            "<p>{}, {done} of {} trials; {} of <b>{}</b> on the test set is better. Hollow: given up early.</p>",
            escaped(&self.method),
            self.rows.len(),
            if self.goal == "max" { "a larger value" } else { "a smaller value" },
            escaped(&self.objective)
        );
        if let Some(best) =
            self.rows.first().filter(|row| row.rank == Some(1) && row.metric.is_some())
        {
            let of =
                |(path, value): (&String, &Value)| format!("--set {path}={}", plain(Some(value)));
            let sets: Vec<String> = best.values.iter().map(of).collect();
            let metric = best.metric.unwrap_or_default();
            let sets = escaped(&sets.join(" "));
            let _ = writeln!(
                html,
                "<p>Best: trial {} with {metric}: <code>{sets}</code></p>",
                best.trial
            );
        }
        html.push_str(&self.best_so_far().svg());
        for (path, scale) in &self.options {
            html.push_str(&self.against(path, scale).svg());
        }
        html.push_str("<table>\n");
        for (i, cells) in self.cells().iter().enumerate() {
            let tag = if i == 0 { "th" } else { "td" };
            let cells: String =
                cells.iter().map(|cell| format!("<{tag}>{}", escaped(cell))).collect();
            let note = if i == 0 { String::new() } else { note(&self.rows[i - 1]) };
            let _ = writeln!(html, "<tr>{cells}<{tag}>{}</tr>", escaped(&note));
        }
        html + "</table>\n"
    }

    /// Losses that go over many sizes are shown by their logarithms.
    fn objective_axis(&self) -> Axis {
        let metrics: Vec<f64> = self.rows.iter().filter_map(|row| row.metric).collect();
        let low = metrics.iter().copied().fold(f64::INFINITY, f64::min);
        let high = metrics.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let wide = self.goal == "min" && low > 0.0 && high > 20.0 * low;
        Axis::new(&self.objective, if wide { Scale::Log } else { Scale::Linear })
    }

    fn dots(&self, x: impl Fn(&Row) -> Option<f64>) -> Vec<Series> {
        let of = |given_up: bool| {
            let rows = self.rows.iter().filter(|row| (row.state != State::Completed) == given_up);
            rows.filter_map(|row| {
                let metric = row.metric?;
                Some((x(row)?, metric, format!("trial {}: {metric}", row.trial)))
            })
            .collect()
        };
        vec![
            Series { points: of(true), look: Look::Hollow },
            Series { points: of(false), look: Look::Dots },
        ]
    }

    fn against(&self, path: &str, scale: &Scale) -> Plot {
        let place = |row: &Row| match scale {
            Scale::Names(names) => {
                let name = brief(row.values.get(path));
                names.iter().position(|other| *other == name).map(|i| i as f64)
            }
            _ => row.values.get(path)?.as_f64(),
        };
        Plot {
            x: Axis::new(path, scale.clone()),
            y: self.objective_axis(),
            series: self.dots(place),
            marks: Vec::new(),
        }
    }

    fn best_so_far(&self) -> Plot {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| row.trial);
        let (mut points, mut best) = (Vec::new(), None);
        for row in rows.into_iter().filter(|row| row.state == State::Completed) {
            let Some(metric) = row.metric else { continue };
            let better = |best: f64| if self.goal == "max" { metric > best } else { metric < best };
            if best.is_none_or(better) {
                // A step: what was the best stays so until this trial.
                points.extend(best.map(|best| (row.trial as f64, best, String::new())));
                best = Some(metric);
            }
            points.extend(best.map(|best| (row.trial as f64, best, String::new())));
        }
        let last = self.rows.len().saturating_sub(1) as f64;
        points.extend(best.map(|best| (last, best, String::new())));
        let mut series = vec![Series { points, look: Look::Line }];
        series.extend(self.dots(|row| Some(row.trial as f64)));
        Plot {
            x: Axis::new("trial; the line: best so far", Scale::Linear),
            y: self.objective_axis(),
            series,
            marks: Vec::new(),
        }
    }
}

/// The words of an axis of choices.
#[must_use]
pub fn names(values: &[Value]) -> Scale {
    Scale::Names(values.iter().map(|value| brief(Some(value))).collect())
}

fn note(row: &Row) -> String {
    match row.state {
        State::Completed => String::new(),
        State::GivenUp => "given up".to_owned(),
        State::Open => "open".to_owned(),
        State::Failed => format!(
            "failed with {}: {}",
            text(row.exit_code.as_ref()),
            row.reason.as_deref().unwrap_or_default()
        ),
    }
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map_or(String::new(), T::to_string)
}

/// A value as it stands in a card; text without its quotes.
fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A value for people.
#[must_use]
pub fn brief(value: Option<&Value>) -> String {
    match value {
        Some(Value::Number(n)) if n.is_f64() => short(n.as_f64().unwrap_or_default()),
        Some(Value::Object(_) | Value::Array(_)) => {
            let text = plain(value);
            let cut: String = text.chars().take(24).collect();
            if cut.len() < text.len() { cut + "…" } else { cut }
        }
        _ => plain(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(trial: usize, lr: f64, metric: Option<f64>, state: State) -> Row {
        let values = json!({"model.kind": "ml<p", "optimizer.lr": lr});
        Row {
            rank: (state != State::Open).then_some(trial + 1),
            trial,
            values: values.as_object().unwrap().clone(),
            metric,
            step: 60,
            state,
            exit_code: Some(0),
            reason: (state == State::Failed).then(|| "NaN, \"at\" step 3".to_owned()),
            seconds: 1.5,
        }
    }

    fn table() -> Table {
        Table {
            about: "a card".into(),
            method: "random".into(),
            objective: "accuracy".into(),
            goal: "max",
            best: Some(0),
            options: vec![
                ("model.kind".into(), names(&[json!("ml<p")])),
                ("optimizer.lr".into(), Scale::Log),
            ],
            rows: vec![
                row(0, 0.01, Some(0.9), State::Completed),
                row(1, 0.02, Some(0.5), State::GivenUp),
                row(2, 0.5, None, State::Failed),
                row(3, 0.1, None, State::Open),
            ],
        }
    }

    #[test]
    fn the_files_have_a_row_for_each_trial_and_no_time() {
        let folder = tempfile::tempdir().unwrap();
        table().write(folder.path()).unwrap();
        let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let json: Value = serde_json::from_str(&text("table.json")).unwrap();
        assert_eq!(json["rows"].as_array().unwrap().len(), 4);
        assert_eq!(json["rows"][1]["state"], "given-up");
        assert!(!text("table.json").contains("seconds"));
        let csv = text("table.csv");
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(
            lines[0],
            "rank,trial,model.kind,optimizer.lr,accuracy,step,state,exit_code,reason"
        );
        assert_eq!(lines[1], "1,0,ml<p,0.01,0.9,60,completed,0,");
        assert_eq!(lines[3], "3,2,ml<p,0.5,,60,failed,0,\"NaN, \"\"at\"\" step 3\"");
        let html = text("table.html");
        assert_eq!(html.matches("<svg").count(), 3);
        assert!(html.contains("ml&lt;p") && !html.contains("ml<p"), "{html}");
        assert!(html.contains("--set model.kind=ml&lt;p --set optimizer.lr=0.01"), "{html}");
    }

    #[test]
    fn a_terminal_sees_aligned_columns_with_short_names_and_reasons() {
        let lines = table().lines();
        assert_eq!(lines.len(), 5);
        let heading: Vec<&str> = lines[0].split_whitespace().collect();
        assert_eq!(heading, ["rank", "trial", "kind", "lr", "accuracy", "steps", "time"]);
        assert!(lines[3].ends_with("failed with 0: NaN, \"at\" step 3"), "{}", lines[3]);
        assert!(lines[1].ends_with("1.5 s") && lines[2].ends_with("given up"), "{lines:?}");
        let mut same = table();
        same.options.push(("other.kind".into(), Scale::Linear));
        assert!(same.lines()[0].contains("model.kind") && same.lines()[0].contains("other.kind"));
    }

    #[test]
    fn a_search_without_any_result_has_a_page() {
        let mut empty = table();
        empty.rows.retain(|row| row.metric.is_none());
        assert!(empty.page().contains("1 of 2 trials"), "{}", empty.page());
    }
}
