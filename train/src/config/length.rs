//! Length of a run, written as one phrase: `"300 steps"`, `"2 epochs"`, `"1e9 tokens"`, `"30
//! minutes"`.
//!
//! One field instead of four that exclude each other: overriding a config's length on the command
//! line is then always one `--set`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How long a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Length {
    /// Passes over the training data; a share of a pass is possible.
    Epochs(f64),
    /// Optimizer steps.
    Steps(usize),
    /// Tokens read, padding not counted.
    Tokens(u64),
    /// Minutes of training, as a clock on the wall measures them.
    Minutes(f64),
}

/// Why a length could not be read.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "found {found:?}, expected a number above 0 and a unit, \
     such as \"300 steps\", \"2 epochs\", \"1e9 tokens\" or \"30 minutes\""
)]
pub struct LengthError {
    found: String,
}

impl FromStr for Length {
    type Err = LengthError;

    fn from_str(text: &str) -> Result<Self, LengthError> {
        let refused = || LengthError {
            found: text.to_owned(),
        };
        let (number, unit) = text
            .trim()
            .split_once(char::is_whitespace)
            .ok_or_else(refused)?;
        let number: f64 = number
            .replace([',', '_'], "")
            .parse()
            .map_err(|_| refused())?;
        if !(number > 0.0 && number.is_finite()) {
            return Err(refused());
        }
        let is_whole = number.fract() == 0.0 && number < 2f64.powi(53);
        match unit.trim() {
            "epoch" | "epochs" => Ok(Self::Epochs(number)),
            "step" | "steps" if is_whole => Ok(Self::Steps(number as usize)),
            "token" | "tokens" if is_whole => Ok(Self::Tokens(number as u64)),
            "minute" | "minutes" => Ok(Self::Minutes(number)),
            _ => Err(refused()),
        }
    }
}

impl TryFrom<String> for Length {
    type Error = LengthError;

    fn try_from(text: String) -> Result<Self, LengthError> {
        text.parse()
    }
}

impl From<Length> for String {
    fn from(length: Length) -> Self {
        length.to_string()
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epochs(epochs) => write!(f, "{epochs} epochs"),
            Self::Steps(steps) => write!(f, "{steps} steps"),
            Self::Tokens(tokens) => write!(f, "{tokens} tokens"),
            Self::Minutes(minutes) => write!(f, "{minutes} minutes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every unit, singular and plural, with the separators people write.
    #[test]
    fn a_length_reads_as_a_phrase() {
        assert_eq!("300 steps".parse(), Ok(Length::Steps(300)));
        assert_eq!("1 epoch".parse(), Ok(Length::Epochs(1.0)));
        assert_eq!("0.5 epochs".parse(), Ok(Length::Epochs(0.5)));
        assert_eq!("1e9 tokens".parse(), Ok(Length::Tokens(1_000_000_000)));
        assert_eq!("1,000,000 tokens".parse(), Ok(Length::Tokens(1_000_000)));
        assert_eq!("2.5 minutes".parse(), Ok(Length::Minutes(2.5)));
    }

    /// What is printed can be read back.
    #[test]
    fn a_length_survives_printing() {
        for length in [
            Length::Epochs(1.5),
            Length::Steps(7),
            Length::Tokens(123_456_789),
            Length::Minutes(0.25),
        ] {
            assert_eq!(length.to_string().parse(), Ok(length));
        }
    }

    /// No unit, no number, nothing, a negative number, a broken step.
    #[test]
    fn a_length_without_number_or_unit_is_refused() {
        for text in [
            "300",
            "steps",
            "",
            "-1 steps",
            "0 epochs",
            "1.5 steps",
            "3 hours",
            "inf steps",
        ] {
            assert!(text.parse::<Length>().is_err(), "{text:?}");
        }
        assert_eq!(
            "300".parse::<Length>().unwrap_err().to_string(),
            "found \"300\", expected a number above 0 and a unit, such as \"300 steps\", \
             \"2 epochs\", \"1e9 tokens\" or \"30 minutes\""
        );
    }
}
