//! What was trained and what it learned, as tables.

use std::fmt::Write as _;
use std::time::Duration;

use train::run::RunSummary;

use crate::exam::{ExamAnswer, Score};

/// What a preference stage measured of the pairs that it held out.
pub(super) fn preferences(summary: &RunSummary) -> String {
    let mut text = String::from("pairs held out from learning to prefer\n");
    let metrics = summary
        .held_out
        .iter()
        .flat_map(|held_out| &held_out.metrics);
    for (name, value) in metrics {
        let _ = writeln!(text, "{name:<20}{value:>9.3}");
    }
    text
}

/// A table of the stages, and one of each exam.
pub(super) fn report(
    num_params: usize,
    stages: &[(&str, &RunSummary)],
    exams: &[(&str, Vec<Score>)],
    elapsed: Duration,
) -> String {
    let mut lines = vec![format!("model: {num_params} parameters")];
    lines.push(String::new());
    lines.push(format!(
        "{:<12}{:>8}{:>12}{:>11}{:>9}",
        "stage", "steps", "tokens", "tokens/s", "minutes"
    ));
    for (name, summary) in stages {
        let speed = summary.tokens as f64 / summary.train_secs.max(f64::MIN_POSITIVE);
        let minutes = summary.total_secs / 60.0;
        let (steps, tokens) = (summary.steps, summary.tokens);
        lines.push(format!(
            "{name:<12}{steps:>8}{tokens:>12}{speed:>11.0}{minutes:>9.1}"
        ));
    }
    for (name, scores) in exams {
        lines.push(String::new());
        lines.push(format!(
            "{:<12}{:>8}{:>12}   {}",
            name, "right", "exact-match", "for example"
        ));
        for score in scores {
            let share = format!("{:.0} %", 100.0 * score.share());
            let right = format!("{}/{}", score.num_right(), score.answers.len());
            let task = score.task.to_string();
            let ExamAnswer { item, found } = &score.answers[0];
            let example = format!("{} → {found}", item.prompt);
            lines.push(format!("{task:<12}{right:>8}{share:>12}   {example}"));
        }
    }
    lines.push(String::new());
    lines.push(format!(
        "{:.1} minutes in all",
        elapsed.as_secs_f64() / 60.0
    ));
    lines.join("\n") + "\n"
}
