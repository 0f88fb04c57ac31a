//! What was measured, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::stats::median;

/// The columns of a row, each a value per round.
pub const COLUMNS: [(&str, &str); 9] = [
    ("stream_1_gbit", "1 stream, Gbit/s"),
    ("stream_8_gbit", "8 streams, Gbit/s"),
    ("cpu_s_per_gb", "CPU s/GB"),
    ("connections_per_s", "new connections/s"),
    ("connections_p99_ms", "their p99, ms"),
    ("requests_per_s", "kept-alive requests/s"),
    ("requests_p50_ms", "their p50, ms"),
    ("requests_p99_ms", "their p99, ms"),
    ("resident_mb", "MB, all processes"),
];

/// Ratios worth a line: column, row over row, and the least it is to reach, where there is a goal.
const RATIOS: [(&str, &str, &str, Option<f64>); 12] = [
    ("stream_1_gbit", "underpass, unsealed", "two splice hops", Some(0.97)),
    ("stream_8_gbit", "underpass, unsealed", "two splice hops", Some(0.97)),
    ("stream_1_gbit", "underpass, unsealed", "rathole", Some(2.2)),
    ("stream_1_gbit", "underpass, sealed", "rathole", Some(1.8)),
    ("stream_8_gbit", "underpass, sealed", "rathole", None),
    ("stream_1_gbit", "underpass, sealed", "rathole, Noise", None),
    ("stream_1_gbit", "client to client, end to end", "rathole, Noise", None),
    ("connections_per_s", "underpass, sealed", "rathole", Some(1.5)),
    ("connections_per_s", "underpass, sealed", "haproxy x2", Some(1.2)),
    ("connections_per_s", "underpass, unsealed", "two splice hops", None),
    ("requests_per_s", "underpass, sealed", "rathole", Some(1.05)),
    ("requests_per_s", "underpass, unsealed", "rathole", Some(1.15)),
];

/// All values of a run: row, column, one value per round.
pub type Values = BTreeMap<&'static str, BTreeMap<&'static str, Vec<f64>>>;

/// A run, ready to be told.
#[derive(Debug)]
pub struct Report {
    /// The values.
    pub values: Values,
    /// Rows in the order of the table.
    pub rows: Vec<&'static str>,
    /// Rows that could not be measured, and why.
    pub missing: Vec<(String, String)>,
    /// The machine, versions and command.
    pub facts: Vec<(String, String)>,
    /// Rounds, of which the median is shown.
    pub rounds: usize,
}

impl Report {
    fn median(&self, row: &str, column: &str) -> Option<f64> {
        median(self.values.get(row)?.get(column)?)
    }

    /// A section of `docs/benchmarks.md`.
    pub fn to_markdown(&self) -> String {
        let mut out = String::new();
        for (fact, value) in &self.facts {
            let _ = writeln!(out, "- {fact}: {value}");
        }
        let _ = writeln!(out, "- medians of {} rounds, the rows measured in turn in each\n", self.rounds);
        let _ = write!(out, "| |");
        for (_, title) in COLUMNS {
            let _ = write!(out, " {title} |");
        }
        let _ = writeln!(out, "\n|---|{}", "---:|".repeat(COLUMNS.len()));
        for row in &self.rows {
            let _ = write!(out, "| {row} |");
            for (column, _) in COLUMNS {
                let shown = self.median(row, column).map_or_else(|| "-".to_owned(), shown);
                let _ = write!(out, " {shown} |");
            }
            out.push('\n');
        }
        let _ = writeln!(out, "\n| ratio | measured | goal |\n|---|---:|---:|");
        for (ratio, goal) in self.ratios() {
            let goal = goal.map_or_else(|| "-".to_owned(), |goal| format!("at least {goal}"));
            let _ = writeln!(out, "| {} | {:.2} | {goal} |", ratio.0, ratio.1);
        }
        for (row, why) in &self.missing {
            let _ = writeln!(out, "\nNot measured: {row} ({why}).");
        }
        out
    }

