//! Answers to instructions, and further turns of question and answer.
//!
//! Source: Xu et al. 2024, arXiv:2406.08464, sections 2.1 and 2.2.

use std::ops::Range;
use std::path::Path;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::completer::{Ask, Completer, CompletionRequest, Finish, FirstToken, Sampling};
use super::error::MagpieError;
use super::instruct::GenerateSection;
use super::manifest::{as_json, counted};
use super::range::{check, check_sampling};
use super::record::{Record, read_records};
use super::seed::{Purpose, request_seed};
use super::work::{Finished, Made, StepOutcome, StepSpec, Workplace};
use crate::chat::Message;
use crate::conversations::Thinking;

/// Name of the step.
pub const STEP: &str = "respond";

/// Stem of the file of answered instructions.
pub const FILE: &str = "responses";

/// `[respond]`: how instructions are answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct RespondSection {
    /// Spread of the draws; 0 takes the likeliest token.
    pub temperature: f64,
    /// Share of probability that is drawn from, above 0 and at most 1 (all).
    pub top_p: f64,
    /// Makes tokens that came already less likely when above 1; 1 is off.
    pub repetition_penalty: f64,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Turns of question and answer in all; those after the first are asked as the first was, after
    /// the conversation so far.
    pub turns: usize,
    /// What becomes of thoughts before an answer (`<think>` to `</think>`): "keep" or "strip".
    pub thinking: Thinking,
}

impl Default for RespondSection {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            max_tokens: 1024,
            turns: 1,
            thinking: Thinking::Keep,
        }
    }
}

impl RespondSection {
    /// Compares fields with their ranges.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), MagpieError> {
        let penalty = self.repetition_penalty;
        let divides = penalty.is_finite() && penalty > 0.0;
        check("respond.repetition_penalty", penalty, divides, "above 0")?;
        check("respond.turns", self.turns, self.turns > 0, "at least 1")?;
        check_sampling(
            ["respond.temperature", "respond.top_p", "respond.max_tokens"],
            self.temperature,
            self.top_p,
            self.max_tokens,
        )
    }

    /// How answers are drawn.
    pub fn sampling(&self, completer: &dyn Completer) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            max_tokens: self.max_tokens,
            stop: completer.stop_tokens(),
            first_token: FirstToken::Plain,
            as_json_object: false,
        }
    }
}

/// Answers every instruction of a file; one that is empty or refused keeps a null. Further turns are
/// asked for as `[generate]` says.
///
/// # Errors
///
/// A setting out of range, a model that cannot be asked, a file or folder that cannot be used.
pub fn respond(
    (section, generate): (&RespondSection, &GenerateSection),
    seed: u64,
    input: &Path,
    completer: &dyn Completer,
    workplace: &mut Workplace<'_>,
) -> Result<StepOutcome, MagpieError> {
    section.validate()?;
    let records = read_records(input)?;
    let mut settings = as_json(section);
    settings["seed"] = json!(seed);
    settings["model"] = json!(completer.fingerprint());
    let asking = generate.sampling(completer);
    if section.turns > 1 {
        settings["generate"] = as_json(generate);
    }
    let spec = StepSpec {
        name: STEP,
        inputs: &[input.to_owned()],
        settings,
        total: records.len(),
    };
    let mut turns = Turns {
        section,
        answering: section.sampling(completer),
        asking,
        seed,
        completer,
    };
    let make = |rows: Range<usize>, _| turns.answer(rows.start, &records[rows]);
    workplace.run(&spec, make, |made| {
        let records = made.iter().map(|made| made.record.clone()).collect();
        Ok(Finished {
            files: vec![(FILE.to_owned(), records)],
            counts: counts(made),
        })
    })
}

struct Turns<'a> {
    section: &'a RespondSection,
    answering: Sampling,
    asking: Sampling,
    seed: u64,
    completer: &'a dyn Completer,
}

