//! An exam's result as a page of Markdown.

use std::fmt::Write as _;

use super::question::LETTERS;
use super::summary::{ExamSummary, MethodScore, percent, with_interval};

/// The page: the scores with their intervals first, then what explains them, then each subject.
pub fn render_card(summary: &ExamSummary) -> String {
    let mut page = format!(
        "# {} {}, {} questions\n\n",
        summary.exam, summary.split, summary.num_questions
    );
    settings(&mut page, summary);
    if summary.num_with_answer == 0 {
        page += "The answers of this split are not published, so there is no score: \
                 `submission.json` has the form that C-Eval's site takes.\n\n";
    } else {
        scores(&mut page, summary);
    }
    letters(&mut page, summary);
    if let Some(permutation) = &summary.permutation {
        page += "## Order of the options\n\n";
        for (turn, rate) in permutation.per_turn.iter().enumerate() {
            let _ = writeln!(page, "- options moved by {turn}: {}", with_interval(*rate));
        }
        let _ = writeln!(
            page,
            "- the same option in all four orders: {} of the questions (25 of 1,000 by chance)\n\
             - the same letter in all four orders: {}\n",
            percent(permutation.same_option.share),
            percent(permutation.same_letter.share)
        );
    }
    if summary.num_with_answer > 0 {
        subjects(&mut page, summary);
    }
    page
}

fn settings(page: &mut String, summary: &ExamSummary) {
    let fields = summary.settings.as_object();
    for (name, value) in fields.into_iter().flatten() {
        let shown = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let _ = writeln!(page, "- {}: {shown}", name.replace('_', " "));
    }
    if summary.num_cut > 0 {
        let _ = writeln!(
            page,
            "- {} of {} prompts were longer than the context and lost their beginning",
            summary.num_cut, summary.num_questions
        );
    }
    page.push('\n');
}

fn scores(page: &mut String, summary: &ExamSummary) {
    *page += "## Scores\n\n\
              Accuracy over the questions with its 95 % Wilson interval; the mean of the subjects is \
              what leaderboards publish.\n\n\
              | chosen by | right | accuracy | mean of subjects | calibration error |\n\
              |---|---|---|---|---|\n";
    for score in &summary.methods {
        let MethodScore {
            rate,
            mean_of_subjects,
            ..
        } = score;
        let error = score
            .calibration_error
            .map_or_else(String::new, |error| format!("{error:.3}"));
        let _ = writeln!(
            page,
            "| {} | {} of {} | {} | {} | {error} |",
            score.method.title(),
            rate.num_right,
            rate.num_total,
            with_interval(*rate),
            percent(*mean_of_subjects),
        );
    }
    page.push('\n');
    for score in &summary.methods {
        let sentences = score.verdict.join(" ");
        let _ = writeln!(page, "- {}: {sentences}", score.method.title());
    }
    page.push('\n');
    let Some(first) = summary.methods.first() else {
        return;
    };
    if first.groups.is_empty() {
        return;
    }
    let _ = writeln!(page, "## Groups, by {}\n", first.method.title());
    *page += "| group | questions | accuracy | mean of subjects |\n|---|---|---|---|\n";
    for group in &first.groups {
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            group.name,
            group.rate.num_total,
            with_interval(group.rate),
            percent(group.mean_of_subjects)
        );
    }
    page.push('\n');
}

fn letters(page: &mut String, summary: &ExamSummary) {
    *page += "## Letters\n\n| | A | B | C | D | none |\n|---|---|---|---|---|---|\n";
    let row = |page: &mut String, name: &str, cells: [String; 4], none: &str| {
        let _ = writeln!(page, "| {name} | {} | {none} |", cells.join(" | "));
    };
    if summary.num_with_answer > 0 {
        let counts = summary.right_answers.map(|count| count.to_string());
        row(page, "right answers", counts, "");
        let shares = summary.constant_letter.map(|rate| percent(rate.share));
        row(page, "always this letter scores", shares, "");
    }
    for score in &summary.methods {
        let counts = score.chosen.map(|count| count.to_string());
        let none = score.num_without_choice.to_string();
        row(
            page,
            &format!("chosen by {}", score.method.title()),
            counts,
            &none,
        );
    }
    page.push('\n');
    debug_assert_eq!(LETTERS.len(), 4, "the table's head names them");
}

fn subjects(page: &mut String, summary: &ExamSummary) {
    *page += "## Subjects\n\n| subject | questions |";
    for score in &summary.methods {
        let _ = write!(page, " {} |", score.method.title());
    }
    *page += "\n|---|---|";
    *page += &"---|".repeat(summary.methods.len());
    page.push('\n');
    for subject in &summary.subjects {
        let num_questions = subject.rates.first().map_or(0, |rate| rate.num_total);
        let _ = write!(
            page,
            "| {} {} | {num_questions} |",
            subject.name, subject.title
        );
        for rate in &subject.rates {
            let _ = write!(page, " {} |", percent(rate.share));
        }
        page.push('\n');
    }
}
