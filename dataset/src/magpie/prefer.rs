//! Pairs of a better and a worse answer: the extremes of several.
//!
//! Source: Magpie's `process_po.ipynb` (best and worst reward, the first of
//! equals, two in a hundred held out). The least margin and the check for equal answers are ours.

use std::path::Path;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::MagpieError;
use super::manifest::counted;
use super::range::{check, check_sampling};
use super::record::{Record, read_records};
use super::seed::Stream;
use super::work::{Finished, StepOutcome, StepSpec, Workplace};
use crate::draw::Draw;
use crate::rows::is_rewards;

/// Name of the step that makes pairs.
pub const STEP: &str = "prefer";

/// Stem of the file of pairs to train on.
pub const TRAIN_FILE: &str = "preferences_train";

/// Stem of the file of pairs that are held out.
pub const TEST_FILE: &str = "preferences_test";

/// `[prefer]`: how pairs are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct PreferSection {
    /// Answers per instruction, at least 2.
    pub responses: usize,
    /// Spread of the draws, above 0.
    pub temperature: f64,
    /// Share of probability that is drawn from, above 0 and at most 1 (all).
    pub top_p: f64,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Least difference of the best and the worst reward, 0 or more; at 0 they must differ at all.
    pub min_margin: f64,
    /// Longest the longer answer may be, as a multiple of the shorter one's characters, so that
    /// length alone is not what is learned; 0 is off.
    pub max_length_ratio: f64,
    /// Share of the pairs that is held out, from 0 to below 1.
    pub test_fraction: f64,
}

impl Default for PreferSection {
    fn default() -> Self {
        Self {
            responses: 5,
            temperature: 0.8,
            top_p: 1.0,
            max_tokens: 1024,
            min_margin: 0.0,
            max_length_ratio: 0.0,
            test_fraction: 0.02,
        }
    }
}

impl PreferSection {
    /// Compares fields with their ranges.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), MagpieError> {
        check(
            "prefer.responses",
            self.responses,
            self.responses >= 2,
            "at least 2",
        )?;
        check_sampling(
            ["prefer.temperature", "prefer.top_p", "prefer.max_tokens"],
            self.temperature,
            self.top_p,
            self.max_tokens,
        )?;
        let is_warm = self.temperature > 0.0;
        check(
            "prefer.temperature",
            self.temperature,
            is_warm,
            "above 0: else all answers are one",
        )?;
        let margin = self.min_margin;
        check(
            "prefer.min_margin",
            margin,
            margin.is_finite() && margin >= 0.0,
            "0 or more",
        )?;
        let ratio = self.max_length_ratio;
        let is_ratio = ratio == 0.0 || ratio.is_finite() && ratio >= 1.0;
        check(
            "prefer.max_length_ratio",
            ratio,
            is_ratio,
            "0 (off) or at least 1",
        )?;
        let share = self.test_fraction;
        check(
            "prefer.test_fraction",
            share,
            (0.0..1.0).contains(&share),
            "from 0 to below 1",
        )
    }
}

/// Why a row gives no pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoPair {
    Unweighed,
    SameReward,
    SameText,
    SmallMargin,
    UnlikeLengths,
}

/// Makes pairs of weighed answers and parts off those that are held out.
///
/// # Errors
///
/// A setting out of range, rows without `responses` and rewards, a folder that cannot be used.
pub fn prefer(
    section: &PreferSection,
    seed: u64,
    input: &Path,
    workplace: &mut Workplace<'_>,
) -> Result<StepOutcome, MagpieError> {
    section.validate()?;
    let spec = StepSpec {
        name: STEP,
        inputs: &[input.to_owned()],
        settings: json!({
            "min_margin": section.min_margin,
            "max_length_ratio": section.max_length_ratio,
            "test_fraction": section.test_fraction,
            "seed": seed,
        }),
        total: 0,
    };
    workplace.run_at_once(&spec, || {
        let records = read_records(input)?;
        let is_weighed = |record: &Record| rewards(record).is_some();
        if !records.is_empty() && !records.iter().any(is_weighed) {
            return Err(MagpieError::Input {
                path: input.to_owned(),
                what: "no row has `responses` and `rewards_*`, expected weighed answers (the \
                       step candidates makes them)",
            });
        }
        Ok(pairs(section, seed, &records))
    })
}

fn pairs(section: &PreferSection, seed: u64, records: &[Record]) -> Finished {
    let mut pairs = Vec::new();
    let mut faults = Vec::new();
    for record in records {
        match pair(section, record) {
            Ok(pair) => pairs.push(pair),
            Err(fault) => faults.push(fault),
        }
    }
    let num_pairs = pairs.len();
    Draw::new(seed, Stream::HeldOut as u64).shuffle(&mut pairs);
    // As datasets.train_test_split: the held-out share is rounded up.
    let num_test = (num_pairs as f64 * section.test_fraction).ceil() as usize;
    let train = pairs.split_off(num_test);
    let dropped = |fault: NoPair| faults.iter().filter(|found| **found == fault).count();
    let counts = counted([
        ("rows", records.len()),
        ("unweighed", dropped(NoPair::Unweighed)),
        ("same_reward", dropped(NoPair::SameReward)),
        ("same_text", dropped(NoPair::SameText)),
        ("small_margin", dropped(NoPair::SmallMargin)),
        ("unlike_lengths", dropped(NoPair::UnlikeLengths)),
        ("train", train.len()),
        ("test", pairs.len()),
    ]);
    Finished {
        files: vec![
            (TRAIN_FILE.to_owned(), train),
            (TEST_FILE.to_owned(), pairs),
        ],
        counts,
    }
}