impl Turns<'_> {
    /// Rows with their turns added; `first` is the number of the first.
    fn answer(&mut self, first: usize, records: &[Record]) -> Result<Vec<Made>, MagpieError> {
        let mut made: Vec<Made> = records
            .iter()
            .map(|record| Made {
                record: record.clone(),
                is_terminated: !record.instruction().is_empty(),
                ..Made::default()
            })
            .collect();
        for turn in 1..=self.section.turns {
            let fields = Fields::of(turn);
            if turn > 1 {
                let ask = |made: &Made| Ask::UserTurn(history(&made.record, turn - 1));
                self.complete(&mut made, first, turn, &fields.instruction, &ask)?;
            }
            let ask = |made: &Made| {
                let mut messages = history(&made.record, turn - 1);
                messages.push(Message::new("user", made.record.text(&fields.instruction)));
                Ask::AssistantTurn(messages)
            };
            self.complete(&mut made, first, turn, &fields.response, &ask)?;
        }
        Ok(made)
    }

    /// Sets one field of every row whose conversation is whole up to it.
    fn complete(
        &self,
        made: &mut [Made],
        first: usize,
        turn: usize,
        field: &str,
        ask: &dyn Fn(&Made) -> Ask,
    ) -> Result<(), MagpieError> {
        let is_response = field.starts_with("response");
        let (sampling, purpose) = if is_response {
            (&self.answering, Purpose::Response(turn as u64))
        } else {
            (&self.asking, Purpose::Instruction(turn as u64))
        };
        let is_open = |made: &Made| {
            let fields = Fields::of(turn);
            let before =
                (1..turn).all(|turn| !made.record.text(&Fields::of(turn).response).is_empty());
            let asked = !is_response || !made.record.text(&fields.instruction).is_empty();
            before && asked && made.fault.is_none()
        };
        let open: Vec<usize> = (0..made.len()).filter(|&row| is_open(&made[row])).collect();
        let requests: Vec<CompletionRequest> = open
            .iter()
            .map(|&row| CompletionRequest {
                ask: ask(&made[row]),
                seed: request_seed(self.seed, purpose, (first + row) as u64),
            })
            .collect();
        let completions = self.completer.complete(&requests, sampling)?;
        for (row, (request, completion)) in open.into_iter().zip(requests.iter().zip(completions)) {
            let row = &mut made[row];
            match completion {
                Ok(completion) => {
                    let text = completion.text.trim();
                    let text = match self.section.thinking {
                        Thinking::Strip if is_response => without_thoughts(text),
                        _ => text,
                    };
                    row.record.set(field, text);
                    row.is_terminated &= completion.finish == Finish::Stop;
                    row.usage += completion.usage;
                }
                Err(fault) => row.fault = Some(fault.to_string()),
            }
            if field == "response" {
                let prompt = self.completer.prompt_text(&request.ask)?;
                let config = response_config(&self.answering, self.completer, prompt);
                row.record.set("gen_response_configs", config);
            }
        }
        Ok(())
    }
}

/// What was applied, under Magpie's names.
pub(super) fn response_config(
    sampling: &Sampling,
    completer: &dyn Completer,
    prompt: Option<String>,
) -> Value {
    let mut config = Map::new();
    if let Some(prompt) = prompt {
        config.insert("prompt".to_owned(), json!(prompt));
    }
    let applied = json!({
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "repetition_penalty": sampling.repetition_penalty,
        "max_tokens": sampling.max_tokens,
        "stop_tokens": sampling.stop,
        "output_generator": completer.name(),
        "engine": completer.engine(),
    });
    config.extend(applied.as_object().cloned().unwrap_or_default());
    Value::Object(config)
}

/// Names of a turn's fields.
struct Fields {
    instruction: String,
    response: String,
}

impl Fields {
    fn of(turn: usize) -> Self {
        let suffix = if turn == 1 {
            String::new()
        } else {
            format!("_{turn}")
        };
        Self {
            instruction: format!("instruction{suffix}"),
            response: format!("response{suffix}"),
        }
    }
}

/// The first turns of a row as messages.
fn history(record: &Record, num_turns: usize) -> Vec<Message> {
    let turns = (1..=num_turns).map(Fields::of);
    turns
        .flat_map(|fields| {
            [
                Message::new("user", record.text(&fields.instruction)),
                Message::new("assistant", record.text(&fields.response)),
            ]
        })
        .collect()
}

/// What is said after the thoughts; of thoughts without an end nothing is left.
pub(super) fn without_thoughts(text: &str) -> &str {
    match text.rsplit_once("</think>") {
        Some((_, said)) => said.trim(),
        None if text.starts_with("<think>") => "",
        None => text,
    }
}

fn counts(made: &[Made]) -> Map<String, Value> {
    let count = |holds: fn(&Made) -> bool| made.iter().filter(|made| holds(made)).count();
    counted([
        ("rows", made.len()),
        ("answered", count(|made| !made.record.response().is_empty())),
        ("terminated", count(|made| made.is_terminated)),
        ("faults", count(|made| made.fault.is_some())),
    ])
}
