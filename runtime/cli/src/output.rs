//! Standard output: lines for people, tables, or JSON records, one a line.

use std::fmt;
use std::io::{self, StdoutLock, Write as _};

use serde::Serialize;

use crate::failure::ReaderGone;

/// Standard output. A verb writes text or, with `--json`, records.
pub(crate) struct Out {
    json: bool,
    stdout: StdoutLock<'static>,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            stdout: io::stdout().lock(),
        }
    }

    /// Whether records are wanted.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Writes a line for people; nothing when records are wanted.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> anyhow::Result<()> {
        if self.json {
            return Ok(());
        }
        writeln!(self.stdout, "{text}").map_err(stdout_error)
    }

    /// Writes text for people without ending the line; nothing when records are wanted.
    pub(crate) fn text(&mut self, text: impl fmt::Display) -> anyhow::Result<()> {
        if self.json {
            return Ok(());
        }
        write!(self.stdout, "{text}").map_err(stdout_error)
    }

    /// Writes a record as one line, when records are wanted.
    pub(crate) fn record(&mut self, record: &impl Serialize) -> anyhow::Result<()> {
        if !self.json {
            return Ok(());
        }
        let line = serde_json::to_string(record)?;
        writeln!(self.stdout, "{line}").map_err(stdout_error)
    }

    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.stdout.flush().map_err(stdout_error)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "map_err gives it by value")]
fn stdout_error(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        anyhow::Error::new(ReaderGone)
    } else {
        anyhow::anyhow!("standard output: {error}; the output is incomplete")
    }
}

/// Rows of cells, each column as wide as its widest cell.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

/// A cell and the side it is aligned to.
pub(crate) enum Cell {
    Left(String),
    Right(String),
}

pub(crate) fn left(text: impl fmt::Display) -> Cell {
    Cell::Left(text.to_string())
}

pub(crate) fn right(text: impl fmt::Display) -> Cell {
    Cell::Right(text.to_string())
}

/// A signal to noise ratio; `-` where it is no number.
pub(crate) fn decibels(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |db| format!("{db:.1} dB"))
}

impl Cell {
    fn text(&self) -> &str {
        match self {
            Self::Left(text) | Self::Right(text) => text,
        }
    }
}

impl Table {
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// A row `name  value`.
    pub(crate) fn entry(&mut self, name: &str, value: impl fmt::Display) {
        self.row([left(name), left(value)]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.text().chars().count())
                .max()
                .unwrap_or(0)
        };
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line += &match cell {
                    Cell::Left(text) => format!("{text:<width$}  "),
                    Cell::Right(text) => format!("{text:>width$}  "),
                };
            }
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A count with thin groups of digits: 566123456 as `566 123 456`.
pub(crate) fn grouped(count: impl Into<u64>) -> String {
    let digits = count.into().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds as JSON has them.
pub(crate) fn milliseconds(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Microseconds as JSON has them.
pub(crate) fn microseconds(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::default();
        table.row([left("op"), right("MACs")]);
        table.row([left("conv é"), right(7)]);
        assert_eq!(table.to_string(), "op      MACs\nconv é     7");
    }

    #[test]
    fn digits_are_grouped() {
        let groups = [0_u64, 999, 1000, 566_123_456].map(grouped);
        assert_eq!(groups, ["0", "999", "1 000", "566 123 456"]);
    }
}
