//! How far the building of the cache is, as numbers and as a bar with an estimate on stderr.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};

use crate::say;

/// Time between two plain lines where stderr is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// What is being done to the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildPhase {
    /// Their content is hashed, to see whether a shard is there already.
    Hashing,
    /// Their text is tokenised.
    Tokenizing,
}

/// How far a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildProgress<'a> {
    /// What is being done.
    pub phase: BuildPhase,
    /// File that is being read.
    pub path: &'a Path,
    /// Bytes done, of all files of the phase; while a file is tokenised its text counts, which is
    /// somewhat less than the file.
    pub done_bytes: u64,
    /// Size of all files of the phase.
    pub total_bytes: u64,
}

/// Shows progress on stderr: a bar on a terminal, a line every ten seconds elsewhere.
#[derive(Debug, Default)]
pub struct StderrProgress {
    shown: Option<Shown>,
}

#[derive(Debug)]
struct Shown {
    phase: BuildPhase,
    bar: ProgressBar,
    start: Instant,
    last_line: Instant,
}

impl StderrProgress {
    /// Takes note of where the work is.
    pub fn update(&mut self, progress: BuildProgress) {
        let BuildProgress {
            phase,
            path,
            done_bytes,
            total_bytes,
        } = progress;
        if self
            .shown
            .as_ref()
            .is_some_and(|shown| shown.phase != phase)
        {
            self.finish();
        }
        let shown = self.shown.get_or_insert_with(|| Shown {
            phase,
            bar: bar(phase, total_bytes),
            start: Instant::now(),
            last_line: Instant::now(),
        });
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        shown.bar.set_message(name.into_owned());
        shown.bar.set_position(done_bytes);
        if !stderr().is_terminal() && shown.last_line.elapsed() >= PLAIN_INTERVAL {
            shown.last_line = Instant::now();
            let left = secs_left(shown.start.elapsed(), done_bytes, total_bytes);
            say!(
                "{} {}: {} of {}, about {} left",
                verb(phase),
                path.display(),
                HumanBytes(done_bytes),
                HumanBytes(total_bytes),
                HumanDuration(left)
            );
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some(shown) = self.shown.take() {
            shown.bar.finish_and_clear();
        }
    }
}

impl Drop for StderrProgress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn verb(phase: BuildPhase) -> &'static str {
    match phase {
        BuildPhase::Hashing => "hashing",
        BuildPhase::Tokenizing => "tokenizing",
    }
}

fn bar(phase: BuildPhase, total_bytes: u64) -> ProgressBar {
    let template = "{prefix} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} eta {eta} {wide_msg}";
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    // indicatif draws to stderr, and nothing at all where that is no terminal.
    ProgressBar::new(total_bytes)
        .with_style(style)
        .with_prefix(verb(phase))
}

fn secs_left(elapsed: Duration, done_bytes: u64, total_bytes: u64) -> Duration {
    let left = total_bytes.saturating_sub(done_bytes) as f64 / done_bytes.max(1) as f64;
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * left).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A quarter done in ten seconds leaves thirty; nothing done leaves no panic.
    #[test]
    fn time_left_is_in_proportion() {
        let elapsed = Duration::from_secs(10);
        assert_eq!(secs_left(elapsed, 25, 100), Duration::from_secs(30));
        assert_eq!(secs_left(elapsed, 120, 100), Duration::ZERO);
        assert!(secs_left(elapsed, 0, u64::MAX) > Duration::from_secs(1 << 40));
    }
}
