//! Instructions out of nothing: a chat model is given the beginning of a user's turn and writes it.
//!
//! Source: Xu et al. 2024, arXiv:2406.08464, section 2.1.

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::clean::Sanitizer;
use super::completer::{Ask, Completer, CompletionRequest, Finish, FirstToken, Sampling, Usage};
use super::domains::Domain;
use super::error::MagpieError;
use super::manifest::{as_json, counted};
use super::range::{check, check_sampling};
use super::record::Record;
use super::seed::{Purpose, request_seed};
use super::work::{Finished, Made, StepOutcome, StepSpec, Workplace};
use crate::chat::Message;

/// Name of the step.
pub const STEP: &str = "generate";

/// Stem of the file of instructions.
pub const FILE: &str = "instructions";

/// `[generate]`: how instructions are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateSection {
    /// Instructions to make, exactly (times `scale`).
    pub total: usize,
    /// Multiplies `total`, as in 0.1 for a tenth of a recipe: the product is rounded to tens and at
    /// least 10. 1 leaves `total` as it is.
    pub scale: f64,
    /// Fields that questions are about, taken in turn: algebra, applied-mathematics, calculus,
    /// discrete-mathematics, geometry, number-theory, statistics, math, code or translation; empty
    /// leaves the model its own.
    pub domains: Vec<String>,
    /// System prompt of your own before every question; empty for none (or that of a domain).
    pub system_prompt: String,
    /// Spread of the draws; 0 takes the likeliest token, which gives one question many times.
    pub temperature: f64,
    /// Share of probability that is drawn from, above 0 and at most 1 (all).
    pub top_p: f64,
    /// Tokens of an instruction at most.
    pub max_tokens: usize,
    /// Whether an instruction ends at its first line end, as Magpie's do by default; questions of
    /// several lines are cut by it.
    pub stop_at_newline: bool,
    /// Whether the word "assistant" ends an instruction, as with Magpie; it cuts questions that
    /// have the word in them.
    pub stop_at_assistant: bool,
    /// First token: "plain", "no_markdown" (no `#` to `####`) or "flaming" (logits divided by 1.2).
    pub first_token: FirstToken,
    /// What is taken off: "none", "fixed" (labels, quotes, answers), or Magpie's "llama3" and
    /// "gemma2" with their slips.
    pub sanitizer: Sanitizer,
    /// Unix time written into every row; 0 is the time at which the step began.
    pub created: u64,
}

impl Default for GenerateSection {
    fn default() -> Self {
        Self {
            total: 1000,
            scale: 1.0,
            domains: Vec::new(),
            system_prompt: String::new(),
            temperature: 1.0,
            top_p: 1.0,
            max_tokens: 512,
            stop_at_newline: false,
            stop_at_assistant: false,
            first_token: FirstToken::Plain,
            sanitizer: Sanitizer::Fixed,
            created: 0,
        }
    }
}

impl GenerateSection {
    /// Compares fields with their ranges.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), MagpieError> {
        check("generate.total", self.total, self.total > 0, "at least 1")?;
        let is_scale = self.scale.is_finite() && self.scale > 0.0;
        check("generate.scale", self.scale, is_scale, "above 0")?;
        check_sampling(
            [
                "generate.temperature",
                "generate.top_p",
                "generate.max_tokens",
            ],
            self.temperature,
            self.top_p,
            self.max_tokens,
        )?;
        let both = !self.domains.is_empty() && !self.system_prompt.is_empty();
        check(
            "generate.system_prompt",
            "given",
            !both,
            "nothing while generate.domains are given",
        )?;
        for name in &self.domains {
            Domain::named(name)?;
        }
        Ok(())
    }

    /// Instructions that are made.
    pub fn num_rows(&self) -> usize {
        if (self.scale - 1.0).abs() < f64::EPSILON {
            return self.total;
        }
        let tens = (self.total as f64 * self.scale / 10.0).round() as usize;
        (10 * tens).max(10)
    }

    /// Domain and system prompt of a row.
    fn topic(&self, row: usize) -> Result<Topic, MagpieError> {
        let Some(name) = self.domains.get(row % self.domains.len().max(1)) else {
            return Ok(Topic {
                domain: None,
                system: self.system_prompt.clone(),
            });
        };
        let domain = Domain::named(name)?;
        Ok(Topic {
            domain: Some(domain.name),
            system: domain.system.to_owned(),
        })
    }

    pub(super) fn sampling(&self, completer: &dyn Completer) -> Sampling {
        let mut stop = completer.stop_tokens();
        if self.stop_at_newline {
            stop.push("\n".to_owned());
        }
        if self.stop_at_assistant {
            let words = ["assistant", "Assistant", "ASSISTANT"];
            stop.extend(words.map(str::to_owned));
        }
        Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            repetition_penalty: 1.0,
            max_tokens: self.max_tokens,
            stop,
            first_token: self.first_token,
            as_json_object: false,
        }
    }
}

