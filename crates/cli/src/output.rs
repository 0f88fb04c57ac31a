//! What goes to standard output: aligned text for people, JSON lines for programs.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use crate::args::Format;
use crate::error::{CliError, Exit};

/// Standard output in one of its formats.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Output in this format.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether a program reads it.
    pub fn json(self) -> bool {
        self.format == Format::Json
    }

    /// Which format.
    pub fn format(self) -> Format {
        self.format
    }

    /// One result: `value` for programs, `text` for people. An empty text prints nothing.
    ///
    /// # Errors
    /// When standard output is closed: nobody is left to work for.
    pub fn line(self, value: &Value, text: &str) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        let written = match self.format {
            Format::Json => writeln!(out, "{value}"),
            Format::Text if text.is_empty() => Ok(()),
            Format::Text => writeln!(out, "{text}"),
        };
        written.and_then(|()| out.flush()).map_err(|_| {
            CliError::new(Exit::Failed, "output.closed", "standard output was closed")
                .hint("keep the reading end open")
        })
    }

    /// Rows in aligned columns; programs get `values`, one a line.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn table(self, head: &[&str], rows: &[Vec<String>], values: &[Value]) -> Result<(), CliError> {
        if self.json() {
            return values.iter().try_for_each(|value| self.line(value, ""));
        }
        let width = |column: usize| {
            rows.iter()
                .map(|row| row.get(column).map_or(0, |cell| cell.chars().count()))
                .chain([head[column].len()])
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (cell, width) in cells.zip(&widths) {
                let pad = width.saturating_sub(cell.chars().count()) + 2;
                text.push_str(cell);
                text.push_str(&" ".repeat(pad));
            }
            text.trim_end().to_owned()
        };
        self.line(&Value::Null, &bold(&line(&mut head.iter().copied())))?;
        rows.iter().try_for_each(|row| self.line(&Value::Null, &line(&mut row.iter().map(String::as_str))))
    }
}

/// Bold on a terminal, else as it is.
pub fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// Bytes as people read them: `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = count;
    let mut rest = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 { format!("{whole} B") } else { format!("{whole}.{} {}", rest * 10 / 1024, UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }
}