/// Rewards of a row's answers under any maker's name, one per answer.
pub fn rewards(record: &Record) -> Option<Vec<f64>> {
    let field = record.0.iter().find(|(name, _)| is_rewards(name));
    let rewards = field?.1.as_array()?.iter();
    let rewards = rewards.map(|reward| reward.get("score").unwrap_or(reward).as_f64());
    let rewards: Vec<f64> = rewards.collect::<Option<_>>()?;
    (rewards.len() == record.responses().len() && !rewards.is_empty()).then_some(rewards)
}

fn pair(section: &PreferSection, record: &Record) -> Result<Record, NoPair> {
    let rewards = rewards(record).ok_or(NoPair::Unweighed)?;
    let responses = record.responses();
    let (mut best, mut worst) = (0, 0);
    for row in 1..rewards.len() {
        if rewards[row] > rewards[best] {
            best = row;
        }
        if rewards[row] < rewards[worst] {
            worst = row;
        }
    }
    let (chosen, rejected) = (responses[best], responses[worst]);
    let margin = rewards[best] - rewards[worst];
    if best == worst {
        return Err(NoPair::SameReward);
    }
    if chosen == rejected {
        return Err(NoPair::SameText);
    }
    if margin < section.min_margin {
        return Err(NoPair::SmallMargin);
    }
    let lengths = [chosen, rejected].map(|text| text.chars().count().max(1) as f64);
    let ratio = lengths[0].max(lengths[1]) / lengths[0].min(lengths[1]);
    if section.max_length_ratio > 0.0 && ratio > section.max_length_ratio {
        return Err(NoPair::UnlikeLengths);
    }
    let turns = |answer: &str| {
        json!([
            { "role": "user", "content": record.instruction() },
            { "role": "assistant", "content": answer },
        ])
    };
    let mut pair = Record::default();
    for id in ["id", "uuid", "conversation_id"] {
        if let Some(value) = record.0.get(id) {
            pair.set(id, value.clone());
        }
    }
    pair.set("instruction", record.instruction());
    pair.set("chosen", turns(chosen));
    pair.set("rejected", turns(rejected));
    pair.set("chosen_score", rewards[best]);
    pair.set("rejected_score", rewards[worst]);
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn record(responses: &[&str], scores: &[f64]) -> Record {
        let scores: Vec<Value> = scores
            .iter()
            .map(|score| json!({ "score": score }))
            .collect();
        serde_json::from_value(json!({
            "uuid": "u", "instruction": "q", "responses": responses, "rewards_armorm": scores,
        }))
        .unwrap()
    }

    fn extremes(responses: &[&str], scores: &[f64]) -> Result<(String, String), NoPair> {
        let pair = pair(&PreferSection::default(), &record(responses, scores))?;
        let answer = |field: &str| pair.0[field][1]["content"].as_str().unwrap().to_owned();
        Ok((answer("chosen"), answer("rejected")))
    }

    /// The rewards are those of row 0 of Magpie's own example, whose pair is (3, 1).
    #[test]
    fn the_best_and_the_worst_are_taken_and_the_first_of_equals() {
        let scores = [
            0.112_792_968_75,
            0.107_421_875,
            0.107_910_156_25,
            0.116_699_218_75,
            0.114_746_093_75,
        ];
        let found = extremes(&["a", "b", "c", "d", "e"], &scores).unwrap();
        assert_eq!(found, ("d".to_owned(), "b".to_owned()));
        let found = extremes(&["a", "b", "c", "d"], &[1.0, 2.0, 2.0, 1.0]).unwrap();
        assert_eq!(found, ("b".to_owned(), "a".to_owned()));
    }

    #[test]
    fn what_gives_no_pair_is_dropped_by_its_reason() {
        assert_eq!(extremes(&["a", "b"], &[1.0, 1.0]), Err(NoPair::SameReward));
        assert_eq!(extremes(&["a", "a"], &[1.0, 2.0]), Err(NoPair::SameText));
        assert_eq!(extremes(&["a", "b"], &[1.0]), Err(NoPair::Unweighed));
        let section = PreferSection {
            min_margin: 0.5,
            max_length_ratio: 2.0,
            ..PreferSection::default()
        };
        let small = pair(&section, &record(&["a", "b"], &[1.0, 1.4]));
        assert_eq!(small.unwrap_err(), NoPair::SmallMargin);
        let unlike = pair(&section, &record(&["a", "bbb"], &[1.0, 2.0]));
        assert_eq!(unlike.unwrap_err(), NoPair::UnlikeLengths);
    }

    /// By hand: of 60 rows ten have one reward only; 2 % of 50 is 1.
    #[test]
    fn two_in_a_hundred_are_held_out() {
        let rows: Vec<Record> = (0..60)
            .map(|row| {
                let score = if row % 6 == 0 { 1.0 } else { 2.0 };
                let mut record = record(&["a", "b"], &[1.0, score]);
                record.set("id", row);
                record
            })
            .collect();
        let found = pairs(&PreferSection::default(), 42, &rows);
        let (train, test) = (&found.files[0].1, &found.files[1].1);
        assert_eq!((train.len(), test.len()), (49, 1));
        assert_eq!(found.counts["same_reward"], 10);
        let mut ids: Vec<u64> = train
            .iter()
            .chain(test)
            .map(|row| row.0["id"].as_u64().unwrap())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 50, "no pair is in both");
        assert_eq!(
            pairs(&PreferSection::default(), 42, &rows).files,
            found.files
        );
        assert_ne!(
            pairs(&PreferSection::default(), 43, &rows).files[0],
            found.files[0]
        );
    }
}
