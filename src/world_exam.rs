//! The quickstart's exam about its invented world: questions with four options, in C-Eval's form.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use dataset::playground::choices::{choice_exam, write_choice_exam};
use eval::engine::Engine;
use eval::exam::files::write_results;
use eval::exam::folder::{ExamKind, Split, read_exam};
use eval::exam::prompt::Style;
use eval::exam::sit::{SitConfig, sit};
use eval::exam::summary::ExamSummary;
use serde_json::json;

/// Writes the exam about the world of this seed into a folder, lets the model sit it, and returns a
/// line per way of choosing, with its interval.
///
/// # Errors
///
/// A folder that cannot be written, or a model that cannot be asked.
pub fn sit_world_exam(engine: &Engine, dir: &Path, seed: u64) -> Result<String> {
    write_choice_exam(dir, &choice_exam(seed)).with_context(|| dir.display().to_string())?;
    let exam = read_exam(ExamKind::Folder, dir, Split::Val, &[])?;
    let config = SitConfig {
        style: Style::Chat,
        num_shots: 0,
        permute: false,
        options: true,
        max_written_tokens: 0,
    };
    let mut replies = Vec::new();
    let never = AtomicBool::new(false);
    sit(engine, &exam, &config, &mut replies, &never, |_| {})?;
    let summary = ExamSummary::new(&exam, &replies, json!(config));
    write_results(dir, &exam, &replies, &summary)?;
    let mut lines = String::from("four options, none of them favoured (chance is 25 %)\n");
    for score in &summary.methods {
        let rate = score.rate;
        let right = format!("{}/{}", rate.num_right, rate.num_total);
        let [share, low, high] = [rate.share, rate.low, rate.high].map(|share| 100.0 * share);
        let title = score.method.title();
        let _ = writeln!(
            lines,
            "{title:<32}{right:>8}{share:>7.0} %   ({low:.0} to {high:.0} %)"
        );
    }
    Ok(lines)
}
