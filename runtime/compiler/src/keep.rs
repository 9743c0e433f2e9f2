//! Tensors to keep in 16 bits, by name.

use crate::error::CompileError;
use crate::ir::ValueId;
use crate::memory::parts::is_structural;
use crate::model::Model;
use crate::quantise::planes;
use crate::ranges::Ranges;

/// So many names are listed when a pattern fits none.
const NEAR: usize = 3;

/// The tensors that a pattern fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// Those that can have 16 bits where they would have 8.
    values: Vec<ValueId>,
    /// Those that cannot, and why.
    pub refused: Vec<(String, planes::Refusal)>,
}

impl Ranges {
    /// Keeps tensors in 16 bits, those that can be.
    pub fn keep_16(&mut self, model: &Model, keep: &Keep) {
        let values = keep.values.iter();
        values.for_each(|value| self.set_16_bit(model.graph(), *value, true));
    }
}

impl Model {
    /// Finds every tensor whose name fits a pattern: `*` stands for any characters, `?` for one.
    ///
    /// # Errors
    /// [`CompileError::NoTensor`] when no name fits; [`CompileError::Keep16`] when no tensor that fits can have 16 bits, with the
    /// reason for the first one.
    pub fn keep_16(&self, pattern: &str) -> Result<Keep, CompileError> {
        let graph = self.graph();
        let name = |value: ValueId| &*graph.values[value].name;
        let ops = graph.ops.iter().filter(|op| !is_structural(op));
        let tensors: Vec<ValueId> = ops.map(|op| op.output).collect();
        let mut fitting = tensors
            .iter()
            .copied()
            .filter(|v| fits(pattern, name(*v)))
            .peekable();
        if fitting.peek().is_none() {
            let names: Vec<&str> = tensors.iter().map(|v| name(*v)).collect();
            return Err(CompileError::NoTensor {
                pattern: pattern.to_owned(),
                near: nearest(pattern, &names),
            });
        }
        let mut keep = Keep::default();
        for value in fitting {
            match planes::refusal(graph, value) {
                None => keep.values.push(value),
                Some(reason) => keep.refused.push((name(value).to_owned(), reason)),
            }
        }
        match keep.refused.first() {
            Some((name, reason)) if keep.values.is_empty() => Err(CompileError::Keep16 {
                name: name.clone(),
                reason: *reason,
            }),
            _ => Ok(keep),
        }
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters and `?` for one.
fn fits(pattern: &str, name: &str) -> bool {
    let mut rest = name.chars();
    let mut signs = pattern.chars();
    match signs.next() {
        None => name.is_empty(),
        Some('*') => {
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.into_iter().any(|at| fits(signs.as_str(), &name[at..]))
        }
        Some(sign) => {
            let next = rest.next();
            next.is_some_and(|c| sign == '?' || sign == c) && fits(signs.as_str(), rest.as_str())
        }
    }
}

/// The names that have most in common with a pattern: runs of three characters.
fn nearest(pattern: &str, names: &[&str]) -> Vec<String> {
    let runs = |text: &str| -> Vec<String> {
        let text: Vec<char> = text.to_lowercase().chars().collect();
        text.windows(3).map(|run| run.iter().collect()).collect()
    };
    let wanted = runs(pattern);
    let common = |name: &str| {
        let name = runs(name);
        wanted.iter().filter(|run| name.contains(run)).count()
    };
    let mut names: Vec<(usize, &str)> = names.iter().map(|name| (common(name), *name)).collect();
    names.sort_by_key(|(common, _)| std::cmp::Reverse(*common));
    names
        .iter()
        .take(NEAR)
        .map(|(_, name)| (*name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, fit) in [
            ("*", "/a/b", true),
            ("/a/*", "/a/b.c", true),
            ("*norm?/*", "/blocks.0/norm2/Mul", true),
            ("*norm?/*", "/blocks.0/norm/Mul", false),
            ("x (s8)", "x (s8)", true),
            ("x", "xx", false),
            ("xx", "x", false),
            ("é?", "éà", true),
            ("**b", "ab", true),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern, name), fit, "{pattern} {name}");
        }
    }

    #[test]
    fn near_names_share_the_most() {
        let names = [
            "/stem/Conv",
            "/blocks.0/norm1/Mul",
            "/blocks.0/norm2/Mul",
            "/head/Gemm",
        ];
        let near = nearest("*norm3*", &names);
        assert_eq!(near[..2], ["/blocks.0/norm1/Mul", "/blocks.0/norm2/Mul"]);
        assert_eq!(nearest("HEAD", &names)[0], "/head/Gemm");
    }
}
