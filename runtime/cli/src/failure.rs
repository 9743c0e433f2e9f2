//! How the program fails: one line on standard error, and an exit status that scripts can use.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::error::ErrorKind;

/// The work was done but for some inputs, or could not be done.
const FAILED: u8 = 1;
/// The command line, or a file it names, cannot be used.
const INVALID: u8 = 2;

/// How a verb ended that was not stopped by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Some inputs failed; each was reported when it did.
    SomeFailed,
}

impl Outcome {
    pub(crate) fn from_failures(failures: usize) -> Self {
        if failures == 0 {
            Self::Done
        } else {
            Self::SomeFailed
        }
    }

    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::SomeFailed => ExitCode::from(FAILED),
        }
    }
}

/// Marks an error that lies in the command line or in a file it names.
#[derive(Debug)]
struct Invalid(anyhow::Error);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.0))
    }
}

impl std::error::Error for Invalid {}

/// Marks errors as [`Invalid`].
pub(crate) trait OrInvalid<T> {
    /// The error is one of the command line, or of a file it names: exit status 2.
    fn or_invalid(self) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrInvalid<T> for Result<T, E> {
    fn or_invalid(self) -> anyhow::Result<T> {
        self.map_err(|error| anyhow::Error::new(Invalid(error.into())))
    }
}

/// An error of the command line, or of a file it names: exit status 2.
pub(crate) fn invalid(message: impl fmt::Display) -> anyhow::Error {
    anyhow::Error::new(Invalid(anyhow::anyhow!("{message}")))
}

/// Whoever read our standard output has gone: `vitlet … | head`. Not an error.
#[derive(Debug)]
pub(crate) struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output: closed by its reader")
    }
}

impl std::error::Error for ReaderGone {}

/// Ends the program: reports the error, if it is one.
pub(crate) fn exit(error: &anyhow::Error) -> ExitCode {
    if error.is::<ReaderGone>() {
        return ExitCode::SUCCESS;
    }
    report(error);
    ExitCode::from(if error.is::<Invalid>() {
        INVALID
    } else {
        FAILED
    })
}

/// What clap did not accept, or was asked to print.
pub(crate) fn command_line(error: &clap::Error) -> ExitCode {
    let text = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Flushed, and without colours where nobody sees them.
            let printed = error.print().and_then(|()| io::stdout().flush());
            return match printed {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
                Err(error) => exit(&anyhow::anyhow!("standard output: {error}")),
            };
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => to_stderr(&text.to_string()),
        _ => {
            let text = text.to_string();
            // clap goes on with the usage, after an empty line; its hints stand before that or are in brackets.
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let end = text.find("\n\nUsage:").or(text.find("\n\nFor more"));
            let text = text[..end.unwrap_or(text.len())].replace("\n\n  tip:", "; tip:");
            let message = joined_lines(&text);
            to_stderr(&format!(
                "vitlet: error: {message}; see `vitlet --help` and `vitlet VERB --help`\n"
            ));
        }
    }
    ExitCode::from(INVALID)
}

/// `vitlet: error: …` for something that does not end the program, or just before its end.
pub(crate) fn report(error: &anyhow::Error) {
    to_stderr(&format!("vitlet: error: {}\n", one_line(error)));
}

/// The line [`report`] prints for a message that is not an error of the whole program.
pub(crate) fn warn(message: impl fmt::Display) {
    to_stderr(&format!(
        "vitlet: warning: {}\n",
        joined_lines(&message.to_string())
    ));
}

/// An error and its causes on one line. Causes that the text before them tells already are left out.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = joined_lines(&cause.to_string());
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
    }
    line
}

/// A text without line breaks and other control characters: file names may hold any.
fn joined_lines(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut joined = String::new();
    for line in lines {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.extend(line.chars().map(|c| if c.is_control() { '?' } else { c }));
    }
    joined
}

/// Standard error may be closed or full; then there is nobody to tell.
fn to_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn errors_are_one_line_without_repetition() {
        let io = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = anyhow::Error::new(io)
            .context("a\nb: no such file")
            .context("c");
        assert_eq!(one_line(&error), "c: a b: no such file");
        assert_eq!(joined_lines("x\r\n\n  y\x1b[1m\tz"), "x y?[1m?z");
    }

    #[test]
    fn the_mark_survives_context() {
        let marked = Err::<(), _>(anyhow::anyhow!("no"))
            .or_invalid()
            .context("reading");
        let error = marked.err().unwrap_or_else(|| anyhow::anyhow!("none"));
        assert!(error.is::<Invalid>());
        assert_eq!(one_line(&error), "reading: no");
    }
}
