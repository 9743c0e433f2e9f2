//! What a viewer has to know when the preview can be reached from other machines.

use std::fmt;

use crate::CameraError;

/// Random bytes of a token: nobody tries 2^128.
const BYTES: usize = 16;
/// Fewest characters of a token of the user's own.
const SHORTEST: usize = 16;
const LONGEST: usize = 256;

/// A secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl Token {
    /// From the system's random numbers.
    pub(super) fn random() -> Result<Self, CameraError> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(|error| CameraError::Token {
            problem: format!("the system gives no random numbers for a token: {error}"),
        })?;
        Ok(Self(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    /// The user's own.
    pub(super) fn given(token: &str) -> Result<Self, CameraError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
        if !(SHORTEST..=LONGEST).contains(&token.len()) || !token.chars().all(plain) {
            return Err(CameraError::Token {
                problem: format!(
                    "a token has {SHORTEST} to {LONGEST} letters, digits and -_.~ (`openssl rand -hex 16` makes one)"
                ),
            });
        }
        Ok(Self(token.to_owned()))
    }

    /// Whether this is it. The time tells nothing about where the first difference is.
    pub(super) fn is(&self, other: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), other.as_bytes());
        let differences = ours.iter().zip(theirs).fold(0, |all, (a, b)| all | (a ^ b));
        ours.len() == theirs.len() && std::hint::black_box(differences) == 0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Token {
    /// Not in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_it() {
        let token = Token::random().unwrap();
        let text = token.to_string();
        assert_eq!(text.len(), 2 * BYTES);
        assert!(token.is(&text));
        assert!(!token.is(&text[1..]) && !token.is("") && !token.is(&format!("{text}0")));
        assert_ne!(token, Token::random().unwrap());
        assert!(!format!("{token:?}").contains(&text));
    }

    #[test]
    fn short_ones_are_refused() {
        Token::given("0123456789abcdef").unwrap();
        for token in ["", "secret", "0123456789abcde&", "0123456789 abcdef"] {
            assert!(Token::given(token).is_err());
        }
    }
}
