//! `cargo xtask insns --ops`: instructions op by op. `vitlet profile --marks` makes a system call after each, which the plugin sees.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::counter::Counter;
use super::millions;
use crate::qemu::Mark;

/// What is read of `vitlet profile --json`.
#[derive(Deserialize)]
struct Profile {
    ops: Vec<Op>,
}

#[derive(Clone, Deserialize)]
struct Op {
    name: String,
    kind: String,
    macs: u64,
    input: String,
    output: String,
}

/// Prints what each op of a plan, and each kind of op, takes on a CPU.
pub(super) fn print(counter: &Counter<'_>, name: &str, plan: &Path, cpu: &str) -> Result<()> {
    let options = ["--iterations", "1", "--marks", "/dev/null"];
    let run = counter.run("profile", plan, cpu, options)?;
    let Profile { ops } = Profile::deserialize(&run.record)
        .with_context(|| format!("vitlet profile --json printed '{}'", run.record))?;
    let counts =
        by_op(&run.marks, ops.len()).context("the marks are not those of one inference")?;
    let total = counts.iter().sum();
    println!("\n{name} on {cpu}, kernel {}:", run.kernel()?);
    println!(
        "{:>4} {:<12} {HEADING}  {:<18} {:<18} name",
        "op", "kind", "input", "output"
    );
    for (index, (op, &count)) in ops.iter().zip(&counts).enumerate() {
        let figures = figures(count, op.macs, total);
        println!(
            "{index:>4} {:<12} {figures}  {:<18} {:<18} {}",
            op.kind, op.input, op.output, op.name
        );
    }
    println!("\n{:>4} {:<12} {HEADING}", "ops", "kind");
    for (kind, (ops, count, macs)) in by_kind(&ops, &counts) {
        println!("{ops:>4} {kind:<12} {}", figures(count, macs, total));
    }
    let macs = ops.iter().map(|op| op.macs).sum();
    println!(
        "{:>4} {:<12} {}",
        ops.len(),
        "total",
        figures(total, macs, total)
    );
    Ok(())
}

const HEADING: &str = "  M insns      %    M MACs  MACs/insn";

fn figures(count: u64, macs: u64, total: u64) -> String {
    let percent = 100.0 * millions(count) / millions(total).max(f64::MIN_POSITIVE);
    let per_instruction = millions(macs) / millions(count).max(f64::MIN_POSITIVE);
    format!(
        "{:>9.3}  {percent:>5.1} {:>9.2}  {per_instruction:>9.2}",
        millions(count),
        millions(macs)
    )
}

/// What passed before each mark belongs to the op that was then done; ops that run a few rows at a time are marked several times.
fn by_op(marks: &[Mark], ops: usize) -> Option<Vec<u64>> {
    let mut counts = vec![0; ops];
    let (first, rest) = marks.split_first().filter(|(first, _)| first.mark == 0)?;
    let mut before = first.instructions;
    for mark in rest {
        let op = mark.mark.checked_sub(1)?;
        *counts.get_mut(op)? += mark.instructions.checked_sub(before)?;
        before = mark.instructions;
    }
    counts.iter().all(|&count| count > 0).then_some(counts)
}

/// Of each kind: ops, instructions, multiply-accumulates; the costliest first.
fn by_kind<'o>(ops: &'o [Op], counts: &[u64]) -> Vec<(&'o str, (usize, u64, u64))> {
    let mut kinds = BTreeMap::<&str, (usize, u64, u64)>::new();
    for (op, count) in ops.iter().zip(counts) {
        let (ops, counts, macs) = kinds.entry(&op.kind).or_default();
        *ops += 1;
        *counts += count;
        *macs += op.macs;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|&(_, (_, count, _))| std::cmp::Reverse(count));
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(marks: &[(usize, u64)]) -> Vec<Mark> {
        let mark = |&(mark, instructions)| Mark { mark, instructions };
        marks.iter().map(mark).collect()
    }

    #[test]
    fn parts_of_an_op_add_up() {
        let strips = marks(&[(0, 100), (1, 110), (2, 113), (1, 120), (2, 125)]);
        assert_eq!(by_op(&strips, 2), Some(vec![17, 8]));
        assert_eq!(by_op(&strips, 3), None, "an op without a mark");
        assert_eq!(by_op(&strips, 1), None, "a mark without an op");
        assert_eq!(by_op(&strips[1..], 2), None, "no start");
        assert_eq!(by_op(&[], 0), None);
    }

    #[test]
    fn the_costliest_kind_comes_first() {
        let op = |kind: &str, macs| Op {
            name: String::new(),
            kind: kind.to_owned(),
            macs,
            input: String::new(),
            output: String::new(),
        };
        let ops = [op("conv", 5), op("linear", 6), op("conv", 7)];
        let kinds = by_kind(&ops, &[10, 30, 15]);
        assert_eq!(kinds, [("linear", (1, 30, 6)), ("conv", (2, 25, 12))]);
    }
}
