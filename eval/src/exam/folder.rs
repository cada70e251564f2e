//! Exams on the disk: C-Eval and CMMLU as published and checked, or any folder of their shape.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ceval::{self, CevalSubject, describe_answers};
use super::cmmlu::{self, CmmluSubject};
use super::prompt::Wording;
use super::question::{LETTERS, Question, Subject, SubjectInfo};
use super::read::{QuestionFileError, read_questions};

/// Which exam a folder is said to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExamKind {
    /// C-Eval, 52 subjects in `val/law_val.csv` and the like.
    Ceval,
    /// CMMLU, 67 subjects in `test/law.csv` and the like.
    Cmmlu,
    /// Whatever CSV files there are.
    Folder,
}

/// Which part of an exam is sat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The few solved questions that prompts may show.
    Dev,
    /// Questions with answers to choose models by.
    Val,
    /// Questions to compare models by.
    Test,
}

/// An exam in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exam {
    /// What it is called in results.
    pub name: String,
    /// Which exam it is.
    pub kind: ExamKind,
    /// Which part of it.
    pub split: Split,
    /// By name.
    pub subjects: Vec<Subject>,
}

/// Why an exam cannot be sat.
#[derive(Debug, thiserror::Error)]
pub enum ExamError {
    /// A folder cannot be listed.
    #[error("{}: cannot be listed", path.display())]
    List {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] QuestionFileError),
    /// A subject's file is not there.
    #[error("{}: is missing, expected a file for each of {exam}'s {num_subjects} subjects", path.display())]
    MissingFile {
        /// Where it should be.
        path: PathBuf,
        /// Name of the exam.
        exam: &'static str,
        /// Number of its subjects.
        num_subjects: usize,
    },
    /// A file is of no subject.
    #[error("{}: is no subject of {exam}", path.display())]
    ExtraFile {
        /// The file.
        path: PathBuf,
        /// Name of the exam.
        exam: &'static str,
    },
    /// A file is not the published one.
    #[error("{}: found {found}, expected {expected} as in the published {exam}", path.display())]
    OtherContent {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
        /// Name of the exam.
        exam: &'static str,
    },
    /// There is nothing to ask.
    #[error("{}: holds no CSV file, expected one per subject", path.display())]
    NoSubjects {
        /// The folder.
        path: PathBuf,
    },
    /// A subject was asked for that the exam does not have.
    #[error("--subjects {name}: no such subject, expected some of {known}")]
    UnknownSubject {
        /// What was asked for.
        name: String,
        /// Names there are.
        known: String,
    },
}

impl Split {
    /// Name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

impl ExamKind {
    /// Wording of its prompts in the harness style.
    pub fn wording(self) -> Wording {
        match self {
            Self::Ceval => Wording::Ceval,
            Self::Cmmlu => Wording::Cmmlu,
            Self::Folder => Wording::Mmlu,
        }
    }

    /// Name of its file of a subject.
    fn file_name(self, subject: &str, split: Split) -> String {
        match self {
            Self::Cmmlu => format!("{subject}.csv"),
            Self::Ceval | Self::Folder => format!("{subject}_{}.csv", split.name()),
        }
    }

    fn path(self, dir: &Path, subject: &str, split: Split) -> PathBuf {
        let file = self.file_name(subject, split);
        dir.join(split.name()).join(file)
    }
}

impl Exam {
    /// Questions of all subjects.
    pub fn num_questions(&self) -> usize {
        let subjects = self.subjects.iter();
        subjects.map(|subject| subject.questions.len()).sum()
    }

    /// Whether the split's answers are known.
    pub fn has_answers(&self) -> bool {
        let mut questions = self.subjects.iter().flat_map(|subject| &subject.questions);
        questions.any(|question| question.answer.is_some())
    }
}

/// Reads a split of an exam, of all subjects or of those named; solved questions come from its dev
/// folder where there is one.
///
/// # Errors
///
/// A file that is missing, broken, of no subject or not the published one, or a name that is no
/// subject.
pub fn read_exam(
    kind: ExamKind,
    dir: &Path,
    split: Split,
    only: &[String],
) -> Result<Exam, ExamError> {
    match kind {
        ExamKind::Ceval => {
            let known: Vec<SubjectInfo> = ceval::SUBJECTS.iter().map(CevalSubject::info).collect();
            let exam = read_published(kind, "C-Eval", dir, split, only, &known)?;
            for subject in &exam.subjects {
                check_ceval(dir, split, subject)?;
            }
            Ok(exam)
        }
        ExamKind::Cmmlu => {
            let known: Vec<SubjectInfo> = cmmlu::SUBJECTS.iter().map(CmmluSubject::info).collect();
            let exam = read_published(kind, "CMMLU", dir, split, only, &known)?;
            for subject in &exam.subjects {
                check_cmmlu(dir, split, subject)?;
            }
            Ok(exam)
        }
        ExamKind::Folder => read_folder(dir, split, only),
    }
}

fn read_published(
    kind: ExamKind,
    name: &'static str,
    dir: &Path,
    split: Split,
    only: &[String],
    known: &[SubjectInfo],
) -> Result<Exam, ExamError> {
    let chosen = choose(known, only)?;
    let folder = dir.join(split.name());
    for path in csv_files(&folder)? {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let is_known = |info: &SubjectInfo| kind.file_name(&info.name, split) == file;
        if !known.iter().any(is_known) {
            return Err(ExamError::ExtraFile { path, exam: name });
        }
    }
    let mut subjects = Vec::with_capacity(chosen.len());
    for info in chosen {
        let path = kind.path(dir, &info.name, split);
        if !path.exists() {
            return Err(ExamError::MissingFile {
                path,
                exam: name,
                num_subjects: known.len(),
            });
        }
        let questions = read_questions(&path)?;
        let shots = shots_of(kind, dir, &info.name)?;
        subjects.push(Subject {
            info,
            questions,
            shots,
        });
    }
    Ok(Exam {
        name: name.to_owned(),
        kind,
        split,
        subjects,
    })
}

fn read_folder(dir: &Path, split: Split, only: &[String]) -> Result<Exam, ExamError> {
    let kind = ExamKind::Folder;
    let folder = dir.join(split.name());
    let folder = if folder.is_dir() { &folder } else { dir };
    let suffix = format!("_{}", split.name());
    let files: Vec<(SubjectInfo, PathBuf)> = csv_files(folder)?
        .into_iter()
        .map(|path| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let name = stem.strip_suffix(&suffix).unwrap_or(&stem).to_owned();
            let info = SubjectInfo {
                title: name.replace('_', " "),
                name,
                category: None,
                group: None,
            };
            (info, path)
        })
        .collect();
    if files.is_empty() {
        let path = folder.to_owned();
        return Err(ExamError::NoSubjects { path });
    }
    let known: Vec<SubjectInfo> = files.iter().map(|(info, _)| info.clone()).collect();
    let chosen = choose(&known, only)?;
    let mut subjects = Vec::with_capacity(chosen.len());
    for (info, path) in files {
        if chosen.contains(&info) {
            let shots = shots_of(kind, dir, &info.name)?;
            subjects.push(Subject {
                questions: read_questions(&path)?,
                info,
                shots,
            });
        }
    }
    let name = dir.file_name().unwrap_or(dir.as_os_str());
    Ok(Exam {
        name: name.to_string_lossy().into_owned(),
        kind,
        split,
        subjects,
    })
}

