//! Logs that can be compared.

use crate::machine::Ended;

/// The log without what changes with every build: times, sizes, addresses, counts of instructions.
pub(super) fn normalised(ended: &Ended) -> String {
    let is_size = |line: &&String| {
        ["image: ", "RAM: "]
            .iter()
            .any(|part| line[6..].starts_with(part))
    };
    let kept = ended.log.iter().filter(|line| !is_size(line));
    kept.map(|line| normalised_line(line) + "\n").collect()
}

fn normalised_line(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let is_result = words.contains(&"result");
    let word = |at: usize| {
        let word = words[at];
        let next = words.get(at + 1).copied().unwrap_or_default();
        let is_time = ["us", "us,", "ms", "ms:"].contains(&next);
        let is_stack = at > 0 && words[at - 1] == "stack:";
        let is_count = is_result && at + 1 == words.len();
        let is_address = word.starts_with("0x") && word.len() > 7;
        if is_address {
            let end = word.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
            return format!("0x…{end}");
        }
        if is_time || is_stack || is_count {
            "…".to_owned()
        } else {
            word.to_owned()
        }
    };
    (0..words.len()).map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_with_every_build_is_left_out_of_logs() {
        let lines = [
            (
                "info  frame 0: class 8, preprocess 70 us, age 1290 us",
                "info  frame 0: class 8, preprocess … us, age … us",
            ),
            ("info  result 0 788b 8 123456", "info  result 0 788b 8 …"),
            (
                "info  stack: 9312 of 32768 bytes used",
                "info  stack: … of 32768 bytes used",
            ),
            (
                "error exception: data abort at 0x40168300, esr 0x96000047",
                "error exception: data abort at 0x…, esr 0x…",
            ),
            (
                "info  fault at 400 ms: bad frame, 1, 1 times",
                "info  fault at … ms: bad frame, 1, 1 times",
            ),
        ];
        for (line, expected) in lines {
            assert_eq!(normalised_line(line), expected);
        }
    }
}
