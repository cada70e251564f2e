//! Exams on the way: whoever starts a run may put questions to the model while it learns.
//!
//! What is asked is not this room's business: it knows when an exam is due and where its score goes.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use burn::module::Module;
use dataset::Tokenizer;
use model::CausalLm;
use serde::Serialize;

use crate::report::{ExamReport, Reporter};

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

    /// Reports the score of a model in training, or why it has none.
    pub(crate) fn report_on(
        &self,
        model: &CausalLm,
        tokenizer: &Tokenizer,
        step: u64,
        reporter: &mut Reporter,
    ) {
        // A model outside autodiff: what it thinks leaves no graph behind.
        match (self.0)(&model.valid(), tokenizer) {
            Ok(score) => reporter.record_exam(&ExamReport { step, score }),
            Err(error) => {
                let text = format!("the model cannot be examined: {error}");
                reporter.note(step, &text);
            }
        }
    }
}

impl fmt::Debug for Examiner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Examiner")
    }
}
