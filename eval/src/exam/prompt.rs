//! What a model is shown before it answers a question of an exam.

use std::fmt;
use std::fmt::Write as _;

use dataset::chat::{ChatError, ChatTemplate, Message, RenderOptions};
use serde::{Deserialize, Serialize};

use super::question::{LETTERS, Question, Subject};
use crate::chat::Mode;
use crate::engine::Engine;
use crate::score::ScoreRequest;

/// MiniMind's system prompt for exams.
const MINIMIND_SYSTEM: &str = "开始回答问题";

/// Whose prompts are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// MiniMind v1's script: question and options in one line, in the chat template.
    Minimind,
    /// The question as one user turn in the chat template, options below each other.
    Chat,
    /// lm-eval's task: options below each other, the letter after a blank, no chat template.
    Harness,
    /// The model writes down its reasoning, and the letter is read out of the text.
    Cot,
}

/// Whose wording the harness style follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wording {
    /// lm-eval's `ceval-valid`.
    Ceval,
    /// lm-eval's `cmmlu`.
    Cmmlu,
    /// lm-eval's `mmlu`, for any other exam.
    Mmlu,
}

/// Why a question cannot be put to a model.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The style needs what the folder lacks.
    #[error(
        "the tokenizer has no chat template, which --style {style} needs \
         (--style harness does without)"
    )]
    NoTemplate {
        /// The style.
        style: Style,
    },
    /// Letters can only be compared where each is one token.
    #[error("the tokenizer writes the letter {letter} as {num_tokens} tokens, expected one")]
    LetterTokens {
        /// The letter.
        letter: char,
        /// Tokens it is made of.
        num_tokens: usize,
    },
    /// The template does not accept the conversation.
    #[error(transparent)]
    Template(#[from] ChatError),
    /// There are fewer solved questions than asked for.
    #[error("{subject}: found {found} solved questions in dev, expected --shots {expected}")]
    TooFewShots {
        /// Subject concerned.
        subject: String,
        /// Solved questions there are.
        found: usize,
        /// Solved questions asked for.
        expected: usize,
    },
}

/// Makes prompts in one style for one model.
#[derive(Debug)]
pub struct Prompter<'a> {
    engine: &'a Engine,
    style: Style,
    wording: Wording,
    num_shots: usize,
    letter_ids: [u32; 4],
}

impl fmt::Display for Style {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Minimind => "minimind",
            Self::Chat => "chat",
            Self::Harness => "harness",
            Self::Cot => "cot",
        })
    }
}

impl<'a> Prompter<'a> {
    /// Prompts that show `num_shots` solved questions first.
    ///
    /// # Errors
    ///
    /// A tokenizer without a template for a style that needs one, or without tokens for the letters.
    pub fn new(
        engine: &'a Engine,
        style: Style,
        wording: Wording,
        num_shots: usize,
    ) -> Result<Self, PromptError> {
        let needs_template = matches!(style, Style::Minimind | Style::Chat);
        if needs_template && engine.tokenizer.chat_template().is_none() {
            return Err(PromptError::NoTemplate { style });
        }
        let mut letter_ids = [0; 4];
        for (id, letter) in letter_ids.iter_mut().zip(LETTERS) {
            let ids = engine.tokenizer.encode_ordinary(&letter.to_string());
            let [only] = ids[..] else {
                let num_tokens = ids.len();
                return Err(PromptError::LetterTokens { letter, num_tokens });
            };
            *id = only;
        }
        Ok(Self {
            engine,
            style,
            wording,
            num_shots,
            letter_ids,
        })
    }

    /// The prompt whose continuations are the four letters.
    ///
    /// # Errors
    ///
    /// A template that refuses the conversation, or too few solved questions.
    pub fn letters(
        &self,
        subject: &Subject,
        question: &Question,
    ) -> Result<ScoreRequest, PromptError> {
        let shots = self.shots(subject)?;
        if self.style == Style::Harness {
            let text = self.harness_text(subject, shots, question, true);
            let continuations = LETTERS.map(|letter| format!(" {letter}"));
            return Ok(self.pairs(&text, &continuations));
        }
        let prompt = self.chat_ids(shots, question, self.shown_question())?;
        let continuations = self.letter_ids.map(|id| vec![id]);
        Ok(ScoreRequest {
            prompt,
            continuations: continuations.into(),
        })
    }

    /// The prompt whose continuations are the four options' own texts; it does not show the options,
    /// so that nothing but their sense can make one likely.
    ///
    /// # Errors
    ///
    /// As [`letters`](Self::letters).
    pub fn options(
        &self,
        subject: &Subject,
        question: &Question,
    ) -> Result<ScoreRequest, PromptError> {
        if self.style == Style::Harness {
            let text = self.harness_text(subject, &[], question, false);
            let continuations = question.options.each_ref().map(|text| format!(" {text}"));
            return Ok(self.pairs(&text, &continuations));
        }
        let prompt = self.chat_ids(&[], question, |question| question.text.clone())?;
        let options = question.options.iter();
        let continuations = options.map(|text| self.engine.tokenizer.encode_ordinary(text));
        Ok(ScoreRequest {
            prompt,
            continuations: continuations.collect(),
        })
    }

