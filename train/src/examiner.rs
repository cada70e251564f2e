//! Exams on the way: whoever starts a run may put questions to the model while it learns.
//!
//! What is asked is not this room's business: it knows when an exam is due and where its score goes.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use dataset::Tokenizer;
use model::CausalLm;
use serde::Serialize;

/// Right answers of one sitting, with what they leave open.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExamScore {
    /// Name of the exam.
    pub exam: String,
    /// Right answers.
    pub num_right: usize,
    /// Questions.
    pub num_total: usize,
    /// Right answers as a share of the questions, from 0 to 1.
    pub accuracy: f64,
    /// Lower end of the share's 95 % confidence interval.
    pub low: f64,
    /// Upper end of the share's 95 % confidence interval.
    pub high: f64,
}

/// Why a model could not be examined.
pub type ExaminerError = Box<dyn Error + Send + Sync>;

type Sit = dyn Fn(&CausalLm, &Tokenizer) -> Result<ExamScore, ExaminerError> + Send + Sync;

/// Puts an exam to a model, outside autodiff.
#[derive(Clone)]
pub struct Examiner(Arc<Sit>);

impl Examiner {
    /// An examiner that asks what this function asks; it must not change the model.
    pub fn new(
        sit: impl Fn(&CausalLm, &Tokenizer) -> Result<ExamScore, ExaminerError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(sit))
    }

    /// The model's score.
    ///
    /// # Errors
    ///
    /// When the exam cannot be put to this model.
    pub fn examine(
        &self,
        model: &CausalLm,
        tokenizer: &Tokenizer,
    ) -> Result<ExamScore, ExaminerError> {
        (self.0)(model, tokenizer)
    }
}

impl fmt::Debug for Examiner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Examiner")
    }
}
