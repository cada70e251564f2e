//! Tags of instructions and answers, by a judge, a reward and a language detector.

use std::path::Path;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::completer::{Ask, Completer, CompletionRequest};
use super::error::MagpieError;
pub use super::judgement::Mission;
use super::judgement::judgement_sampling;
use super::language::language_of;
use super::manifest::as_json;
use super::range::check;
use super::record::{Record, read_records};
use super::reward::{Answered, Reward};
use super::seed::{Purpose, request_seed};
use super::work::{Finished, Made, StepOutcome, StepSpec, Workplace};

/// Name of the step.
pub const STEP: &str = "tag";

/// Stem of the file of tagged rows.
pub const FILE: &str = "tags";

/// `[tag]`: which tags are given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct TagSection {
    /// Tags: difficulty, quality, category, safety (asked of the judge), reward (of `reward` below)
    /// and language (of a detector, without a model).
    pub missions: Vec<Mission>,
    /// Tokens of a judge's reply at most.
    pub max_tokens: usize,
}

impl Default for TagSection {
    fn default() -> Self {
        Self {
            missions: vec![Mission::Reward, Mission::Language],
            max_tokens: 512,
        }
    }
}

impl TagSection {
    /// Compares fields with their ranges.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), MagpieError> {
        check(
            "tag.max_tokens",
            self.max_tokens,
            self.max_tokens > 0,
            "at least 1",
        )
    }

    /// Whether a judge must be asked for any tag but the reward.
    pub fn needs_judge(&self) -> bool {
        let asked = [
            Mission::Difficulty,
            Mission::Quality,
            Mission::Category,
            Mission::Safety,
        ];
        self.missions.iter().any(|mission| asked.contains(mission))
    }
}

/// Who gives tags.
#[derive(Clone, Copy, Default)]
pub struct Judges<'a> {
    /// Who is asked for words.
    pub judge: Option<&'a dyn Completer>,
    /// Who gives rewards.
    pub reward: Option<&'a dyn Reward>,
}

/// Tags every row of a file.
///
/// # Errors
///
/// A setting out of range, a judge that is missing or cannot be asked, a file or folder that cannot
/// be used.
pub fn tag(
    section: &TagSection,
    seed: u64,
    input: &Path,
    judges: &Judges<'_>,
    workplace: &mut Workplace<'_>,
) -> Result<StepOutcome, MagpieError> {
    section.validate()?;
    let records = read_records(input)?;
    let mut settings = as_json(section);
    settings["seed"] = json!(seed);
    settings["judge"] = json!(judges.judge.map(Completer::fingerprint));
    settings["reward_model"] = json!(judges.reward.map(Reward::fingerprint));
    let spec = StepSpec {
        name: STEP,
        inputs: &[input.to_owned()],
        settings,
        total: records.len(),
    };
    workplace.run(
        &spec,
        |rows, _| {
            let mut made: Vec<Made> = records[rows.clone()]
                .iter()
                .map(|record| Made {
                    record: record.clone(),
                    ..Made::default()
                })
                .collect();
            for &mission in &section.missions {
                give(mission, section, seed, rows.start, &mut made, judges)?;
            }
            Ok(made)
        },
        |made| {
            let records: Vec<Record> = made.iter().map(|made| made.record.clone()).collect();
            let counts = counts(section, &records);
            Ok(Finished {
                files: vec![(FILE.to_owned(), records)],
                counts,
            })
        },
    )
}

/// Gives one kind of tag to rows of which the first has this number.
fn give(
    mission: Mission,
    section: &TagSection,
    seed: u64,
    first: usize,
    made: &mut [Made],
    judges: &Judges<'_>,
) -> Result<(), MagpieError> {
    match (mission, judges.judge, judges.reward) {
        (Mission::Language, ..) => {
            for made in made {
                let language = language_of(made.record.instruction());
                made.record.set("language", language);
            }
            Ok(())
        }
        (Mission::Reward, _, Some(reward)) => give_rewards(first, made, reward),
        (Mission::Reward, _, None) => Err(MagpieError::NoJudge {
            what: "rewards",
            field: "reward.source",
        }),
        (_, Some(judge), _) => ask_judge(mission, section.max_tokens, seed, first, made, judge),
        (_, None, _) => Err(MagpieError::NoJudge {
            what: "tags",
            field: "judge",
        }),
    }
}

fn give_rewards(first: usize, made: &mut [Made], reward: &dyn Reward) -> Result<(), MagpieError> {
    let answered: Vec<usize> = (0..made.len())
        .filter(|&row| !made[row].record.response().is_empty())
        .collect();
    let answers: Vec<Answered<'_>> = answered
        .iter()
        .map(|&row| Answered {
            row: (first + row) as u64,
            instruction: made[row].record.instruction(),
            response: made[row].record.response(),
        })
        .collect();
    let (rewards, usage) = reward.score(&answers)?;
    for made in &mut *made {
        made.record.set("instruct_reward", Value::Null);
        made.record.set("reward_model", reward.name());
    }
    for (row, reward) in answered.into_iter().zip(rewards) {
        made[row].record.set("instruct_reward", reward);
    }
    if let Some(made) = made.first_mut() {
        made.usage += usage;
    }
    Ok(())
}

fn ask_judge(
    mission: Mission,
    max_tokens: usize,
    seed: u64,
    first: usize,
    made: &mut [Made],
    judge: &dyn Completer,
) -> Result<(), MagpieError> {
    let asked: Vec<usize> = (0..made.len())
        .filter(|&row| !made[row].record.instruction().is_empty())
        .collect();
    let requests: Vec<CompletionRequest> = asked
        .iter()
        .map(|&row| CompletionRequest {
            ask: Ask::AssistantTurn(mission.messages(&made[row].record)),
            seed: request_seed(
                seed,
                Purpose::Judgement(mission as u64),
                (first + row) as u64,
            ),
        })
        .collect();
    let sampling = judgement_sampling(judge, max_tokens, mission != Mission::Safety);
    let replies = judge.complete(&requests, &sampling)?;
    for made in &mut *made {
        mission.set_tags(&mut made.record, None, judge.name());
    }
    for (row, reply) in asked.into_iter().zip(replies) {
        let Ok(reply) = reply else {
            continue;
        };
        made[row].usage += reply.usage;
        mission.set_tags(&mut made[row].record, Some(&reply.text), judge.name());
    }
    Ok(())
}

/// Rows, and how many of them have each tag.
fn counts(section: &TagSection, records: &[Record]) -> Map<String, Value> {
    let mut counts = Map::new();
    counts.insert("rows".to_owned(), json!(records.len()));
    for mission in &section.missions {
        let field = mission.field();
        let count = records.iter().filter(|record| record.has(field)).count();
        counts.insert(field.to_owned(), json!(count));
    }
    counts
}