    fn ratios(&self) -> Vec<((String, f64), Option<f64>)> {
        let title = |column: &'static str| {
            COLUMNS.iter().find(|(key, _)| *key == column).map_or(column, |(_, title)| *title)
        };
        RATIOS
            .iter()
            .filter_map(|(column, row, other, goal)| {
                let ratio = self.median(row, column)? / self.median(other, column)?;
                ratio.is_finite().then(|| ((format!("{}: {row} / {other}", title(column)), ratio), *goal))
            })
            .collect()
    }

    /// Everything, every round included.
    pub fn to_json(&self) -> Value {
        let medians: Value = self
            .rows
            .iter()
            .map(|row| {
                let columns: serde_json::Map<_, _> = COLUMNS
                    .iter()
                    .filter_map(|(column, _)| Some(((*column).to_owned(), json!(self.median(row, column)?))))
                    .collect();
                ((*row).to_owned(), Value::Object(columns))
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
        json!({
            "facts": self.facts.iter().cloned().collect::<BTreeMap<_, _>>(),
            "rounds": self.rounds,
            "medians": medians,
            "ratios": self.ratios().iter()
                .map(|((what, measured), goal)| json!({"ratio": what, "measured": measured, "goal": goal}))
                .collect::<Vec<_>>(),
            "values": self.values,
            "missing": self.missing.iter().cloned().collect::<BTreeMap<_, _>>(),
        })
    }
}

fn shown(value: f64) -> String {
    if value >= 1000.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The page with the section of the last run replaced; `None` if it has no place for it.
pub fn into_page(page: &str, section: &str) -> Option<String> {
    into_page_between(page, "last run", section)
}

/// The page with the section between the two marks of `place` replaced; `None` if it has no such marks.
pub fn into_page_between(page: &str, place: &str, section: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- begin: {place} -->"), format!("<!-- end: {place} -->"));
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n\n{section}\n{end}{after}"))
}

/// The machine, as far as it matters here.
pub fn machine() -> Vec<(String, String)> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    vec![
        ("when".into(), jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()),
        ("processor".into(), format!("{}, {cores} cores", field(&read("/proc/cpuinfo"), "model name"))),
        ("memory".into(), field(&read("/proc/meminfo"), "MemTotal")),
        ("kernel".into(), read("/proc/sys/kernel/osrelease").trim().to_owned()),
    ]
}

/// What a program says of its version, in one line with its name; `None` if it says nothing.
pub fn version(program: &std::path::Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbered = |line: &&str| line.chars().any(|c| c.is_ascii_digit());
    let named = |line: &&str| numbered(line) && line.to_lowercase().contains("version");
    let line = text.lines().find(named).or_else(|| text.lines().find(numbered))?;
    // "Build Version:  0.5.0", "HAProxy version 2.6.12 …", "bore-cli 0.6.0": the number is what matters.
    let number = line.split_whitespace().find(|word| numbered(word))?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    Some(format!("{name} {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let row = |stream: f64| BTreeMap::from([("stream_1_gbit", vec![stream, stream * 2.0, stream * 3.0])]);
        Report {
            values: BTreeMap::from([("underpass, unsealed", row(5.0)), ("two splice hops", row(4.0))]),
            rows: vec!["two splice hops", "underpass, unsealed"],
            missing: vec![("bore".into(), "not on the PATH".into())],
            facts: vec![("kernel".into(), "6.1".into())],
            rounds: 3,
        }
    }

    #[test]
    fn a_report_shows_medians_ratios_and_what_is_missing() {
        let text = report().to_markdown();
        assert!(text.contains("| underpass, unsealed | 10.0 | - |"), "{text}");
        assert!(text.contains("underpass, unsealed / two splice hops | 1.25 | at least 0.97 |"), "{text}");
        assert!(text.contains("Not measured: bore (not on the PATH)."), "{text}");
        let json = report().to_json();
        assert_eq!(json["medians"]["two splice hops"]["stream_1_gbit"], 8.0);
        assert_eq!(json["values"]["two splice hops"]["stream_1_gbit"][2], 12.0);
        assert_eq!(json["missing"]["bore"], "not on the PATH");
    }

    #[test]
    fn a_page_keeps_everything_but_the_last_run() {
        let (begin, end) = ("<!-- begin: last run -->", "<!-- end: last run -->");
        let page = format!("head\n{begin}\nold\n{end}\ntail\n");
        let new = into_page(&page, "new").unwrap_or_default();
        assert_eq!(new, format!("head\n{begin}\n\nnew\n{end}\ntail\n"));
        assert_eq!(into_page("no marks", "new"), None);
        assert_eq!(into_page_between(&page, "another run", "new"), None);
    }
}
