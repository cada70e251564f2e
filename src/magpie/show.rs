//! How far a step is, and what it came to.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use anyhow::Result;
use dataset::magpie::work::{Progress, StepOutcome};
use dataset::say;
use indicatif::{ProgressBar, ProgressStyle};

use crate::stdout::out;

/// Time between two plain lines where stderr is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// A bar with rows per second on a terminal, a line now and then elsewhere.
#[derive(Debug, Default)]
pub(super) struct StepBar {
    shown: Option<Shown>,
}

#[derive(Debug)]
struct Shown {
    bar: ProgressBar,
    begun_at: usize,
    start: Instant,
    last_line: Instant,
}

impl StepBar {
    /// Takes note of where a step is.
    pub(super) fn update(&mut self, progress: &Progress<'_>) {
        if progress.total == 0 {
            return;
        }
        let shown = self.shown.get_or_insert_with(|| Shown::new(progress));
        shown.bar.set_position(progress.done as u64);
        let is_plain = !stderr().is_terminal();
        if is_plain && shown.last_line.elapsed() >= PLAIN_INTERVAL {
            let secs = shown.start.elapsed().as_secs_f64();
            let rate = (progress.done - shown.begun_at) as f64 / secs;
            let Progress { step, done, total } = progress;
            say!("{step} {done}/{total} rows, {rate:.1} rows/s");
            shown.last_line = Instant::now();
        }
        if progress.done == progress.total {
            shown.bar.finish_and_clear();
        }
    }
}

impl Shown {
    fn new(progress: &Progress<'_>) -> Self {
        let template = "{msg} {wide_bar} {pos}/{len} rows, {per_sec} ({eta} left)";
        let style =
            ProgressStyle::with_template(template).expect("the template is fixed and parses");
        let bar = ProgressBar::new(progress.total as u64).with_style(style);
        bar.set_message(progress.step.to_owned());
        bar.set_position(progress.done as u64);
        bar.reset_eta();
        Self {
            bar,
            begun_at: progress.done,
            start: Instant::now(),
            last_line: Instant::now(),
        }
    }
}

/// Says on stdout what a step left and counted.
pub(super) fn outcome(step: &str, outcome: &StepOutcome) -> Result<()> {
    let (entry, done) = match outcome {
        StepOutcome::Done(entry) => (entry, ""),
        StepOutcome::WasDone(entry) => (entry, ", done before"),
        StepOutcome::Stopped { .. } => return Ok(()),
    };
    for (file, output) in &entry.outputs {
        out!("{step}: {file}, {} rows{done}", output.rows)?;
    }
    for (name, count) in &entry.counts {
        out!("  {name:<24}{count}")?;
    }
    let usage = entry.usage;
    if usage.completion_tokens > 0 {
        out!("  {:<24}{}", "tokens read", usage.prompt_tokens)?;
        out!("  {:<24}{}", "tokens written", usage.completion_tokens)?;
    }
    Ok(())
}
