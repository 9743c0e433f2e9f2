//! What the compiler wrote for the kernels: functions, their innermost loops, and the multiply-accumulates in them.

/// A function with its lines: instructions and labels.
pub(super) struct Function<'a> {
    /// Mangled.
    pub(super) name: &'a str,
    lines: Vec<Line<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Label(&'a str),
    Instruction(&'a str),
}

/// The instructions of a loop without another loop or a call in it; the last one jumps to the first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loop<'a> {
    label: &'a str,
    pub(super) instructions: Vec<&'a str>,
}

/// The functions of an assembly file, in its order.
pub(super) fn functions(assembly: &str) -> Vec<Function<'_>> {
    let mut functions = Vec::new();
    for line in assembly.lines() {
        let text = line.split("//").next().unwrap_or_default().trim();
        match text.strip_suffix(':') {
            Some(label) if label.starts_with(".L") => push(&mut functions, Line::Label(label)),
            Some(name) => functions.push(Function {
                name,
                lines: Vec::new(),
            }),
            None if text.is_empty() || text.starts_with('.') => {}
            None => push(&mut functions, Line::Instruction(text)),
        }
    }
    functions
}

fn push<'a>(functions: &mut [Function<'a>], line: Line<'a>) {
    if let Some(function) = functions.last_mut() {
        function.lines.push(line);
    }
}

impl<'a> Function<'a> {
    /// The innermost loop with the most multiply-accumulates in one pass, if any loop has some.
    pub(super) fn hottest(&self) -> Option<Loop<'a>> {
        let spans = self.jumps_back();
        let innermost = spans.iter().filter(|&&(start, end)| {
            let is_inside = |&&(s, e): &&(usize, usize)| s >= start && e <= end;
            spans.iter().filter(is_inside).count() == 1
        });
        innermost
            .filter_map(|&(start, end)| self.body(start, end))
            .max_by_key(Loop::macs)
            .filter(|body| body.macs() > 0)
    }

    /// From a label to the last jump back to it.
    fn jumps_back(&self) -> Vec<(usize, usize)> {
        let mut spans = Vec::new();
        for (start, line) in self.lines.iter().enumerate() {
            let Line::Label(label) = line else { continue };
            let is_jump =
                |line: &Line<'_>| matches!(line, Line::Instruction(i) if target(i) == Some(label));
            if let Some(distance) = self.lines[start..].iter().rposition(is_jump) {
                spans.push((start, start + distance));
            }
        }
        spans
    }

    fn body(&self, start: usize, end: usize) -> Option<Loop<'a>> {
        let Some(&Line::Label(label)) = self.lines.get(start) else {
            return None;
        };
        let instructions: Vec<&str> = self.lines[start..=end]
            .iter()
            .filter_map(|line| match line {
                Line::Label(_) => None,
                Line::Instruction(instruction) => Some(*instruction),
            })
            .collect();
        let calls = instructions
            .iter()
            .any(|i| matches!(mnemonic(i), "bl" | "blr" | "ret"));
        (!calls).then_some(Loop {
            label,
            instructions,
        })
    }
}

impl Loop<'_> {
    /// Multiply-accumulates of one pass.
    pub(super) fn macs(&self) -> u64 {
        self.instructions.iter().map(|i| macs(i)).sum()
    }

    /// For llvm-mca: every jump goes to the start, wherever it went.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}:\n", self.label);
        for instruction in &self.instructions {
            match target(instruction) {
                Some(target) => text += &instruction.replace(target, self.label),
                None => text += instruction,
            }
            text.push('\n');
        }
        text
    }
}

/// The label that a branch goes to.
fn target(instruction: &str) -> Option<&str> {
    let branches = ["b", "cbz", "cbnz", "tbz", "tbnz"];
    let mnemonic = mnemonic(instruction);
    if !branches.contains(&mnemonic) && !mnemonic.starts_with("b.") {
        return None;
    }
    instruction
        .rsplit([' ', '\t', ','])
        .next()
        .filter(|last| last.starts_with(".L"))
}

