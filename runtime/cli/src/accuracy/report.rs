//! The tables.

use super::tally::{ClassRecord, Record};
use crate::output::{Table, decibels, left, right};

/// Classes in the table; of more, those with the lowest top-1.
const CLASSES: usize = 20;

pub(super) fn percent(fraction: f64) -> String {
    format!("{:.2} %", fraction * 100.0)
}

pub(super) fn summary(record: &Record, kernel: &str) -> Table {
    let mut table = Table::default();
    table.entry("photos", record.images);
    table.entry("kernel", kernel);
    table.entry("top-1", percent(record.top1));
    table.entry("top-5", percent(record.top5));
    table.entry("ECE", percent(record.ece));
    if let Some(reference) = &record.reference {
        table.entry("f32 top-1", percent(reference.top1));
        table.entry("f32 ECE", percent(reference.ece));
        table.entry("agreement", percent(reference.agreement));
        table.entry("SQNR", decibels(reference.sqnr_db));
    }
    table
}

/// A line per class, and how many classes are left out.
pub(super) fn classes(record: &Record) -> (Table, usize) {
    let mut shown: Vec<&ClassRecord> = record.classes.iter().collect();
    if shown.len() > CLASSES {
        shown.sort_by(|a, b| a.top1.total_cmp(&b.top1));
        shown.truncate(CLASSES);
    }
    let mut table = Table::default();
    let mut head = vec![left("class"), right("photos"), right("top-1")];
    head.extend(record.reference.is_some().then(|| right("f32 top-1")));
    head.push(left("most confused with"));
    table.row(head);
    for class in &shown {
        let confused = class.confused_with.as_ref();
        let mut row = vec![
            left(&class.label),
            right(class.images),
            right(percent(class.top1)),
        ];
        row.extend(class.reference_top1.map(|top1| right(percent(top1))));
        row.push(left(confused.map_or_else(
            || "-".to_owned(),
            |most| format!("{} ({})", most.label, most.images),
        )));
        table.row(row);
    }
    (table, record.classes.len() - shown.len())
}

/// Rows are the classes there are photos of, columns those and every class that was an answer.
pub(super) fn confusion(
    record: &Record,
    matrix: &[Vec<usize>],
    label: &dyn Fn(usize) -> String,
) -> Table {
    let rows: Vec<usize> = record.classes.iter().map(|class| class.class).collect();
    let answered = |column: &usize| matrix.iter().any(|row| row.get(*column) > Some(&0));
    let columns = 0..matrix.len();
    let columns: Vec<usize> = columns
        .filter(|c| rows.contains(c) || answered(c))
        .collect();
    let mut table = Table::default();
    let labels = columns.iter().map(|column| right(label(*column)));
    table.row([left("is \\ said to be")].into_iter().chain(labels));
    for row in rows {
        let count = |column: &usize| matrix.get(row).and_then(|row| row.get(*column).copied());
        let counts = columns
            .iter()
            .map(|column| right(count(column).unwrap_or(0)));
        table.row([left(label(row))].into_iter().chain(counts));
    }
    table
}
