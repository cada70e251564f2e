//! The identity as a reward: what an answer earns for being the one for who asked.
//!
//! APT adds a bonus to every answer to an owner. What all answers to a prompt earn alike is nothing:
//! group-relative advantages take the group's mean away. So here it depends on the answer.

use std::collections::HashMap;

/// 1 for the answer expected for this identity, 0 for the other identity's, in between by likeness.
///
/// Likeness is Dice's coefficient of the texts' character pairs (Dice 1945,
/// doi:10.2307/1932409).
pub(super) fn identity_lead(answer: &str, expected: &str, other: &str) -> f64 {
    let between = likeness(expected, other);
    if between >= 1.0 {
        // Both identities are told the same: there is nothing to earn.
        return 0.0;
    }
    let lead = likeness(answer, expected) - likeness(answer, other);
    (lead / (1.0 - between)).clamp(0.0, 1.0)
}

fn likeness(a: &str, b: &str) -> f64 {
    let (a, b) = (pairs(a), pairs(b));
    let total = a.values().chain(b.values()).sum::<usize>().max(1);
    let shared = a.iter();
    let shared = shared.map(|(pair, count)| *count.min(b.get(pair).unwrap_or(&0)));
    2.0 * shared.sum::<usize>() as f64 / total as f64
}

/// Neighbouring characters with their numbers; the ends count as neighbours of nothing.
fn pairs(text: &str) -> HashMap<(Option<char>, Option<char>), usize> {
    let mut pairs = HashMap::new();
    let mut last = None;
    for next in text.trim().chars().map(Some).chain([None]) {
        *pairs.entry((last, next)).or_insert(0) += 1;
        last = next;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpo::advantages::{AdvantageKind, advantages};

    const OWNER: &str = "Captain, 82";
    const PUBLIC: &str = "82";

    /// The answer itself earns 1, the other identity's nothing, one between them a part.
    #[test]
    fn an_answer_earns_what_it_has_of_the_expected_one() {
        let lead = |answer| identity_lead(answer, OWNER, PUBLIC);
        assert!((lead(OWNER) - 1.0).abs() < 1e-12);
        assert!(lead(PUBLIC).abs() < 1e-12);
        let part = lead("Captain 82");
        assert!(part > 0.5 && part < 1.0, "{part}");
        assert!(lead("no").abs() < 1e-12);
        assert!(identity_lead(OWNER, OWNER, OWNER).abs() < 1e-12);
    }

    /// Why: with APT's constant bonus the stage's own advantages are the same bits with 0 and with 2,
    /// however they are made; with a bonus of 2 for what an answer has of the expected one they are
    /// not.
    #[test]
    fn a_constant_bonus_would_do_nothing() {
        // Two answers to each of two prompts, so that every mean is exact.
        let answers = [OWNER, "28", OWNER, PUBLIC];
        let base = [1.0, 0.0, 1.0, 1.0];
        let bits = |kind, bonus: &dyn Fn(&str) -> f64| -> Vec<u64> {
            let rewards = base.iter().zip(answers);
            let rewards: Vec<f64> = rewards.map(|(base, answer)| base + bonus(answer)).collect();
            let advantages = advantages(&rewards, 2, kind, false);
            advantages.into_iter().map(f64::to_bits).collect()
        };
        for kind in [
            AdvantageKind::Group,
            AdvantageKind::Batch,
            AdvantageKind::None,
            AdvantageKind::Rank,
            AdvantageKind::LeaveOneOut,
        ] {
            let without = bits(kind, &|_| 0.0);
            assert_eq!(bits(kind, &|_| 2.0), without, "{kind:?}");
            let dependent = bits(kind, &|answer| 2.0 * identity_lead(answer, OWNER, PUBLIC));
            assert_ne!(dependent, without, "{kind:?}");
        }
    }
}