    /// The prompt that a written answer follows.
    ///
    /// # Errors
    ///
    /// As [`letters`](Self::letters).
    pub fn written(&self, subject: &Subject, question: &Question) -> Result<Vec<u32>, PromptError> {
        let shots = self.shots(subject)?;
        let tokenizer = &self.engine.tokenizer;
        match (self.style, tokenizer.chat_template()) {
            (Style::Cot, Some(template)) if Mode::of(self.engine) == Mode::Chat => {
                let mut messages = Vec::new();
                for shot in shots {
                    messages.push(Message::new("user", cot_question(subject, shot)));
                    messages.push(Message::new("assistant", cot_answer(shot)));
                }
                messages.push(Message::new("user", cot_question(subject, question)));
                Ok(tokenizer.encode(&render(template, &messages)?))
            }
            (Style::Cot, _) => {
                let mut text = String::new();
                for shot in shots {
                    let _ = write!(
                        text,
                        "{}\n{}\n\n",
                        cot_question(subject, shot),
                        cot_answer(shot)
                    );
                }
                let _ = write!(
                    text,
                    "{}\n让我们一步一步思考。",
                    cot_question(subject, question)
                );
                Ok(tokenizer.encode(&text))
            }
            (Style::Harness, _) => {
                Ok(tokenizer.encode(&self.harness_text(subject, shots, question, true)))
            }
            (Style::Minimind | Style::Chat, _) => {
                self.chat_ids(shots, question, self.shown_question())
            }
        }
    }

    fn shots<'s>(&self, subject: &'s Subject) -> Result<&'s [Question], PromptError> {
        subject.shots.get(..self.num_shots).ok_or_else(|| {
            let subject_name = subject.info.name.clone();
            PromptError::TooFewShots {
                subject: subject_name,
                found: subject.shots.len(),
                expected: self.num_shots,
            }
        })
    }

    /// How this style writes a question with its options.
    fn shown_question(&self) -> fn(&Question) -> String {
        match self.style {
            Style::Minimind => minimind_question,
            Style::Chat | Style::Harness | Style::Cot => listed,
        }
    }

    /// MiniMind renders the conversation to a text and encodes that as a whole, control tokens and
    /// all, so this does the same.
    fn chat_ids(
        &self,
        shots: &[Question],
        question: &Question,
        ask: fn(&Question) -> String,
    ) -> Result<Vec<u32>, PromptError> {
        let tokenizer = &self.engine.tokenizer;
        let style = self.style;
        let template = tokenizer
            .chat_template()
            .ok_or(PromptError::NoTemplate { style })?;
        let mut messages = Vec::new();
        if style == Style::Minimind {
            messages.push(Message::new("system", MINIMIND_SYSTEM));
        }
        for shot in shots {
            messages.push(Message::new("user", ask(shot)));
            messages.push(Message::new("assistant", letter_of(shot)));
        }
        messages.push(Message::new("user", ask(question)));
        Ok(tokenizer.encode(&render(template, &messages)?))
    }

    fn harness_text(
        &self,
        subject: &Subject,
        shots: &[Question],
        question: &Question,
        shows_options: bool,
    ) -> String {
        let title = &subject.info.title;
        let (mut text, answer) = match self.wording {
            Wording::Ceval => (
                format!("以下是中国关于{title}的单项选择题，请选出其中的正确答案。\n\n"),
                "答案：",
            ),
            Wording::Cmmlu => (
                format!("以下是关于{title}的单项选择题，请直接给出正确答案的选项。\n\n"),
                "答案：",
            ),
            Wording::Mmlu => (
                format!(
                    "The following are multiple choice questions (with answers) about {title}.\n\n"
                ),
                "Answer:",
            ),
        };
        for shot in shots {
            let _ = write!(text, "{}{answer} {}\n\n", listed(shot), letter_of(shot));
        }
        if shows_options {
            text + &listed(question) + answer
        } else {
            format!("{text}{}\n{answer}", question.text.trim())
        }
    }

    /// Encodes a text with each continuation as lm-eval does: together, then cut where the text
    /// alone would end.
    fn pairs(&self, text: &str, continuations: &[String]) -> ScoreRequest {
        let tokenizer = &self.engine.tokenizer;
        let prompt = tokenizer.encode(text);
        let continuations = continuations.iter().map(|continuation| {
            let whole = tokenizer.encode(&format!("{text}{continuation}"));
            whole[prompt.len().min(whole.len())..].to_vec()
        });
        ScoreRequest {
            continuations: continuations.collect(),
            prompt,
        }
    }
}

fn render(template: &ChatTemplate, messages: &[Message]) -> Result<String, ChatError> {
    let options = RenderOptions {
        add_generation_prompt: true,
        ..RenderOptions::default()
    };
    template.render(messages, &options)
}

fn letter_of(question: &Question) -> String {
    question
        .answer
        .map_or_else(String::new, |answer| LETTERS[answer].to_string())
}

fn minimind_question(question: &Question) -> String {
    let [a, b, c, d] = &question.options;
    format!("{}。选择 A: {a}, B: {b}, C: {c}, D: {d}", question.text)
}

/// The question with its options below each other, and a line end.
fn listed(question: &Question) -> String {
    let mut text = format!("{}\n", question.text.trim());
    for (letter, option) in LETTERS.iter().zip(&question.options) {
        let _ = writeln!(text, "{letter}. {option}");
    }
    text
}

fn cot_question(subject: &Subject, question: &Question) -> String {
    format!(
        "以下是关于{}的单项选择题，请一步一步思考，最后以“答案是”加选项字母结束。\n\n{}",
        subject.info.title,
        listed(question).trim_end()
    )
}

fn cot_answer(shot: &Question) -> String {
    let reasoning = shot.explanation.as_deref().unwrap_or_default().trim();
    format!("{reasoning}\n答案是{}。", letter_of(shot))
        .trim_start()
        .to_owned()
}