fn choose(known: &[SubjectInfo], only: &[String]) -> Result<Vec<SubjectInfo>, ExamError> {
    for name in only {
        if !known.iter().any(|info| info.name == *name) {
            let names: Vec<&str> = known.iter().map(|info| info.name.as_str()).collect();
            return Err(ExamError::UnknownSubject {
                name: name.clone(),
                known: names.join(", "),
            });
        }
    }
    let is_chosen = |info: &&SubjectInfo| only.is_empty() || only.contains(&info.name);
    Ok(known.iter().filter(is_chosen).cloned().collect())
}

/// Solved questions of a subject; none where the exam has no dev folder.
fn shots_of(kind: ExamKind, dir: &Path, subject: &str) -> Result<Vec<Question>, ExamError> {
    let folder = dir.join(Split::Dev.name());
    let names = [
        kind.file_name(subject, Split::Dev),
        format!("{subject}.csv"),
    ];
    let mut paths = names.iter().map(|name| folder.join(name));
    match paths.find(|path| path.exists()) {
        Some(path) => Ok(read_questions(&path)?),
        None => Ok(Vec::new()),
    }
}

/// The folder's CSV files by name.
fn csv_files(folder: &Path) -> Result<Vec<PathBuf>, ExamError> {
    let error = |source| ExamError::List {
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if path.extension().is_some_and(|ending| ending == "csv") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn check_ceval(dir: &Path, split: Split, subject: &Subject) -> Result<(), ExamError> {
    let rows = ceval::SUBJECTS.iter();
    let Some(published) = rows.into_iter().find(|row| row.name == subject.info.name) else {
        return Ok(());
    };
    let num_questions = subject.questions.len();
    let (found, expected) = match split {
        Split::Val => (
            describe(num_questions, Some(answers_of(&subject.questions))),
            describe(published.num_val(), Some(published.val_answers)),
        ),
        Split::Test => (
            describe(num_questions, None),
            describe(published.num_test, None),
        ),
        Split::Dev => (
            describe(num_questions, None),
            describe(ceval::NUM_DEV, None),
        ),
    };
    let path = ExamKind::Ceval.path(dir, &subject.info.name, split);
    same_or(path, "C-Eval", found, expected)
}

fn check_cmmlu(dir: &Path, split: Split, subject: &Subject) -> Result<(), ExamError> {
    let mut rows = cmmlu::SUBJECTS.iter();
    let published = rows.find(|row| row.name == subject.info.name);
    let (Split::Test, Some(published)) = (split, published) else {
        return Ok(());
    };
    let found = describe(subject.questions.len(), None);
    let expected = describe(published.num_test, None);
    let path = ExamKind::Cmmlu.path(dir, &subject.info.name, split);
    same_or(path, "CMMLU", found, expected)
}

fn same_or(
    path: PathBuf,
    exam: &'static str,
    found: String,
    expected: String,
) -> Result<(), ExamError> {
    if found == expected {
        return Ok(());
    }
    Err(ExamError::OtherContent {
        path,
        found,
        expected,
        exam,
    })
}

fn answers_of(questions: &[Question]) -> [usize; 4] {
    let mut counts = [0; LETTERS.len()];
    for answer in questions.iter().filter_map(|question| question.answer) {
        counts[answer] += 1;
    }
    counts
}

fn describe(num_questions: usize, answers: Option<[usize; 4]>) -> String {
    match answers {
        Some(answers) => format!(
            "{num_questions} questions (answers {})",
            describe_answers(answers)
        ),
        None => format!("{num_questions} questions"),
    }
}
