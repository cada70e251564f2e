//! What a training run reports and where it goes: terminal, `metrics.jsonl`, TensorBoard, `loss.png`.
//!
//! Reporting never stops training. Opening a sink may fail, since then nothing is lost yet; a sink
//! that fails later (a full disk) says so once, and training goes on.

mod curve;
mod experts;
mod metrics;
mod plot;
mod progress;
mod record;
mod reports;
mod tensorboard;

use std::path::{Path, PathBuf};
use std::{fs, io};

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use self::experts::LoadMap;
pub use self::experts::{ExpertsReport, LayerReport};
use self::metrics::MetricsFile;
use self::plot::Plot;
use self::progress::Progress;
pub(crate) use self::progress::progress_bar;
use self::record::{Record, Row};
pub use self::reports::{ExamReport, SampleReport, StepReport, ValidationReport};
use self::tensorboard::EventFile;

/// How often and where a run reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct ReportConfig {
    /// Steps between two progress lines; the numbers in a line are means over these steps.
    pub log_every: u64,
    /// Write TensorBoard event files to the folder `events` of the run.
    pub tensorboard: bool,
    /// Draw the learning curve into `loss.png` of the run at every validation and checkpoint, and
    /// the loads of experts, where there are any, into `experts.png`.
    pub plot: bool,
    /// Show no progress on the terminal; warnings are still shown.
    pub quiet: bool,
}

impl Default for ReportConfig {
    fn default() -> Self {
        Self {
            log_every: 10,
            tensorboard: true,
            plot: true,
            quiet: false,
        }
    }
}

/// Why the reports of a run could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file or folder of the reports cannot be created, read or replaced.
    #[error("{}: cannot open the run's reports", path.display())]
    Open {
        /// File or folder concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line every zero steps cannot be written.
    #[error("log_every: found 0, expected at least 1 step between two lines")]
    LogEvery,
}

/// Receiver of everything a run reports, passing it on to the sinks that are switched on.
pub struct Reporter {
    progress: Progress,
    metrics: MetricsFile,
    events: Option<EventFile>,
    plot: Option<Plot>,
    load_map: Option<LoadMap>,
}

impl Reporter {
    /// Opens the reports of the run in `run_dir`, which must exist.
    ///
    /// With `resume_from_step` the reports of later steps are removed, since the resumed run takes
    /// those steps again; without it any earlier `metrics.jsonl` is replaced.
    ///
    /// # Errors
    ///
    /// When `log_every` is zero, or when a file cannot be created in `run_dir`.
    pub fn new(
        run_dir: &Path,
        config: &ReportConfig,
        resume_from_step: Option<u64>,
    ) -> Result<Self, ReportError> {
        if config.log_every == 0 {
            return Err(ReportError::LogEvery);
        }
        let metrics_path = run_dir.join("metrics.jsonl");
        let (metrics, num_broken) = match resume_from_step {
            Some(step) => MetricsFile::resume(&metrics_path, step),
            None => MetricsFile::create(&metrics_path).map(|file| (file, 0)),
        }
        .map_err(|source| open_error(&metrics_path, source))?;

        let events = if config.tensorboard {
            let dir = run_dir.join("events");
            let first_step = resume_from_step.map_or(0, |step| step + 1);
            let events = fs::create_dir_all(&dir)
                .and_then(|()| EventFile::create(&dir, first_step))
                .map_err(|source| open_error(&dir, source))?;
            Some(events)
        } else {
            None
        };

        let mut plot = config.plot.then(|| Plot::new(run_dir));
        let mut load_map = config.plot.then(|| LoadMap::new(run_dir));
        if let (Some(plot), Some(map), Some(_)) = (&mut plot, &mut load_map, resume_from_step) {
            let draw_again = |row: Row| match &row {
                Row::Experts(report) => map.record(report),
                row => plot.record_row(row),
            };
            metrics::for_each_row(&metrics_path, draw_again)
                .map_err(|source| open_error(&metrics_path, source))?;
        }

        let mut reporter = Self {
            progress: Progress::new(config, resume_from_step.unwrap_or(0)),
            metrics,
            events,
            plot,
            load_map,
        };
        if num_broken > 0 {
            let step = resume_from_step.unwrap_or(0);
            reporter.note(
                step,
                &format!("metrics.jsonl: dropped {num_broken} broken lines"),
            );
        }
        Ok(reporter)
    }

    /// Shows how much is made of what the model itself makes for the next step.
    pub fn show_rollout(&self, done: usize, total: usize) {
        self.progress.rollout(done, total);
    }

    /// Passes on the measurements of a step.
    pub fn record_step(&mut self, report: &StepReport) {
        self.progress.step(report);
        self.append(&Record::Step(report));
        self.write_events(|events| events.write_step(report));
        if let Some(plot) = &mut self.plot {
            plot.record_step(report.step, report.loss, report.lr);
        }
    }

