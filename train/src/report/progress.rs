//! Progress of a run on stderr: a bar on a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal, stderr};
use std::time::Instant;

use burn_train::metric::state::NumericMetricState;
use dataset::say;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{ExamReport, ReportConfig, SampleReport, StepReport, ValidationReport};

/// Where progress is shown.
enum Display {
    Bar(ProgressBar),
    Lines,
    Nothing,
}

/// Terminal side of a run's reports.
pub(super) struct Progress {
    display: Display,
    log_every: u64,
    window: Window,
    first_step: u64,
    first_ended: Option<Instant>,
}

impl Progress {
    /// Starts the display of a run that has done `first_step` steps before.
    pub(super) fn new(config: &ReportConfig, first_step: u64) -> Self {
        let display = if config.quiet {
            Display::Nothing
        } else if stderr().is_terminal() {
            Display::Bar(new_bar(first_step))
        } else {
            Display::Lines
        };
        Self {
            display,
            log_every: config.log_every,
            window: Window::default(),
            first_step,
            first_ended: None,
        }
    }

    /// Counts a step in, and shows a line of the steps since the last one when it is due.
    pub(super) fn step(&mut self, report: &StepReport) {
        let first_ended = *self.first_ended.get_or_insert_with(Instant::now);
        self.window.add(report);
        if let Display::Bar(bar) = &self.display {
            if let Some(total) = report.total_steps {
                bar.set_length(total);
            }
            bar.set_position(report.step);
        }

        let is_first = report.step == self.first_step + 1;
        let is_last = Some(report.step) == report.total_steps;
        if !(is_first || is_last || report.step.is_multiple_of(self.log_every)) {
            return;
        }
        // The first step tells no pace where others follow: a graphics card compiles its kernels
        // in it.
        let secs_per_step = match report.step.saturating_sub(self.first_step + 1) {
            0 => report.secs,
            later => first_ended.elapsed().as_secs_f64() / later as f64,
        };
        let eta_secs = report
            .total_steps
            .map(|total| secs_per_step * total.saturating_sub(report.step) as f64);
        let numbers = self.window.numbers(report, eta_secs);
        self.window = Window::default();
        match &self.display {
            Display::Bar(bar) => bar.set_message(numbers),
            Display::Lines => say!("step {} | {numbers}", counted(report)),
            Display::Nothing => {}
        }
    }

    /// Shows on a bar how many answers of a rollout are written; lines come per step only.
    pub(super) fn rollout(&self, done: usize, total: usize) {
        if let Display::Bar(bar) = &self.display {
            bar.set_message(format!("rollout: {done}/{total} answers"));
        }
    }

    pub(super) fn validation(&self, report: &ValidationReport) {
        let mut text = format!("step {} | validation loss {:.4}", report.step, report.loss);
        if let Some(bits) = report.bits_per_byte {
            let _ = write!(text, " | {bits:.4} bits/byte");
        }
        for (name, value) in &report.metrics {
            let _ = write!(text, " | {name} {value:.4}");
        }
        self.line(&text);
    }

    pub(super) fn sample(&self, report: &SampleReport) {
        self.line(&format!(
            "step {} | sample | {} ... {}",
            report.step,
            one_line(&report.prompt),
            one_line(&report.text)
        ));
    }

    pub(super) fn exam(&self, report: &ExamReport) {
        let score = &report.score;
        let [share, low, high] = [score.accuracy, score.low, score.high].map(|at| 100.0 * at);
        self.line(&format!(
            "step {} | {} | {} of {} right, {share:.2} % ({low:.2} to {high:.2} %)",
            report.step, score.exam, score.num_right, score.num_total
        ));
    }

    pub(super) fn note(&self, step: u64, text: &str) {
        self.line(&format!("step {step} | {text}"));
    }

    /// Shows a line that even a quiet run must not keep to itself.
    pub(super) fn warn(&self, text: &str) {
        match &self.display {
            Display::Bar(bar) => bar.suspend(|| say!("warning: {text}")),
            Display::Lines | Display::Nothing => say!("warning: {text}"),
        }
    }

    /// Leaves the bar as it is and the cursor below it.
    pub(super) fn finish(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.abandon();
            say!();
        }
    }

    fn line(&self, text: &str) {
        match &self.display {
            Display::Bar(bar) => bar.println(text),
            Display::Lines => say!("{text}"),
            Display::Nothing => {}
        }
    }
}

/// Sums over the steps since the last line.
#[derive(Default)]
struct Window {
    loss: NumericMetricState,
    tokens: u64,
    secs: f64,
    data_wait_secs: f64,
    /// The stage's most telling number.
    metric: NumericMetricState,
}

impl Window {
    fn add(&mut self, report: &StepReport) {
        // A skipped step has no loss, and one NaN would hide the mean of all others.
        if report.loss.is_finite() {
            self.loss.update(report.loss, report.supervised as usize);
        }
        if let Some((_, value)) = report.metrics.first()
            && value.is_finite()
        {
            self.metric.update(*value, report.supervised as usize);
        }
        self.tokens += report.tokens;
        self.secs += report.secs;
        self.data_wait_secs += report.data_wait_secs;
    }

