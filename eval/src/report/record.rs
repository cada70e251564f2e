//! What a run's folder tells: config, plan, metrics, samples and evaluations.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dataset::journal::read_whole_lines;
use serde::Deserialize;
use serde_json::Value;

use super::ReportError;
use crate::exam::summary::ExamSummary;

/// One training step; `None` is a number that was not finite.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StepPoint {
    /// Optimizer steps done.
    pub step: u64,
    /// Nats per token.
    pub loss: Option<f64>,
    /// Learning rate.
    pub lr: Option<f64>,
    /// Before clipping.
    pub grad_norm: Option<f64>,
    /// Tokens of the step, padding not counted.
    pub tokens: u64,
    /// Tokens of the run so far.
    pub total_tokens: u64,
    /// Wall time, in seconds.
    pub secs: Option<f64>,
    /// Steps skipped so far.
    #[serde(default)]
    pub skipped: u64,
}

/// One look at the held-out split.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ValidationPoint {
    /// Optimizer steps done before.
    pub step: u64,
    /// Nats per token.
    pub loss: Option<f64>,
    /// Bits per byte of text.
    pub bits_per_byte: Option<f64>,
}

/// What the experts of a step were sent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ExpertsPoint {
    /// Optimizer steps done.
    pub step: u64,
    /// One for each layer that has experts.
    pub layers: Vec<LayerPoint>,
}

/// What the experts of a layer were sent in a step.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LayerPoint {
    /// Tokens of each expert.
    pub loads: Vec<u64>,
}

/// An exam that the model sat while it learned.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ExamPoint {
    /// Optimizer steps done before.
    pub step: u64,
    /// Name of the exam.
    pub exam: String,
    /// Share of right answers, from 0 to 1.
    pub accuracy: f64,
}

/// A fixed prompt with what the model wrote after it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sample {
    /// Optimizer steps done before.
    pub step: u64,
    /// What the model was given.
    pub prompt: String,
    /// What it added.
    pub text: String,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Record {
    Step(StepPoint),
    Validation(ValidationPoint),
    Sample(Sample),
    Exam(ExamPoint),
    Experts(ExpertsPoint),
    #[serde(other)]
    Other,
}

/// Bits per byte of one source of text.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SourceLoss {
    /// The source.
    pub source: String,
    /// Bits per byte of its text; `None` where it had no token to predict.
    pub bits_per_byte: Option<f64>,
}

#[derive(Deserialize)]
struct PerplexityFile {
    sources: Vec<SourceLoss>,
}

/// Everything a report shows of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// Name of the folder.
    pub name: String,
    /// `config.toml`, whole.
    pub config: String,
    /// `plan.txt`, whole.
    pub plan: String,
    /// Steps in their order.
    pub steps: Vec<StepPoint>,
    /// Loads of the experts in their order; empty for a model without experts.
    pub experts: Vec<ExpertsPoint>,
    /// Validations in their order.
    pub validations: Vec<ValidationPoint>,
    /// Samples in their order.
    pub samples: Vec<Sample>,
    /// Sittings of exams in their order.
    pub sittings: Vec<ExamPoint>,
    /// Exams that its model sat, by folder.
    pub exams: Vec<ExamSummary>,
    /// Text that its model was scored on.
    pub sources: Vec<SourceLoss>,
}

impl RunRecord {
    /// Reads a run's folder; a run that is still going shows how far it is.
    ///
    /// # Errors
    ///
    /// A folder without metrics, or a file that is broken; a metrics line that is being written is
    /// passed over.
    pub fn read(dir: &Path) -> Result<Self, ReportError> {
        let metrics_path = dir.join("metrics.jsonl");
        let metrics = read_whole_lines(&metrics_path).map_err(read_error(&metrics_path))?;
        let name = dir.file_name().unwrap_or(dir.as_os_str());
        let mut record = Self {
            name: name.to_string_lossy().into_owned(),
            config: fs::read_to_string(dir.join("config.toml")).unwrap_or_default(),
            plan: fs::read_to_string(dir.join("plan.txt")).unwrap_or_default(),
            steps: Vec::new(),
            experts: Vec::new(),
            validations: Vec::new(),
            samples: Vec::new(),
            sittings: Vec::new(),
            exams: Vec::new(),
            sources: Vec::new(),
        };
        for (index, line) in metrics.lines().enumerate() {
            match parse(&metrics_path, index + 1, line)? {
                Record::Step(step) => record.steps.push(step),
                Record::Validation(validation) => record.validations.push(validation),
                Record::Sample(sample) => record.samples.push(sample),
                Record::Exam(exam) => record.sittings.push(exam),
                Record::Experts(experts) => record.experts.push(experts),
                Record::Other => {}
            }
        }
        for folder in folders(&dir.join("eval")) {
            let path = folder.join("summary.json");
            if path.exists() {
                record.exams.push(parse(&path, 1, &read(&path)?)?);
            }
            let path = folder.join("perplexity.json");
            if path.exists() {
                let file: PerplexityFile = parse(&path, 1, &read(&path)?)?;
                record.sources.extend(file.sources);
            }
        }
        Ok(record)
    }

    /// Seconds of all steps.
    pub fn train_secs(&self) -> f64 {
        self.steps.iter().filter_map(|step| step.secs).sum()
    }

    /// Tokens of all steps.
    pub fn total_tokens(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.total_tokens)
    }
}

fn read(path: &Path) -> Result<String, ReportError> {
    fs::read_to_string(path).map_err(read_error(path))
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> ReportError {
    let path = path.to_owned();
    move |source| ReportError::Read { path, source }
}

fn parse<T: for<'de> Deserialize<'de>>(
    path: &Path,
    line: usize,
    text: &str,
) -> Result<T, ReportError> {
    let value: Result<T, _> = serde_json::from_str(text);
    value.map_err(|source| ReportError::Record {
        path: path.to_owned(),
        line,
        source,
    })
}

/// Folders of a folder by name; none where there is no such folder.
fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// What an exam was sat with, in a word or two.
pub(super) fn exam_name(exam: &ExamSummary) -> String {
    let style = exam.settings.get("style").and_then(Value::as_str);
    let style = style.unwrap_or_default();
    format!("{} {} {style}", exam.exam, exam.split)
        .trim_end()
        .to_owned()
}