    /// Passes on the work of a step's experts.
    pub fn record_experts(&mut self, report: &ExpertsReport) {
        self.append(&Record::Experts(report));
        self.write_events(|events| events.write_experts(report));
        if let Some(map) = &mut self.load_map {
            map.record(report);
        }
    }

    /// Passes on the result of a validation and redraws the curve.
    pub fn record_validation(&mut self, report: &ValidationReport) {
        self.progress.validation(report);
        self.append(&Record::Validation(report));
        self.write_events(|events| events.write_validation(report));
        if let Some(plot) = &mut self.plot {
            let bits_per_byte = report.bits_per_byte.unwrap_or(f64::NAN);
            plot.record_validation(report.step, report.loss, bits_per_byte);
        }
        self.redraw();
    }

    /// Passes on a sampled continuation.
    pub fn record_sample(&mut self, report: &SampleReport) {
        self.progress.sample(report);
        self.append(&Record::Sample(report));
        self.write_events(|events| events.write_sample(report));
    }

    /// Passes on the score of an exam.
    pub fn record_exam(&mut self, report: &ExamReport) {
        self.progress.exam(report);
        self.append(&Record::Exam(report));
        self.write_events(|events| events.write_exam(report));
    }

    /// Shows and records a remark on the run: a skipped step, a checkpoint written, a stop.
    pub fn note(&mut self, step: u64, text: &str) {
        self.progress.note(step, text);
        self.append(&Record::Note { step, text });
    }

    /// Brings the files to the disk and redraws the curve; to be called with every checkpoint.
    pub fn sync(&mut self) {
        if let Err(error) = self.metrics.sync() {
            self.progress
                .warn(&format!("metrics.jsonl is not safe on the disk: {error}"));
        }
        self.write_events(EventFile::sync);
        self.redraw();
    }

    /// Ends the progress display and completes the files.
    pub fn finish(mut self) {
        self.sync();
        self.progress.finish();
    }

    /// Writes a line of metrics, or says once that lines are lost.
    fn append(&mut self, record: &Record<'_>) {
        let was_complete = self.metrics.num_lost() == 0;
        if let Err(error) = self.metrics.append(record)
            && was_complete
        {
            self.progress
                .warn(&format!("metrics.jsonl loses lines: {error}"));
        }
    }

    /// Writes events, or says why TensorBoard gets no more of them.
    fn write_events(&mut self, write: impl FnOnce(&mut EventFile) -> io::Result<()>) {
        if let Some(events) = &mut self.events
            && let Err(error) = write(events)
        {
            // A half-written record makes whatever follows it unreadable, so the file ends here.
            self.events = None;
            self.progress
                .warn(&format!("TensorBoard events end here: {error}"));
        }
    }

    /// Redraws the curve, or says why it is drawn no more.
    fn redraw(&mut self) {
        if let Some(plot) = &self.plot
            && let Err(error) = plot.draw()
        {
            self.plot = None;
            self.progress
                .warn(&format!("loss.png is no longer drawn: {error}"));
        }
        if let Some(map) = &self.load_map
            && let Err(error) = map.draw()
        {
            self.load_map = None;
            self.progress
                .warn(&format!("experts.png is no longer drawn: {error}"));
        }
    }
}

fn open_error(path: &Path, source: io::Error) -> ReportError {
    ReportError::Open {
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Metrics;

    fn quiet() -> ReportConfig {
        ReportConfig {
            quiet: true,
            ..ReportConfig::default()
        }
    }

    fn error_text(run_dir: &Path, config: &ReportConfig) -> String {
        let error = Reporter::new(run_dir, config, None)
            .map(|_| ())
            .unwrap_err();
        error.to_string()
    }

    #[test]
    fn a_line_every_zero_steps_is_refused() {
        let config = ReportConfig {
            log_every: 0,
            ..quiet()
        };
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            error_text(dir.path(), &config),
            "log_every: found 0, expected at least 1 step between two lines"
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let expected = format!(
            "{}: cannot open the run's reports",
            gone.join("metrics.jsonl").display()
        );
        assert_eq!(error_text(&gone, &quiet()), expected);
    }

    /// Someone deletes the folder in the middle of a run: the reports are lost, the run goes on.
    #[test]
    fn a_run_outlives_its_reports() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        fs::create_dir(&run_dir).unwrap();
        let mut reporter = Reporter::new(&run_dir, &quiet(), None).unwrap();
        fs::remove_dir_all(&run_dir).unwrap();
        reporter.record_step(&StepReport {
            step: 1,
            total_steps: None,
            epoch: 0.0,
            loss: 8.75,
            lr: 1e-3,
            grad_norm: f64::INFINITY,
            tokens: 0,
            supervised: 0,
            total_tokens: 0,
            secs: 0.0,
            data_wait_secs: 0.0,
            skipped: 0,
            metrics: Metrics::new(),
        });
        reporter.record_validation(&ValidationReport {
            step: 1,
            loss: 8.75,
            bits_per_byte: Some(f64::NAN),
            metrics: Metrics::new(),
        });
        assert!(reporter.plot.is_none(), "a picture cannot be written");
        reporter.finish();
    }
}
