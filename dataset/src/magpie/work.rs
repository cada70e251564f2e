//! A step from inputs to files: its rows are appended as they come, and what is done is not done
//! again.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::completer::Usage;
use super::error::MagpieError;
use super::manifest::{FileEntry, Manifest, StepEntry, sha256_of};
use super::record::{Record, read_values, write_records};
use crate::journal::{Journal, difference};

/// A folder in which steps leave their files.
pub struct Workplace<'a> {
    /// The folder.
    pub dir: &'a Path,
    /// Do steps again that are done or begun.
    pub overwrite: bool,
    /// Ending of the files: jsonl, or json for Magpie's arrays.
    pub ending: &'a str,
    /// Rows between two saves.
    pub save_every: usize,
    /// Is told how far a step is, and may stop it.
    pub observe: &'a mut dyn FnMut(&Progress<'_>) -> ControlFlow<()>,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Its name.
    pub step: &'a str,
    /// Rows done.
    pub done: usize,
    /// Rows there are.
    pub total: usize,
}

/// What a step is: its name, what it reads, and everything else its result depends on.
#[derive(Debug)]
pub struct StepSpec<'a> {
    /// Name in the manifest.
    pub name: &'a str,
    /// Files that it reads.
    pub inputs: &'a [PathBuf],
    /// An object of settings.
    pub settings: Value,
    /// Rows it makes one by one; 0 for a step that looks at everything at once.
    pub total: usize,
}

/// A row on its way, with what is known of how it came about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// The row.
    pub record: Record,
    /// Whether all that was asked of it ended by itself.
    #[serde(default)]
    pub is_terminated: bool,
    /// Why nothing could be asked, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Tokens that it took.
    #[serde(default)]
    pub usage: Usage,
}

/// What a step leaves.
#[derive(Debug, Default)]
pub struct Finished {
    /// Files by the stem of their name.
    pub files: Vec<(String, Vec<Record>)>,
    /// What was counted.
    pub counts: Map<String, Value>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum StepOutcome {
    /// Its files are there now.
    Done(StepEntry),
    /// They were there before.
    WasDone(StepEntry),
    /// It was stopped after so many rows of so many.
    Stopped {
        /// Rows that are saved.
        done: usize,
        /// Rows there are.
        total: usize,
    },
}

impl Workplace<'_> {
    /// Path of a file that a step leaves; a name with an ending of its own keeps it.
    pub fn file(&self, stem: &str) -> PathBuf {
        if stem.contains('.') {
            return self.dir.join(stem);
        }
        self.dir.join(format!("{stem}.{}", self.ending))
    }

    /// Does a step unless it is done: `make` makes the rows of a range, in order, and `finish` the
    /// files out of all rows.
    ///
    /// # Errors
    ///
    /// Settings or inputs that have changed since, by name, and whatever `make` and `finish` fail
    /// with; the rows so far are kept.
    pub fn run(
        &mut self,
        spec: &StepSpec<'_>,
        mut make: impl FnMut(Range<usize>, u64) -> Result<Vec<Made>, MagpieError>,
        finish: impl FnOnce(&[Made]) -> Result<Finished, MagpieError>,
    ) -> Result<StepOutcome, MagpieError> {
        fs::create_dir_all(self.dir).map_err(|source| MagpieError::Folder {
            path: self.dir.to_owned(),
            source,
        })?;
        let mut manifest = Manifest::load(self.dir)?;
        let inputs = self.inputs(spec.inputs)?;
        let header = header(spec, &inputs);
        let journal_path = self.dir.join(format!("{}.partial.jsonl", spec.name));
        let mut begun = now();
        let known = manifest.step(self.dir, spec.name)?;
        if self.overwrite {
            // Nothing is lost if it was never there.
            let _ = fs::remove_file(&journal_path);
        } else if let Some(entry) = known {
            let found = header_of(spec.name, &entry.settings, &entry.inputs);
            if let Some(difference) = difference(&found, &header) {
                return Err(MagpieError::Other {
                    dir: self.dir.to_owned(),
                    step: spec.name.to_owned(),
                    difference,
                });
            }
            if self.is_whole(&entry)? {
                return Ok(StepOutcome::WasDone(entry));
            }
            begun = entry.begun;
        }
        let mut entry = StepEntry {
            begun,
            settings: spec.settings.clone(),
            inputs,
            ..StepEntry::default()
        };
        manifest.set_step(spec.name, &entry);
        manifest.save(self.dir)?;

        let mut journal: Journal<Made> =
            Journal::open(&journal_path, &header, |found| found.min(spec.total))?;
        loop {
            let done = journal.records().len();
            let progress = Progress {
                step: spec.name,
                done,
                total: spec.total,
            };
            let is_stopped = (self.observe)(&progress).is_break();
            if done >= spec.total {
                break;
            }
            if is_stopped {
                let total = spec.total;
                return Ok(StepOutcome::Stopped { done, total });
            }
            let end = spec.total.min(done + self.save_every.max(1));
            journal.append(make(done..end, begun)?)?;
        }
        let finished = finish(journal.records())?;
        for (stem, records) in finished.files {
            let path = self.file(&stem);
            write_records(&path, &records)?;
            let file = FileEntry {
                sha256: sha256_of(&path)?,
                rows: records.len(),
            };
            entry.outputs.insert(name_in(self.dir, &path), file);
        }
        entry.counts = finished.counts;
        for made in journal.records() {
            entry.usage += made.usage;
        }
        manifest.set_step(spec.name, &entry);
        manifest.save(self.dir)?;
        drop(journal);
        // What it held is in the files; a rest of it would only be read again.
        let _ = fs::remove_file(&journal_path);
        Ok(StepOutcome::Done(entry))
    }

