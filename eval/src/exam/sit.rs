//! A model sits an exam: every question is put to it, and what it thinks is written down.

use std::sync::atomic::{AtomicBool, Ordering};

use model::generate::{GenerateConfig, GenerateError, Prompt};
use serde::{Deserialize, Serialize};

use super::folder::Exam;
use super::prompt::{PromptError, Prompter, Style};
use super::question::{Question, Subject};
use crate::engine::{AnswerConfig, Engine};
use crate::score::{ScoreError, score};
use dataset::journal::{Journal, JournalError};

/// Questions of a subject that are put and written down together.
const GROUP: usize = 64;
/// Answers that are written at the same time.
const WRITTEN_TOGETHER: usize = 32;

/// How an exam is sat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SitConfig {
    /// Whose prompts are used.
    pub style: Style,
    /// Solved questions that a prompt shows first.
    pub num_shots: usize,
    /// Ask each question four times, every option once under every letter.
    pub permute: bool,
    /// Score the options' own texts as well.
    pub options: bool,
    /// Tokens of a written answer at most; 0 writes none.
    pub max_written_tokens: usize,
}

/// What a model thinks of one question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Name of the subject.
    pub subject: String,
    /// The question's id in its file.
    pub id: String,
    /// Place of the right option, where it is known.
    pub answer: Option<usize>,
    /// Log-probabilities of the letters A to D, in nats: first as the file has the options, then, if
    /// permuted, with option `(j + turn) % 4` under letter `j`. Empty where none were asked for.
    pub letters: Vec<[f64; 4]>,
    /// Log-probabilities of the options' texts, in nats.
    pub options: Option<[f64; 4]>,
    /// Characters of the options' texts.
    pub num_chars: [usize; 4],
    /// What the model wrote.
    pub written: Option<String>,
    /// Tokens of the prompts that the context had no room for.
    pub num_cut: usize,
}

/// Why an exam was not sat to its end.
#[derive(Debug, thiserror::Error)]
pub enum SitError {
    /// A question cannot be put.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The model cannot be asked.
    #[error("{subject}: {source}")]
    Score {
        /// Subject concerned.
        subject: String,
        /// What is wrong.
        source: ScoreError,
    },
    /// The model cannot write.
    #[error("{subject}: {source}")]
    Generate {
        /// Subject concerned.
        subject: String,
        /// What is wrong.
        source: GenerateError,
    },
    /// The results cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Where a reply goes, and where those of an earlier run come from.
pub trait ReplyBook {
    /// Replies so far, in the order of the exam.
    fn replies(&self) -> &[Reply];

    /// Adds a group of replies.
    ///
    /// # Errors
    ///
    /// When they cannot be kept.
    fn add(&mut self, replies: Vec<Reply>) -> Result<(), JournalError>;
}

impl ReplyBook for Journal<Reply> {
    fn replies(&self) -> &[Reply] {
        self.records()
    }

    fn add(&mut self, replies: Vec<Reply>) -> Result<(), JournalError> {
        self.append(replies)
    }
}

impl ReplyBook for Vec<Reply> {
    fn replies(&self) -> &[Reply] {
        self
    }

