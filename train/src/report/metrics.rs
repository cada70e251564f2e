//! `metrics.jsonl`: one JSON object per line, appended as things happen.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::Path;

use super::record::{Record, Row};

/// `metrics.jsonl`, open for appending.
pub(super) struct MetricsFile {
    file: File,
    /// Lines of the step that the run was resumed from: what is looked at again is not told again.
    of_resumed_step: Vec<Vec<u8>>,
    num_bytes: u64,
    num_lost: u64,
}

impl MetricsFile {
    /// Starts an empty file in place of any earlier one.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        File::create(path)?;
        Self::open(path)
    }

    /// Keeps the lines up to `last_step` and returns how many lines were unreadable.
    ///
    /// The shortened file replaces the old one in one move, so a crash here loses nothing.
    pub(super) fn resume(path: &Path, last_step: u64) -> io::Result<(Self, usize)> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok((Self::create(path)?, 0));
            }
            Err(error) => return Err(error),
        };
        let shortened = path.with_extension("jsonl.tmp");
        let mut writer = BufWriter::new(File::create(&shortened)?);
        let (mut num_broken, mut of_resumed_step) = (0, Vec::new());
        for line in BufReader::new(file).split(b'\n') {
            let line = line?;
            match serde_json::from_slice::<Row>(&line) {
                Ok(row) if row.step() <= last_step => {
                    writer.write_all(&line)?;
                    writer.write_all(b"\n")?;
                    if row.step() == last_step {
                        of_resumed_step.push(line);
                    }
                }
                Ok(_) => {}
                Err(_) => num_broken += 1,
            }
        }
        writer.into_inner()?.sync_all()?;
        fs::rename(&shortened, path)?;
        let file = Self {
            of_resumed_step,
            ..Self::open(path)?
        };
        Ok((file, num_broken))
    }

    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).open(path)?;
        let num_bytes = file.metadata()?.len();
        Ok(Self {
            file,
            of_resumed_step: Vec::new(),
            num_bytes,
            num_lost: 0,
        })
    }

    /// Appends a line in a single write, so that a killed process leaves whole lines.
    pub(super) fn append(&mut self, record: &Record<'_>) -> io::Result<()> {
        let mut line = record.to_json()?;
        let is_there = |known: &Vec<u8>| known == line.as_bytes();
        if self.of_resumed_step.iter().any(is_there) {
            return Ok(());
        }
        line.push('\n');
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            self.num_lost += 1;
            // The next line must not be glued to the half of this one.
            self.file.set_len(self.num_bytes)?;
            return Err(error);
        }
        self.num_bytes += line.len() as u64;
        Ok(())
    }

    /// Lines that could not be written since the file was opened.
    pub(super) fn num_lost(&self) -> u64 {
        self.num_lost
    }

    /// Waits until the lines are on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Hands every readable line of the file to `visit`, in order.