fn mnemonic(instruction: &str) -> &str {
    instruction.split_whitespace().next().unwrap_or_default()
}

/// Products of integers that an instruction adds up or hands on: those of its output's lanes, and of the ones it sums in each.
fn macs(instruction: &str) -> u64 {
    let per_lane = match mnemonic(instruction).trim_end_matches('2') {
        "sdot" | "udot" | "usdot" => 4,
        "smmla" | "ummla" | "usmmla" => 8,
        "smull" | "smlal" | "smlsl" | "umull" | "umlal" | "umlsl" | "mul" | "mla" | "mls" => 1,
        _ => return 0,
    };
    let arrangement = instruction.split('.').nth(1).unwrap_or_default();
    let lanes: String = arrangement
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    // A general register has no arrangement: that is an address being computed.
    lanes.parse::<u64>().map_or(0, |lanes| lanes * per_lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSEMBLY: &str = "\
\t.section\t.text
_RNvA:
\t.cfi_startproc
\tmov\tx8, #4
.LBB0_1:
\tmov\tx9, x1
.Ltmp7:
\t//APP
\tldr\tq0, [x9], #16    // sixteen bytes
\tcbz\tx9, .LBB0_9
\tsdot\tv1.4s, v0.16b, v2.4b[1]
\tsmlal2\tv3.8h, v0.16b, v2.16b
\tmul\tx3, x4, x5
\tsubs\tx10, x10, #1
\tb.ne\t.Ltmp7
\tsubs\tx8, x8, #1
\tb.ne\t.LBB0_1
.LBB0_5:
\tsmmla\tv1.4s, v0.16b, v2.16b
\tbl\tsomewhere
\tb\t.LBB0_5
.LBB0_9:
\tret
_RNvB:
.LBB1_1:
\tadd\tx1, x1, #1
\tcbnz\tx1, .LBB1_1
\tret
";

    #[test]
    fn the_innermost_loop_with_products_is_found() {
        let functions = functions(ASSEMBLY);
        let names: Vec<&str> = functions.iter().map(|function| function.name).collect();
        assert_eq!(names, ["_RNvA", "_RNvB"]);
        assert_eq!(functions[1].hottest(), None);
        let hottest = functions[0].hottest();
        let hottest = hottest
            .as_ref()
            .map(|body| (body.macs(), body.instructions.len()));
        assert_eq!(hottest, Some((16 + 8, 7)));
    }

    #[test]
    fn a_loop_is_assembled_on_its_own() {
        let functions = functions(ASSEMBLY);
        let text = functions[0]
            .hottest()
            .map(|body| body.text())
            .unwrap_or_default();
        assert!(text.starts_with(".Ltmp7:\nldr\tq0, [x9], #16\n"), "{text}");
        assert!(text.contains("cbz\tx9, .Ltmp7\n"), "{text}");
        assert!(text.ends_with("b.ne\t.Ltmp7\n"), "{text}");
    }

    #[test]
    fn products_are_counted_by_lanes() {
        let counts = [
            ("sdot\tv0.4s, v1.16b, v2.16b", 16),
            ("sdot v0.2s, v1.8b, v2.8b", 8),
            ("smmla\tv0.4s, v1.16b, v2.16b", 32),
            ("smull\tv0.8h, v1.8b, v2.8b", 8),
            ("smlal2\tv0.4s, v1.8h, v2.h[3]", 4),
            ("mla\tv0.8h, v1.8h, v2.8h", 8),
            ("mul\tx0, x1, x2", 0),
            ("smull\tx0, w1, w2", 0),
            ("fmla\tv0.4s, v1.4s, v2.4s", 0),
            ("sadalp\tv0.4s, v1.8h", 0),
        ];
        for (instruction, count) in counts {
            assert_eq!(macs(instruction), count, "{instruction}");
        }
    }
}
