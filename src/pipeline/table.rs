//! What the stages of a recipe came to.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use train::run::RunSummary;

/// A line of the final table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct StageSummary {
    pub(super) steps: Option<usize>,
    pub(super) tokens: Option<u64>,
    pub(super) minutes: Option<f64>,
    pub(super) loss: Option<f64>,
    pub(super) held_out_loss: Option<f64>,
    pub(super) bits_per_byte: Option<f64>,
}

impl From<&RunSummary> for StageSummary {
    fn from(summary: &RunSummary) -> Self {
        Self {
            steps: Some(summary.steps),
            tokens: Some(summary.tokens),
            minutes: Some(summary.train_secs / 60.0),
            loss: summary.loss,
            held_out_loss: summary.held_out.as_ref().map(|held_out| held_out.loss),
            bits_per_byte: summary
                .held_out
                .as_ref()
                .and_then(|held_out| held_out.bits_per_byte),
        }
    }
}

/// What the stages came to, a line each.
pub(super) fn table(rows: &[(String, StageSummary)]) -> String {
    let mut text = format!(
        "{:<20}{:>8}{:>12}{:>10}{:>10}{:>10}{:>11}\n",
        "stage", "steps", "tokens", "minutes", "loss", "held out", "bits/byte"
    );
    for (name, row) in rows {
        let fixed = |value: Option<f64>, digits: usize| {
            value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let whole = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        let _ = writeln!(
            text,
            "{name:<20}{:>8}{:>12}{:>10}{:>10}{:>10}{:>11}",
            whole(row.steps.map(|steps| steps as u64)),
            whole(row.tokens),
            fixed(row.minutes, 1),
            fixed(row.loss, 4),
            fixed(row.held_out_loss, 4),
            fixed(row.bits_per_byte, 4),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not known is a dash, not a zero.
    #[test]
    fn the_table_has_a_line_per_stage() {
        let row = StageSummary {
            steps: Some(12),
            tokens: Some(3456),
            minutes: Some(1.25),
            loss: Some(2.5),
            ..StageSummary::default()
        };
        let table = table(&[("1-pretrain".to_owned(), row)]);
        let line: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            line,
            ["1-pretrain", "12", "3456", "1.2", "2.5000", "-", "-"]
        );
    }
}