pub(super) fn for_each_row(path: &Path, mut visit: impl FnMut(Row)) -> io::Result<()> {
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        if let Ok(row) = serde_json::from_slice(&line?) {
            visit(row);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::report::{ExpertsReport, LayerReport, SampleReport, StepReport, ValidationReport};

    fn step_report(step: u64) -> StepReport {
        StepReport {
            step,
            total_steps: Some(300),
            epoch: 0.5,
            loss: 5.25,
            lr: 1e-3,
            grad_norm: 0.75,
            tokens: 8000,
            supervised: 7900,
            total_tokens: 8000 * step,
            secs: 2.0,
            data_wait_secs: 0.5,
            skipped: 0,
            metrics: Vec::new(),
        }
    }

    /// The schema that `train/README.md` documents, field for field.
    #[test]
    fn a_step_is_one_object_with_the_documented_fields() {
        let line = Record::Step(&step_report(3)).to_json().unwrap();
        assert_eq!(
            line,
            r#"{"kind":"step","step":3,"epoch":0.5,"loss":5.25,"lr":0.001,"grad_norm":0.75,"#
                .to_string()
                + r#""tokens":8000,"supervised":7900,"total_tokens":24000,"secs":2.0,"#
                + r#""data_wait_secs":0.5,"skipped":0}"#
        );
    }

    /// The schema that `train/README.md` documents, field for field.
    #[test]
    fn validations_samples_and_notes_carry_their_kind() {
        let validation = ValidationReport {
            step: 3,
            loss: 5.5,
            bits_per_byte: Some(2.25),
            metrics: Vec::new(),
        };
        let sample = SampleReport {
            step: 3,
            prompt: "3 + 4".into(),
            text: " = 7\n".into(),
        };
        let lines = [
            Record::Validation(&validation),
            Record::Sample(&sample),
            Record::Note {
                step: 3,
                text: "checkpoint",
            },
        ]
        .map(|record| record.to_json().unwrap());
        assert_eq!(
            lines,
            [
                r#"{"kind":"validation","step":3,"loss":5.5,"bits_per_byte":2.25}"#,
                r#"{"kind":"sample","step":3,"prompt":"3 + 4","text":" = 7\n"}"#,
                r#"{"kind":"note","step":3,"text":"checkpoint"}"#,
            ]
        );
    }

    /// What a stage measures stands beside the rest, under its name; a loss that is no likelihood of
    /// text has no bits per byte.
    #[test]
    fn a_stage_s_own_numbers_are_fields_of_the_line() {
        let step = StepReport {
            metrics: vec![("rewards/accuracies", 0.75), ("kl", f64::NAN)],
            ..step_report(3)
        };
        let line = Record::Step(&step).to_json().unwrap();
        let end = r#""skipped":0,"rewards/accuracies":0.75,"kl":null,"non_finite":{"kl":"NaN"}}"#;
        assert!(line.ends_with(end), "{line}");
        let validation = ValidationReport {
            step: 3,
            loss: 0.5,
            bits_per_byte: None,
            metrics: vec![("rewards/accuracies", 1.0)],
        };
        assert_eq!(
            Record::Validation(&validation).to_json().unwrap(),
            r#"{"kind":"validation","step":3,"loss":0.5,"rewards/accuracies":1.0}"#
        );
    }

    /// JSON has no NaN: the field is null and `non_finite` says which one it was.
    #[test]
    fn numbers_that_are_not_finite_are_null_and_named() {
        let report = StepReport {
            loss: f64::NAN,
            grad_norm: f64::NEG_INFINITY,
            ..step_report(1)
        };
        let line = Record::Step(&report).to_json().unwrap();
        let value: Value = serde_json::from_str(&line).unwrap();
        assert!(value["loss"].is_null() && value["grad_norm"].is_null());
        assert_eq!(
            value["non_finite"],
            serde_json::json!({"loss": "NaN", "grad_norm": "-inf"})
        );
    }

    /// The same for the layers of experts; the line is none of the broken ones on resume.
    #[test]
    fn work_of_experts_that_is_not_finite_is_named_and_kept() {
        let layer = LayerReport {
            layer: 1,
            loads: vec![3, 1],
            entropy: f64::NAN,
            balance: f64::INFINITY,
            max_violation: 0.5,
        };
        let report = ExpertsReport {
            step: 2,
            dropped: 0,
            layers: vec![layer],
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = MetricsFile::create(&path).unwrap();
        metrics.append(&Record::Experts(&report)).unwrap();
        drop(metrics);

        let (_, num_broken) = MetricsFile::resume(&path, 4).unwrap();
        assert_eq!(num_broken, 0);
        let line = fs::read_to_string(&path).unwrap();
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            value["non_finite"],
            serde_json::json!({"layers.0.entropy": "NaN", "layers.0.balance": "inf"})
        );
        let Row::Experts(read) = serde_json::from_str(&line).unwrap() else {
            panic!("{line}");
        };
        assert!(read.layers[0].entropy.is_nan());
        assert_eq!(read.layers[0].loads, [3, 1]);
    }

    /// Steps 1 to 6 were taken, the checkpoint is of step 4: 5 and 6 go, 5 is taken again.
    #[test]
    fn a_resumed_run_has_each_step_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = MetricsFile::create(&path).unwrap();
        for step in 1..=6 {
            metrics.append(&Record::Step(&step_report(step))).unwrap();
        }
        drop(metrics);

        let (mut metrics, num_broken) = MetricsFile::resume(&path, 4).unwrap();
        metrics.append(&Record::Step(&step_report(5))).unwrap();
        metrics.sync().unwrap();

        let mut steps = Vec::new();
        for_each_row(&path, |row| steps.push(row.step())).unwrap();
        assert_eq!((steps, num_broken), (vec![1, 2, 3, 4, 5], 0));
        assert!(!dir.path().join("metrics.jsonl.tmp").exists());
    }

    /// A finished run that is resumed looks at itself once more, and finds what it found.
    #[test]
    fn what_was_found_at_the_resumed_step_is_not_written_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let sample = |step, prompt: &str| SampleReport {
            step,
            prompt: prompt.to_owned(),
            text: "one".to_owned(),
        };
        let mut metrics = MetricsFile::create(&path).unwrap();
        for step in [3, 4] {
            metrics.append(&Record::Sample(&sample(step, "a"))).unwrap();
        }
        let before = fs::read(&path).unwrap();
        let (mut metrics, _) = MetricsFile::resume(&path, 4).unwrap();
        metrics.append(&Record::Sample(&sample(4, "a"))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
        metrics.append(&Record::Sample(&sample(4, "b"))).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
    }

    /// A process killed in the middle of a write leaves half a line; it must not poison the next.
    #[test]
    fn half_a_line_is_dropped_on_resume() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let whole = Record::Step(&step_report(1)).to_json().unwrap();
        fs::write(&path, format!("{whole}\n{}", &whole[..30])).unwrap();

        let (_, num_broken) = MetricsFile::resume(&path, 4).unwrap();
        assert_eq!(num_broken, 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), whole + "\n");
    }

    /// The file of a run whose reports were deleted starts again rather than blocking the resume.
    #[test]
    fn a_missing_file_is_started_again_on_resume() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        MetricsFile::resume(&path, 4).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    /// `/dev/full` accepts no byte, as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_loses_lines_but_returns_an_error_each_time() {
        let mut metrics = MetricsFile::open(Path::new("/dev/full")).unwrap();
        let error = metrics.append(&Record::Step(&step_report(1))).unwrap_err();
        assert!(metrics.append(&Record::Step(&step_report(2))).is_err());
        assert_eq!(metrics.num_lost(), 2);
        assert!(!error.to_string().is_empty());
    }
}