    /// Does a step that looks at all of its input at once, unless it is done.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_at_once(
        &mut self,
        spec: &StepSpec<'_>,
        finish: impl FnOnce() -> Result<Finished, MagpieError>,
    ) -> Result<StepOutcome, MagpieError> {
        self.run(spec, |_, _| Ok(Vec::new()), |_| finish())
    }

    /// Hashes of the inputs, by their names.
    fn inputs(&self, paths: &[PathBuf]) -> Result<BTreeMap<String, FileEntry>, MagpieError> {
        let entries = paths.iter().map(|path| {
            let sha256 = sha256_of(path)?;
            let rows = read_values(path)?.len();
            Ok((name_in(self.dir, path), FileEntry { sha256, rows }))
        });
        entries.collect()
    }

    /// Whether all files of a step are there and as it left them.
    fn is_whole(&self, entry: &StepEntry) -> Result<bool, MagpieError> {
        for (name, file) in &entry.outputs {
            let path = self.dir.join(name);
            if !path.exists() || sha256_of(&path)? != file.sha256 {
                return Ok(false);
            }
        }
        Ok(!entry.outputs.is_empty())
    }
}

/// A file's name from within the folder, or its whole path.
fn name_in(dir: &Path, path: &Path) -> String {
    let name = path.strip_prefix(dir).unwrap_or(path);
    name.display().to_string()
}

/// Everything that the rows of a step depend on.
fn header(spec: &StepSpec<'_>, inputs: &BTreeMap<String, FileEntry>) -> Value {
    header_of(spec.name, &spec.settings, inputs)
}

fn header_of(step: &str, settings: &Value, inputs: &BTreeMap<String, FileEntry>) -> Value {
    let mut header = json!({ "step": step });
    let fields = settings.as_object().into_iter().flatten();
    for (field, value) in fields {
        header[field] = value.clone();
    }
    for (name, input) in inputs {
        header[format!("sha256 of {name}")] = json!(input.sha256);
    }
    header
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten rows of their own numbers, stopped after `stop_after` calls.
    fn count(
        dir: &Path,
        inputs: &[PathBuf],
        factor: u64,
        stop_after: usize,
    ) -> Result<StepOutcome, String> {
        let mut calls = 0;
        let mut observe = |_: &Progress<'_>| {
            calls += 1;
            if calls > stop_after {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let mut workplace = Workplace {
            dir,
            overwrite: false,
            ending: "jsonl",
            save_every: 3,
            observe: &mut observe,
        };
        let spec = StepSpec {
            name: "count",
            inputs,
            settings: json!({ "factor": factor }),
            total: 10,
        };
        let make = |rows: Range<usize>, _| {
            let made = rows.map(|row| {
                let mut record = Record::default();
                record.set("instruction", (row as u64 * factor).to_string());
                Made {
                    record,
                    ..Made::default()
                }
            });
            Ok(made.collect())
        };
        let finish = |made: &[Made]| {
            let records = made.iter().map(|made| made.record.clone()).collect();
            Ok(Finished {
                files: vec![("numbers".to_owned(), records)],
                counts: Map::new(),
            })
        };
        let dir = format!("{}/", dir.display());
        let outcome = workplace.run(&spec, make, finish);
        outcome.map_err(|error| {
            error
                .to_string()
                .replace(&dir, "")
                .replace(dir.trim_end_matches('/'), "DIR")
        })
    }

    /// Stopped twice, with a torn line left behind, the file is that of one go; then nothing is
    /// done again.
    #[test]
    fn a_step_that_was_stopped_ends_in_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
        assert!(matches!(
            count(&whole, &[], 2, 99),
            Ok(StepOutcome::Done(_))
        ));
        let outcome = StepOutcome::Stopped { done: 3, total: 10 };
        assert_eq!(count(&stopped, &[], 2, 1), Ok(outcome));
        let partial = stopped.join("count.partial.jsonl");
        let text = fs::read_to_string(&partial).unwrap() + "{\"record\":{\"instr";
        fs::write(&partial, text).unwrap();
        let outcome = StepOutcome::Stopped { done: 6, total: 10 };
        assert_eq!(count(&stopped, &[], 2, 1), Ok(outcome));
        assert!(matches!(
            count(&stopped, &[], 2, 99),
            Ok(StepOutcome::Done(_))
        ));
        let bytes = |dir: &Path| fs::read(dir.join("numbers.jsonl")).unwrap();
        assert_eq!(bytes(&whole), bytes(&stopped));
        assert!(!partial.exists());
        let outcome = count(&stopped, &[], 2, 99);
        assert!(
            matches!(outcome, Ok(StepOutcome::WasDone(_))),
            "{outcome:?}"
        );
        fs::write(stopped.join("numbers.jsonl"), "").unwrap();
        assert!(matches!(
            count(&stopped, &[], 2, 99),
            Ok(StepOutcome::Done(_))
        ));
        assert_eq!(bytes(&whole), bytes(&stopped));
    }

    #[test]
    fn other_settings_and_other_inputs_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("work");
        let input = folder.path().join("in.jsonl");
        fs::write(&input, "{\"instruction\": \"a\"}\n").unwrap();
        let inputs = [input.clone()];
        count(&dir, &inputs, 2, 1).unwrap();
        let error = count(&dir, &inputs, 3, 99).unwrap_err();
        assert_eq!(
            error,
            "DIR: count was done with factor = 2, expected 3 (--overwrite does it again, --out names \
             another folder)"
        );
        fs::write(&input, "{\"instruction\": \"b\"}\n").unwrap();
        let error = count(&dir, &inputs, 2, 99).unwrap_err();
        assert!(
            error.starts_with("DIR: count was done with sha256 of "),
            "{error}"
        );
    }
}