struct Topic {
    domain: Option<&'static str>,
    system: String,
}

impl Topic {
    fn messages(&self) -> Vec<Message> {
        if self.system.is_empty() {
            return Vec::new();
        }
        vec![Message::new("system", &self.system)]
    }
}

/// Makes exactly `total` instructions, with ids from 0.
///
/// # Errors
///
/// A setting out of range, a model that cannot be asked, a folder that cannot be used.
pub fn generate(
    section: &GenerateSection,
    seed: u64,
    completer: &dyn Completer,
    workplace: &mut Workplace<'_>,
) -> Result<StepOutcome, MagpieError> {
    section.validate()?;
    let mut settings = as_json(section);
    settings["seed"] = json!(seed);
    settings["model"] = json!(completer.fingerprint());
    let spec = StepSpec {
        name: STEP,
        inputs: &[],
        settings,
        total: section.num_rows(),
    };
    let sampling = section.sampling(completer);
    let make = |rows: std::ops::Range<usize>, begun: u64| {
        let created = if section.created == 0 {
            begun
        } else {
            section.created
        };
        let topics: Vec<Topic> = rows
            .clone()
            .map(|row| section.topic(row))
            .collect::<Result<_, _>>()?;
        let requests: Vec<CompletionRequest> = rows
            .clone()
            .zip(&topics)
            .map(|(row, topic)| CompletionRequest {
                ask: Ask::UserTurn(topic.messages()),
                seed: request_seed(seed, Purpose::Instruction(1), row as u64),
            })
            .collect();
        let completions = completer.complete(&requests, &sampling)?;
        let mut made = Vec::with_capacity(rows.len());
        for ((row, topic), (request, completion)) in
            rows.zip(&topics).zip(requests.iter().zip(completions))
        {
            let pre_query = completer.prompt_text(&request.ask)?.unwrap_or_default();
            let (text, is_terminated, fault, usage) = match completion {
                Ok(completion) => (
                    completion.text,
                    completion.finish == Finish::Stop,
                    None,
                    completion.usage,
                ),
                Err(fault) => (
                    String::new(),
                    false,
                    Some(fault.to_string()),
                    Usage::default(),
                ),
            };
            let mut config = json!({
                "temperature": section.temperature,
                "top_p": section.top_p,
                "input_generator": completer.name(),
                "seed": seed,
            });
            if let Some(domain) = topic.domain {
                config["domain"] = json!(domain);
            }
            let mut record = Record::default();
            record.set("id", row);
            record.set("pre_query_template", pre_query);
            set_instruction(&mut record, text.trim(), section.sanitizer);
            record.set("response", Value::Null);
            record.set("created", created);
            record.set("gen_input_configs", config);
            record.set("gen_response_configs", Value::Null);
            made.push(Made {
                record,
                is_terminated,
                fault,
                usage,
            });
        }
        Ok(made)
    };
    workplace.run(&spec, make, |made| {
        let records = made.iter().map(|made| made.record.clone()).collect();
        Ok(Finished {
            files: vec![(FILE.to_owned(), records)],
            counts: shares(made),
        })
    })
}

/// The instruction, with what it was before if a sanitizer is on.
fn set_instruction(record: &mut Record, text: &str, sanitizer: Sanitizer) {
    if sanitizer == Sanitizer::None {
        record.set("instruction", text);
        return;
    }
    let (cleaned, class) = sanitizer.clean(text);
    record.set("raw_instruction", text);
    record.set("instruction", cleaned);
    record.set("instruction_sanitize_class_num", class);
}

/// How many instructions there are, are not empty, ended by themselves and are no repetition.
fn shares(made: &[Made]) -> Map<String, Value> {
    let instructions = || made.iter().map(|made| made.record.instruction());
    let non_empty = instructions().filter(|text| !text.is_empty()).count();
    let unique: std::collections::BTreeSet<&str> =
        instructions().filter(|text| !text.is_empty()).collect();
    let terminated = made.iter().filter(|made| made.is_terminated).count();
    let faults = made.iter().filter(|made| made.fault.is_some()).count();
    counted([
        ("rows", made.len()),
        ("non_empty", non_empty),
        ("terminated", terminated),
        ("unique", unique.len()),
        ("faults", faults),
    ])
}
