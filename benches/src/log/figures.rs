//! What was found: values round by round, their median and spread, and whether a goal is met.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::stats::median;

/// What a figure is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn said(self) -> String {
        match self {
            Self::AtLeast(least) => format!("at least {least}"),
            Self::AtMost(most) => format!("at most {most}"),
        }
    }
}

/// One thing that is measured, a value for each round.
#[derive(Clone, Debug)]
pub struct Figure {
    name: String,
    unit: &'static str,
    goal: Option<Goal>,
    values: Vec<f64>,
}

/// All figures of a run.
#[derive(Debug, Default)]
pub struct Figures {
    figures: Vec<Figure>,
    /// What could not be measured, and why.
    pub missing: Vec<(String, String)>,
}

impl Figures {
    /// Adds a value to the figure with this name.
    pub fn add(&mut self, name: &str, unit: &'static str, goal: Option<Goal>, value: f64) {
        eprintln!("  {name}: {value:.3} {unit}");
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.values.push(value),
            None => {
                self.figures.push(Figure { name: name.to_owned(), unit, goal, values: vec![value] });
            }
        }
    }

    /// A section of a page.
    pub fn to_markdown(&self, facts: &[(String, String)]) -> String {
        let mut out = String::new();
        for (fact, value) in facts {
            let _ = writeln!(out, "- {fact}: {value}");
        }
        let _ = writeln!(out, "\n| | median | least to most | rounds | goal |\n|---|---:|---:|---:|---|");
        for Figure { name, unit, goal, values } in &self.figures {
            let Some(middle) = median(values) else { continue };
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let goal = goal.map_or_else(
                || "-".to_owned(),
                |goal| goal.said() + if goal.is_met(middle) { ": met" } else { ": **missed**" },
            );
            let (middle, least, most) = (shown(middle), shown(least), shown(most));
            let _ = writeln!(
                out,
                "| {name}, {unit} | {middle} | {least} to {most} | {} | {goal} |",
                values.len()
            );
        }
        for (name, why) in &self.missing {
            let _ = writeln!(out, "\nNot measured: {name} ({why}).");
        }
        out
    }

    /// Everything, every round included.
    pub fn to_json(&self, facts: &[(String, String)]) -> Value {
        let figure = |Figure { name, unit, goal, values }: &Figure| {
            let middle = median(values);
            json!({
                "name": name,
                "unit": unit,
                "median": middle,
                "values": values,
                "goal": goal.map(Goal::said),
                "met": goal.and_then(|goal| Some(goal.is_met(middle?))),
            })
        };
        json!({
            "facts": facts.iter().cloned().collect::<BTreeMap<_, _>>(),
            "figures": self.figures.iter().map(figure).collect::<Vec<_>>(),
            "missing": self.missing.iter().cloned().collect::<BTreeMap<_, _>>(),
        })
    }
}

fn shown(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_shows_its_median_its_spread_and_its_goal() {
        let mut figures = Figures::default();
        for value in [2.0, 40.0, 3.0] {
            figures.add("start", "s", Some(Goal::AtMost(2.0)), value);
            figures.add("replay", "M events/s", Some(Goal::AtLeast(1.5)), value);
        }
        figures.missing.push(("etcd".into(), "not on the PATH".into()));
        let text = figures.to_markdown(&[("kernel".into(), "6.1".into())]);
        assert!(text.contains("| start, s | 3.00 | 2.00 to 40.0 | 3 | at most 2: **missed** |"), "{text}");
        assert!(
            text.contains("| replay, M events/s | 3.00 | 2.00 to 40.0 | 3 | at least 1.5: met |"),
            "{text}"
        );
        assert!(text.contains("Not measured: etcd (not on the PATH)."), "{text}");
        let json = figures.to_json(&[]);
        assert_eq!(json["figures"][0]["values"][1], 40.0);
        assert_eq!(json["figures"][0]["met"], false);
    }
}
