//! Several answers to each instruction, weighed.
//!
//! Source: Magpie's `gen_po_multi_res.py` and `gen_po_rewards.py`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::completer::{Ask, Completer, CompletionRequest, Finish, FirstToken, Sampling, Usage};
use super::error::MagpieError;
use super::manifest::{as_json, counted};
use super::prefer::PreferSection;
use super::record::{Record, read_records};
use super::respond::{response_config, without_thoughts};
use super::reward::{Answered, Reward};
use super::seed::{Purpose, request_seed};
use super::work::{Finished, Made, StepOutcome, StepSpec, Workplace};
use crate::chat::Message;
use crate::conversations::Thinking;
use crate::rows::is_rewards;

/// Name of the step.
pub const STEP: &str = "candidates";

/// Stem of the file of weighed answers.
pub const FILE: &str = "candidates";

/// Field of the rewards of several answers.
const REWARDS: &str = "rewards_kindling";

/// Who answers and who weighs.
#[derive(Clone, Copy)]
pub struct Drawers<'a> {
    /// The model that answers.
    pub completer: &'a dyn Completer,
    /// Who gives rewards.
    pub reward: &'a dyn Reward,
    /// What becomes of thoughts before an answer.
    pub thinking: Thinking,
    /// Seed of all draws.
    pub seed: u64,
}

/// Draws several answers to each instruction of a file and weighs them.
///
/// # Errors
///
/// A setting out of range, a model that cannot be asked, a file or folder that cannot be used.
pub fn candidates(
    section: &PreferSection,
    input: &Path,
    drawers: Drawers<'_>,
    workplace: &mut Workplace<'_>,
) -> Result<StepOutcome, MagpieError> {
    let Drawers {
        completer,
        reward,
        thinking,
        seed,
    } = drawers;
    section.validate()?;
    let records = read_records(input)?;
    let mut settings = json!({
        "responses": section.responses,
        "temperature": section.temperature,
        "top_p": section.top_p,
        "max_tokens": section.max_tokens,
    });
    settings["thinking"] = as_json(&thinking);
    settings["seed"] = json!(seed);
    settings["model"] = json!(completer.fingerprint());
    settings["reward_model"] = json!(reward.fingerprint());
    let sampling = Sampling {
        temperature: section.temperature,
        top_p: section.top_p,
        repetition_penalty: 1.0,
        max_tokens: section.max_tokens,
        stop: completer.stop_tokens(),
        first_token: FirstToken::Plain,
        as_json_object: false,
    };
    let drawing = Drawing {
        num_responses: section.responses,
        thinking,
        sampling,
        seed,
        completer,
        reward,
    };
    let spec = StepSpec {
        name: STEP,
        inputs: &[input.to_owned()],
        settings,
        total: records.len(),
    };
    workplace.run(
        &spec,
        |rows, _| drawing.draw(rows.start, &records[rows]),
        |made| {
            let records: Vec<Record> = made.iter().map(|made| made.record.clone()).collect();
            let repeats = records.iter().map(num_repeats).sum::<usize>();
            let counts = counted([("rows", records.len()), ("repeated_responses", repeats)]);
            Ok(Finished {
                files: vec![(FILE.to_owned(), records)],
                counts,
            })
        },
    )
}

/// Answers of a row that are not the first of their text.
fn num_repeats(record: &Record) -> usize {
    let responses = record.responses();
    let texts: BTreeSet<&str> = responses.iter().copied().collect();
    responses.len() - texts.len()
}

struct Drawing<'a> {
    num_responses: usize,
    thinking: Thinking,
    sampling: Sampling,
    seed: u64,
    completer: &'a dyn Completer,
    reward: &'a dyn Reward,
}

impl Drawing<'_> {
    fn draw(&self, first: usize, records: &[Record]) -> Result<Vec<Made>, MagpieError> {
        let ask =
            |record: &Record| Ask::AssistantTurn(vec![Message::new("user", record.instruction())]);
        let mut requests = Vec::with_capacity(records.len() * self.num_responses);
        for (row, record) in (first as u64..).zip(records) {
            for number in 0..self.num_responses as u64 {
                requests.push(CompletionRequest {
                    ask: ask(record),
                    seed: request_seed(self.seed, Purpose::Candidate(number), row),
                });
            }
        }
        let completions = self.completer.complete(&requests, &self.sampling)?;
        let mut made = Vec::with_capacity(records.len());
        for (record, completions) in records.iter().zip(completions.chunks(self.num_responses)) {
            let (mut usage, mut fault, mut is_terminated) = (Usage::default(), None, true);
            let mut responses = Vec::with_capacity(self.num_responses);
            for completion in completions {
                match completion {
                    Ok(completion) => {
                        let text = completion.text.trim();
                        responses.push(match self.thinking {
                            Thinking::Strip => without_thoughts(text),
                            Thinking::Keep => text,
                        });
                        usage += completion.usage;
                        is_terminated &= completion.finish == Finish::Stop;
                    }
                    Err(found) => fault = Some(found.to_string()),
                }
            }
            let prompt = self.completer.prompt_text(&ask(record))?;
            let mut record = record.clone();
            // They are of the answers that go.
            record.0.retain(|name, _| !is_rewards(name));
            record.set("responses", json!(responses));
            let config = response_config(&self.sampling, self.completer, prompt);
            record.set("gen_response_configs", config);
            made.push(Made {
                record,
                is_terminated,
                fault,
                usage,
            });
        }
        self.weigh(first, &mut made)?;
        Ok(made)
    }

    fn weigh(&self, first: usize, made: &mut [Made]) -> Result<(), MagpieError> {
        let answers: Vec<Answered<'_>> = (first as u64..)
            .zip(made.iter())
            .flat_map(|(row, made)| {
                let responses = made.record.responses().into_iter();
                responses.map(move |response| Answered {
                    row,
                    instruction: made.record.instruction(),
                    response,
                })
            })
            .collect();
        let (scores, usage) = self.reward.score(&answers)?;
        let mut scores = scores.into_iter();
        for made in &mut *made {
            let scores = scores.by_ref().take(made.record.responses().len());
            let scores: Vec<Value> = scores.map(|score| json!({ "score": score })).collect();
            made.record.set(REWARDS, scores);
            made.record.set("reward_model", self.reward.name());
        }
        if let Some(made) = made.first_mut() {
            made.usage += usage;
        }
        Ok(())
    }
}
