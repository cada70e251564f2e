//! `[exam]`: the exam that a model sits while it learns.

use std::path::PathBuf;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

/// `[exam]`: what the model is asked while it learns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct ExamSection {
    /// Folder of the exam's CSV files, with val/ or test/ in it; empty: there is no exam.
    pub path: PathBuf,
    /// What the folder holds: "ceval" and "cmmlu" are checked against the published files,
    /// "choices" are any files like theirs.
    pub kind: ExamFolder,
    /// Whose prompts: "harness" (lm-eval's, plain text), "minimind" or "chat" (in the chat
    /// template).
    pub style: ExamStyle,
    /// Optimizer steps between two sittings; 0 examines only at the end of the run.
    pub every_steps: usize,
    /// Questions per sitting at most, evenly drawn from all subjects; 0 asks all.
    pub max_questions: usize,
}

/// Which exam a folder is said to hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExamFolder {
    /// C-Eval, its val split.
    Ceval,
    /// CMMLU, its test split.
    Cmmlu,
    /// Whatever CSV files there are, in val/ where there is such a folder.
    #[default]
    Choices,
}

/// Whose prompts an exam uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExamStyle {
    /// lm-eval's, without a template.
    #[default]
    Harness,
    /// MiniMind's, in the chat template.
    Minimind,
    /// A plain user turn in the chat template.
    Chat,
}