    fn add(&mut self, replies: Vec<Reply>) -> Result<(), JournalError> {
        self.extend(replies);
        Ok(())
    }
}

/// Number of the first `num_replies` replies that make whole groups, which are sat at once.
pub fn whole_groups(exam: &Exam, num_replies: usize) -> usize {
    let mut kept = 0;
    for (_, questions) in groups(exam) {
        if kept + questions.len() > num_replies {
            break;
        }
        kept += questions.len();
    }
    kept
}

/// Puts the questions that `book` has no replies to yet; true when it has all of them.
///
/// It ends early when `stop` is set. `on_progress` hears the number of replies after each group. The
/// replies are the same bits however often the exam was interrupted.
///
/// # Errors
///
/// A question that cannot be put, a model that is broken, or a reply that cannot be kept.
pub fn sit(
    engine: &Engine,
    exam: &Exam,
    config: &SitConfig,
    book: &mut impl ReplyBook,
    stop: &AtomicBool,
    mut on_progress: impl FnMut(usize),
) -> Result<bool, SitError> {
    let prompter = Prompter::new(engine, config.style, exam.kind.wording(), config.num_shots)?;
    let mut num_seen = 0;
    for (subject, questions) in groups(exam) {
        num_seen += questions.len();
        if num_seen <= book.replies().len() {
            continue;
        }
        if stop.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let replies = put(engine, &prompter, config, subject, questions)?;
        book.add(replies)?;
        on_progress(num_seen);
    }
    Ok(true)
}

fn groups(exam: &Exam) -> impl Iterator<Item = (&Subject, &[Question])> {
    exam.subjects.iter().flat_map(|subject| {
        let groups = subject.questions.chunks(GROUP);
        groups.map(move |questions| (subject, questions))
    })
}

fn put(
    engine: &Engine,
    prompter: &Prompter<'_>,
    config: &SitConfig,
    subject: &Subject,
    questions: &[Question],
) -> Result<Vec<Reply>, SitError> {
    let mut replies: Vec<Reply> = questions
        .iter()
        .map(|question| Reply {
            subject: subject.info.name.clone(),
            id: question.id.clone(),
            answer: question.answer,
            letters: Vec::new(),
            options: None,
            num_chars: question.options.each_ref().map(|text| text.chars().count()),
            written: None,
            num_cut: 0,
        })
        .collect();
    let score_error = |source| SitError::Score {
        subject: subject.info.name.clone(),
        source,
    };
    if config.style != Style::Cot {
        let num_turns = if config.permute { 4 } else { 1 };
        let turned = questions
            .iter()
            .flat_map(|question| (0..num_turns).map(|turn| question.turned(turn)));
        let requests = turned
            .map(|question| prompter.letters(subject, &question))
            .collect::<Result<Vec<_>, _>>()?;
        let scores = score(&engine.model, &requests).map_err(score_error)?;
        for (reply, scores) in replies.iter_mut().zip(scores.chunks(num_turns)) {
            reply.letters = scores.iter().map(|scores| four(&scores.logps)).collect();
            reply.num_cut += scores.iter().map(|scores| scores.num_cut).sum::<usize>();
        }
    }
    if config.options && config.style != Style::Cot {
        let requests = questions
            .iter()
            .map(|question| prompter.options(subject, question))
            .collect::<Result<Vec<_>, _>>()?;
        let scores = score(&engine.model, &requests).map_err(score_error)?;
        for (reply, scores) in replies.iter_mut().zip(scores) {
            reply.options = Some(four(&scores.logps));
            reply.num_cut += scores.num_cut;
        }
    }
    if config.max_written_tokens > 0 {
        write(engine, prompter, config, subject, questions, &mut replies)?;
    }
    Ok(replies)
}

fn write(
    engine: &Engine,
    prompter: &Prompter<'_>,
    config: &SitConfig,
    subject: &Subject,
    questions: &[Question],
    replies: &mut [Reply],
) -> Result<(), SitError> {
    let answer_config = AnswerConfig {
        generate: GenerateConfig {
            eos_token_id: engine.defaults.generate.eos_token_id.clone(),
            ..GenerateConfig::greedy(config.max_written_tokens)
        },
        stop_strings: Vec::new(),
    };
    let context = engine.model.config().max_position_embeddings;
    let most = context
        .saturating_sub(config.max_written_tokens)
        .max(context / 2);
    let rows = questions
        .chunks(WRITTEN_TOGETHER)
        .zip(replies.chunks_mut(WRITTEN_TOGETHER));
    for (questions, replies) in rows {
        let mut prompts = Vec::with_capacity(questions.len());
        for (question, reply) in questions.iter().zip(&mut *replies) {
            let ids = prompter.written(subject, question)?;
            let num_cut = ids.len().saturating_sub(most);
            reply.num_cut += num_cut;
            prompts.push(Prompt {
                input_ids: ids[num_cut..].to_vec(),
                seed: 0,
            });
        }
        let answers = engine
            .answer_all(&prompts, &answer_config)
            .map_err(|source| SitError::Generate {
                subject: subject.info.name.clone(),
                source,
            })?;
        for (reply, answer) in replies.iter_mut().zip(answers) {
            reply.written = Some(answer.text);
        }
    }
    Ok(())
}

/// Four log-probabilities, rounded to a millionth: short in a file, and the same when read back.
fn four(logps: &[f64]) -> [f64; 4] {
    std::array::from_fn(|place| (logps[place] * 1e6).round() / 1e6)
}
