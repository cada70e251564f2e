//! The exam of a training config: read once, put to the model whenever the loop asks.

use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};
use eval::engine::Engine;
use eval::exam::folder::{Exam, ExamKind, Split, read_exam};
use eval::exam::method::Method;
use eval::exam::prompt::Style;
use eval::exam::sit::{SitConfig, sit};
use eval::stats::Rate;
use train::config::{ExamFolder, ExamSection, ExamStyle};
use train::examiner::{ExamScore, Examiner};

/// The examiner that `[exam]` asks for; `None` where it names no folder.
///
/// # Errors
///
/// An exam that cannot be read, or has no answers.
pub fn examiner(section: &ExamSection) -> Result<Option<Examiner>> {
    if section.path.as_os_str().is_empty() {
        return Ok(None);
    }
    let (kind, split) = match section.kind {
        ExamFolder::Ceval => (ExamKind::Ceval, Split::Val),
        ExamFolder::Cmmlu => (ExamKind::Cmmlu, Split::Test),
        ExamFolder::Choices => (ExamKind::Folder, Split::Val),
    };
    let mut exam = read_exam(kind, &section.path, split, &[])?;
    keep_answered(&mut exam);
    ensure!(
        exam.has_answers(),
        "exam.path: found no answer in {}, expected some to score by",
        section.path.display()
    );
    if section.max_questions > 0 {
        thin(&mut exam, section.max_questions);
    }
    let config = SitConfig {
        style: match section.style {
            ExamStyle::Harness => Style::Harness,
            ExamStyle::Minimind => Style::Minimind,
            ExamStyle::Chat => Style::Chat,
        },
        num_shots: 0,
        permute: false,
        options: false,
        max_written_tokens: 0,
    };
    Ok(Some(Examiner::new(move |model, tokenizer| {
        let engine = Engine::new(model.clone(), tokenizer.clone());
        let mut replies = Vec::new();
        let never = AtomicBool::new(false);
        sit(&engine, &exam, &config, &mut replies, &never, |_| {})?;
        let right = replies.iter().filter(|reply| {
            let choice = Method::Letters.choose(reply);
            let place = choice.and_then(|choice| choice.place);
            place.is_some() && place == reply.answer
        });
        let rate = Rate::new(right.count(), replies.len());
        Ok(ExamScore {
            exam: exam.name.clone(),
            num_right: rate.num_right,
            num_total: rate.num_total,
            accuracy: rate.share,
            low: rate.low,
            high: rate.high,
        })
    })))
}

/// Keeps the questions that can be right or wrong.
fn keep_answered(exam: &mut Exam) {
    for subject in &mut exam.subjects {
        let questions = &mut subject.questions;
        questions.retain(|question| question.answer.is_some());
    }
    exam.subjects
        .retain(|subject| !subject.questions.is_empty());
}

/// Keeps this many questions, evenly spread over the exam.
fn thin(exam: &mut Exam, most: usize) {
    let total = exam.num_questions();
    if total <= most {
        return;
    }
    let mut place = 0;
    for subject in &mut exam.subjects {
        subject.questions.retain(|_| {
            place += 1;
            place * most / total > (place - 1) * most / total
        });
    }
    exam.subjects
        .retain(|subject| !subject.questions.is_empty());
}
