//! The page itself: facts side by side, curves over each other, samples, exams, configs.

use std::collections::BTreeSet;

use minijinja::{Environment, context};
use serde::Serialize;

use super::ReportError;
use super::curves::{Chart, charts};
use super::record::{RunRecord, exam_name};
use crate::exam::summary::{percent, with_interval};

/// What both forms of the page are filled with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    /// Names of the runs, in the order of their colours.
    runs: Vec<String>,
    facts: Vec<Row>,
    charts: Vec<Chart>,
    exams: Vec<Row>,
    verdicts: Vec<Verdict>,
    sources: Vec<Row>,
    samples: Vec<PromptSamples>,
    configs: Vec<Text>,
    plans: Vec<Text>,
}

/// A name with a value for each run.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    name: String,
    values: Vec<String>,
}

/// What an exam's score says, in plain sentences.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Verdict {
    run: String,
    exam: String,
    text: String,
}

/// What the runs wrote after one prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct PromptSamples {
    prompt: String,
    answers: Vec<Answer>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Answer {
    run: String,
    step: u64,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Text {
    run: String,
    text: String,
}

impl Page {
    /// Puts the runs side by side.
    pub fn new(runs: &[RunRecord]) -> Self {
        let texts = |text: fn(&RunRecord) -> &String| {
            let runs = runs.iter().filter(move |run| !text(run).is_empty());
            let texts = runs.map(move |run| Text {
                run: run.name.clone(),
                text: text(run).clone(),
            });
            texts.collect()
        };
        Self {
            runs: runs.iter().map(|run| run.name.clone()).collect(),
            facts: facts(runs),
            charts: charts(runs),
            exams: exams(runs),
            verdicts: verdicts(runs),
            sources: sources(runs),
            samples: samples(runs),
            configs: texts(|run| &run.config),
            plans: texts(|run| &run.plan),
        }
    }
}

/// One HTML file with everything in it: styles and curves, no script, nothing fetched.
///
/// # Errors
///
/// A template that does not fit the page.
pub fn render_html(page: &Page) -> Result<String, ReportError> {
    render("report.html", include_str!("report.html"), page)
}

/// The same as Markdown, without the curves.
///
/// # Errors
///
/// A template that does not fit the page.
pub fn render_markdown(page: &Page) -> Result<String, ReportError> {
    render("report.md", include_str!("report.md"), page)
}

/// A name that ends in `.html` makes the library escape every value.
fn render(name: &str, template: &str, page: &Page) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.add_template(name, template)?;
    Ok(environment
        .get_template(name)?
        .render(context! { page => page })?)
}

fn facts(runs: &[RunRecord]) -> Vec<Row> {
    let row = |name: &str, value: &dyn Fn(&RunRecord) -> Option<String>| Row {
        name: name.to_owned(),
        values: runs
            .iter()
            .map(|run| value(run).unwrap_or_default())
            .collect(),
    };
    let speed = |run: &RunRecord| {
        let secs = run.train_secs();
        let tokens: u64 = run.steps.iter().map(|step| step.tokens).sum();
        (secs > 0.0).then(|| format!("{:.0}", tokens as f64 / secs))
    };
    let last = |run: &RunRecord| run.validations.last().cloned();
    let best = |run: &RunRecord| {
        let losses = run.validations.iter().filter_map(|point| point.loss);
        losses.reduce(f64::min)
    };
    vec![
        row("steps", &|run| Some(run.steps.last()?.step.to_string())),
        row("tokens", &|run| Some(run.total_tokens().to_string())),
        row("minutes of training", &|run| {
            Some(format!("{:.1}", run.train_secs() / 60.0))
        }),
        row("tokens/s", &speed),
        row("training loss of the last step", &|run| {
            Some(format!("{:.4}", run.steps.last()?.loss?))
        }),
        row("held-out loss at the end", &|run| {
            Some(format!("{:.4}", last(run)?.loss?))
        }),
        row("lowest held-out loss", &|run| {
            Some(format!("{:.4}", best(run)?))
        }),
        row("bits per byte at the end", &|run| {
            Some(format!("{:.4}", last(run)?.bits_per_byte?))
        }),
        row("skipped steps", &|run| {
            Some(run.steps.last()?.skipped.to_string())
        }),
    ]
}

fn exams(runs: &[RunRecord]) -> Vec<Row> {
    let mut names: Vec<String> = Vec::new();
    for exam in runs.iter().flat_map(|run| &run.exams) {
        for score in &exam.methods {
            let name = format!("{}, {}", exam_name(exam), score.method.title());
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let value = |run: &RunRecord, name: &str| {
        let scores = run.exams.iter().flat_map(|exam| {
            let scores = exam.methods.iter();
            scores.map(move |score| {
                (
                    format!("{}, {}", exam_name(exam), score.method.title()),
                    score,
                )
            })
        });
        let mut found = scores.filter(|(found, _)| found == name);
        found.next().map(|(_, score)| with_interval(score.rate))
    };
    let rows = names.into_iter().map(|name| Row {
        values: runs
            .iter()
            .map(|run| value(run, &name).unwrap_or_default())
            .collect(),
        name,
    });
    rows.collect()
}

fn verdicts(runs: &[RunRecord]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for run in runs {
        for exam in &run.exams {
            let Some(score) = exam.methods.first() else {
                continue;
            };
            let always = exam
                .constant_letter
                .map(|rate| percent(rate.share))
                .join(", ");
            verdicts.push(Verdict {
                run: run.name.clone(),
                exam: exam_name(exam),
                text: format!(
                    "{} Always A, B, C or D would score {always}.",
                    score.verdict.join(" ")
                ),
            });
        }
    }
    verdicts
}

fn sources(runs: &[RunRecord]) -> Vec<Row> {
    let names: BTreeSet<&String> = runs
        .iter()
        .flat_map(|run| run.sources.iter().map(|loss| &loss.source))
        .collect();
    let value = |run: &RunRecord, name: &String| {
        let loss = run.sources.iter().find(|loss| loss.source == *name)?;
        Some(format!("{:.4}", loss.bits_per_byte?))
    };
    let rows = names.into_iter().map(|name| Row {
        name: name.clone(),
        values: runs
            .iter()
            .map(|run| value(run, name).unwrap_or_default())
            .collect(),
    });
    rows.collect()
}

fn samples(runs: &[RunRecord]) -> Vec<PromptSamples> {
    let mut prompts: Vec<PromptSamples> = Vec::new();
    for run in runs {
        for sample in &run.samples {
            let answer = Answer {
                run: run.name.clone(),
                step: sample.step,
                text: sample.text.clone(),
            };
            match prompts
                .iter_mut()
                .find(|known| known.prompt == sample.prompt)
            {
                Some(known) => known.answers.push(answer),
                None => prompts.push(PromptSamples {
                    prompt: sample.prompt.clone(),
                    answers: vec![answer],
                }),
            }
        }
    }
    prompts
}
