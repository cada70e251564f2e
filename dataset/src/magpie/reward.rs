//! How good an answer is, as a number: by a judge that is asked, or by whatever the caller has.

use std::rc::Rc;

use serde_json::Value;

use super::completer::{Ask, Completer, CompleterError, CompletionRequest, Usage};
use super::judgement::{judgement_sampling, object_in};
use super::seed::{Purpose, request_seed};
use crate::chat::Message;

/// An answer that is to be weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered<'a> {
    /// Number of its row, which the judge's seed is made of.
    pub row: u64,
    /// What was asked.
    pub instruction: &'a str,
    /// What was answered.
    pub response: &'a str,
}

/// Something that gives answers a number, higher for better ones.
pub trait Reward {
    /// Its name, for records.
    fn name(&self) -> String;

    /// What its numbers depend on: a step goes on only with the same.
    fn fingerprint(&self) -> String {
        self.name()
    }

    /// A number for each answer, in their order; `None` where there is none. An answer's number does
    /// not depend on which others are asked for with it.
    ///
    /// # Errors
    ///
    /// A model that cannot be asked at all.
    fn score(&self, answers: &[Answered<'_>]) -> Result<(Vec<Option<f64>>, Usage), CompleterError>;
}

/// A chat model that is asked for a grade from 1 to 10.
pub struct Judge {
    completer: Rc<dyn Completer>,
    seed: u64,
    max_tokens: usize,
}

impl Judge {
    /// A judge that writes at most so many tokens per grade.
    pub fn new(completer: Rc<dyn Completer>, seed: u64, max_tokens: usize) -> Self {
        Self {
            completer,
            seed,
            max_tokens,
        }
    }
}

/// The place of a judge's grades among its questions.
const GRADE: u64 = 100;

impl Reward for Judge {
    fn name(&self) -> String {
        self.completer.name().to_owned()
    }

    fn fingerprint(&self) -> String {
        self.completer.fingerprint()
    }

    fn score(&self, answers: &[Answered<'_>]) -> Result<(Vec<Option<f64>>, Usage), CompleterError> {
        let requests: Vec<CompletionRequest> = answers
            .iter()
            .map(|answer| CompletionRequest {
                ask: Ask::AssistantTurn(vec![Message::new("user", grade_prompt(answer))]),
                seed: request_seed(self.seed, Purpose::Judgement(GRADE), answer.row),
            })
            .collect();
        let sampling = judgement_sampling(&*self.completer, self.max_tokens, true);
        let mut usage = Usage::default();
        let grades = self.completer.complete(&requests, &sampling)?.into_iter();
        let grades = grades.map(|grade| {
            let grade = grade.ok()?;
            usage += grade.usage;
            let object = object_in(&grade.text)?;
            let number = object.get("grade").and_then(Value::as_f64);
            number.filter(|number| (1.0..=10.0).contains(number))
        });
        Ok((grades.collect(), usage))
    }
}

fn grade_prompt(answer: &Answered<'_>) -> String {
    let Answered {
        instruction,
        response,
        ..
    } = answer;
    format!(
        "Grade how well the answer serves the one who asked: is it correct, complete, clear, and \
         about what was asked? 1 is useless, 10 could not be better.\n\n## Request\n{instruction}\n\n\
         ## Answer\n{response}\n\nReply with nothing but a JSON object: {{\"grade\": number}}"
    )
}