    /// Loss, speed and waiting over the window; learning rate and norm of its last step.
    fn numbers(&self, last: &StepReport, eta_secs: Option<f64>) -> String {
        let mut parts = vec![
            format!("loss {:.4}", self.loss.running_value().current()),
            format!("lr {:.2e}", last.lr),
            format!("norm {:.2}", last.grad_norm),
            format!("{:.0} tok/s", self.tokens as f64 / self.secs),
            format!("wait {:.1}%", 100.0 * self.data_wait_secs / self.secs),
        ];
        if let Some((name, _)) = last.metrics.first() {
            let mean = self.metric.running_value().current();
            parts.insert(1, format!("{name} {mean:.3}"));
        }
        if last.skipped > 0 {
            parts.push(format!("skipped {}", last.skipped));
        }
        parts.extend(eta_secs.map(|secs| format!("eta {}", duration(secs))));
        parts.join(" | ")
    }
}

/// `120/300`, or `120` where nobody knows how many there will be.
fn counted(report: &StepReport) -> String {
    match report.total_steps {
        Some(total) => format!("{}/{total}", report.step),
        None => report.step.to_string(),
    }
}

/// The two largest units of a time, as `1h05m`, `12m30s` or `45s`.
fn duration(secs: f64) -> String {
    let secs = secs.round() as u64;
    match (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60, secs % 60) {
        (0, 0, 0, secs) => format!("{secs}s"),
        (0, 0, minutes, secs) => format!("{minutes}m{secs:02}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes:02}m"),
        (days, hours, _, _) => format!("{days}d{hours:02}h"),
    }
}

/// The text with its control characters escaped, so that a sample cannot drive the terminal.
fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// A bar of something that is done before a run's steps; nothing is shown where no one looks.
pub(crate) fn progress_bar(what: &'static str, len: u64, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(len).with_message(what);
    bar.set_style(
        ProgressStyle::with_template("{bar:12.cyan/dim} {msg} {human_pos}/{human_len} | eta {eta}")
            .expect("the template is written by hand and right")
            .progress_chars("━╸─"),
    );
    bar
}

fn new_bar(first_step: u64) -> ProgressBar {
    let bar = ProgressBar::no_length().with_position(first_step);
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{bar:12.cyan/dim} step {human_pos}/{human_len} | {wide_msg}")
            .expect("the template is written by hand and right")
            .progress_chars("━╸─"),
    );
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step_report(step: u64, loss: f64, supervised: u64) -> StepReport {
        StepReport {
            step,
            total_steps: Some(300),
            epoch: 0.5,
            loss,
            lr: 1.234e-3,
            grad_norm: 0.914,
            tokens: 800,
            supervised,
            total_tokens: 800 * step,
            secs: 1.0,
            data_wait_secs: 0.004,
            skipped: 0,
            metrics: Vec::new(),
        }
    }

    /// By hand: (4 * 100 + 8 * 300) / 400 = 7; 1,600 tokens in 2 s; 8 ms of 2 s waiting.
    #[test]
    fn a_line_shows_the_mean_per_supervised_token_since_the_last_line() {
        let mut window = Window::default();
        let last = step_report(120, 8.0, 300);
        window.add(&step_report(119, 4.0, 100));
        window.add(&last);
        assert_eq!(
            format!(
                "step {} | {}",
                counted(&last),
                window.numbers(&last, Some(750.0))
            ),
            "step 120/300 | loss 7.0000 | lr 1.23e-3 | norm 0.91 | 800 tok/s | wait 0.4% \
             | eta 12m30s"
        );
    }

    /// By hand: (0.5 * 100 + 0.9 * 300) / 400 = 0.8.
    #[test]
    fn a_line_shows_the_mean_of_the_most_telling_metric() {
        let with = |report: StepReport, value: f64| StepReport {
            metrics: vec![("rewards/accuracies", value), ("kl", 7.0)],
            ..report
        };
        let mut window = Window::default();
        let last = with(step_report(120, 8.0, 300), 0.9);
        window.add(&with(step_report(119, 4.0, 100), 0.5));
        window.add(&last);
        let line = window.numbers(&last, None);
        let start = "loss 7.0000 | rewards/accuracies 0.800 | lr ";
        assert!(line.starts_with(start), "{line}");
    }

    /// A skipped step leaves the mean alone and is counted.
    #[test]
    fn a_skipped_step_does_not_hide_the_loss_of_the_others() {
        let mut window = Window::default();
        let last = StepReport {
            skipped: 1,
            total_steps: None,
            ..step_report(2, f64::NAN, 0)
        };
        window.add(&step_report(1, 4.0, 100));
        window.add(&last);
        let line = window.numbers(&last, None);
        assert!(line.starts_with("loss 4.0000 |"), "{line}");
        assert!(line.ends_with("| skipped 1"), "{line}");
        assert_eq!(counted(&last), "2");
    }

    /// By hand, around each change of unit.
    #[test]
    fn a_duration_shows_its_two_largest_units() {
        let shown = [0.4, 59.6, 750.0, 3_599.0, 3_900.0, 93_600.0].map(duration);
        assert_eq!(shown, ["0s", "1m00s", "12m30s", "59m59s", "1h05m", "1d02h"]);
    }

    /// Escape sequences in a sample stay text.
    #[test]
    fn a_sample_cannot_drive_the_terminal() {
        assert_eq!(one_line("a\n\u{1b}[2J火"), "a\\n\\u{1b}[2J火");
    }
}
