//! Rewards to advantages: how much better an answer is than the others to its prompt.
//!
//! Sources: Shao et al. 2024, arXiv:2402.03300, section 4.1.2 (`group`); Liu et al. 2025,
//! arXiv:2503.20783, section 3.2 (`none`); Hu 2025, arXiv:2501.03262, eq. 8 (`batch`); Ahmadian et
//! al. 2024, arXiv:2402.14740, eq. 6 (`leave_one_out`).

use serde::{Deserialize, Serialize};

/// Added to a standard deviation before a division by it, as TRL does.
const EPS: f64 = 1e-4;

/// What an answer's reward is compared with, and in which unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdvantageKind {
    /// The group's mean, in standard deviations of the group.
    #[default]
    Group,
    /// The group's mean, in standard deviations of all rewards of the rollout.
    Batch,
    /// The group's mean, in the reward's own unit.
    None,
    /// The middle of the group's order, from -1 to 1; equal rewards share their places.
    Rank,
    /// The mean of the group's other rewards.
    LeaveOneOut,
}

/// Advantages of rewards that lie group by group.
///
/// Of a group with equal rewards all are exactly zero, whatever the rewards are.
///
/// # Panics
///
/// If groups have fewer than two answers or the rewards are no whole number of groups.
pub fn advantages(
    rewards: &[f64],
    num_generations: usize,
    kind: AdvantageKind,
    biased_std: bool,
) -> Vec<f64> {
    assert!(num_generations > 1, "an answer is compared with others");
    assert!(
        rewards.len().is_multiple_of(num_generations),
        "{} rewards are not groups of {num_generations}",
        rewards.len()
    );
    let std_of_all = std(rewards, biased_std);
    rewards
        .chunks_exact(num_generations)
        .flat_map(|group| of_group(group, kind, std_of_all, biased_std))
        .collect()
}

/// Mean and unbiased standard deviation; of fewer than two numbers the latter is 0.
pub(super) fn mean_and_std(numbers: &[f64]) -> (f64, f64) {
    (mean(numbers), std(numbers, false))
}

/// Whether all answers of a group earned the same, so that there is nothing to learn from it.
#[expect(clippy::float_cmp, reason = "equal is the same number, not a near one")]
pub(super) fn are_equal(group: &[f64]) -> bool {
    group.windows(2).all(|pair| pair[0] == pair[1])
}

fn of_group(group: &[f64], kind: AdvantageKind, std_of_all: f64, biased_std: bool) -> Vec<f64> {
    // The mean of equal numbers may differ from them in its last bit, which is no advantage.
    if are_equal(group) {
        return vec![0.0; group.len()];
    }
    let count = group.len() as f64;
    let mean = mean(group);
    let from_mean = |unit: f64| group.iter().map(|reward| (reward - mean) / unit).collect();
    match kind {
        AdvantageKind::Group => from_mean(std(group, biased_std) + EPS),
        AdvantageKind::Batch => from_mean(std_of_all + EPS),
        AdvantageKind::None => from_mean(1.0),
        AdvantageKind::Rank => {
            let (middle, half) = ((count - 1.0) / 2.0, count / 2.0);
            let ranks = group.iter().map(|reward| rank(*reward, group));
            ranks.map(|rank| (rank - middle) / half).collect()
        }
        AdvantageKind::LeaveOneOut => {
            let sum: f64 = group.iter().sum();
            let others = |reward: f64| (sum - reward) / (count - 1.0);
            group
                .iter()
                .map(|reward| reward - others(*reward))
                .collect()
        }
    }
}

/// Place in ascending order from 0; equal rewards get the mean of their places.
#[expect(clippy::float_cmp, reason = "equal is the same number, not a near one")]
fn rank(reward: f64, group: &[f64]) -> f64 {
    let below = group.iter().filter(|other| **other < reward).count();
    let equal = group.iter().filter(|other| **other == reward).count();
    below as f64 + (equal as f64 - 1.0) / 2.0
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len().max(1) as f64
}

fn std(numbers: &[f64], biased: bool) -> f64 {
    let count = numbers.len() as f64;
    let divisor = if biased { count } else { count - 1.0 };
    if divisor <= 0.0 {
        return 0.0;
    }
    let mean = mean(numbers);
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    (squares / divisor).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recipe's values are printed with eight digits.
    const TOLERANCE: f64 = 1e-6;

    fn assert_near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < TOLERANCE, "{found} {expected}");
        }
    }

    /// A float64 recipe in numpy after TRL (unbiased) and MiniMind (biased).
    #[test]
    fn group_advantages_are_trl_s_and_minimind_s() {
        let cases = [
            (
                [1.0, 0.0, 0.0, 0.0],
                [1.499_700_06, -0.499_900_02, -0.499_900_02, -0.499_900_02],
                [1.731_650_9, -0.577_216_97, -0.577_216_97, -0.577_216_97],
            ),
            (
                [1.0, 1.0, 0.0, 0.0],
                [0.865_875_43, 0.865_875_43, -0.865_875_43, -0.865_875_43],
                [0.999_800_04, 0.999_800_04, -0.999_800_04, -0.999_800_04],
            ),
            (
                [1.0, 2.0, 3.0, 4.0],
                [-1.161_805_01, -0.387_268_34, 0.387_268_34, 1.161_805_01],
                [-1.341_520_8, -0.447_173_6, 0.447_173_6, 1.341_520_8],
            ),
            (
                [3.0, -3.0, 0.5, 0.5],
                [1.114_921_47, -1.317_634_47, 0.101_356_5, 0.101_356_5],
                [1.287_392_35, -1.521_463_68, 0.117_035_67, 0.117_035_67],
            ),
        ];
        for (rewards, unbiased, biased) in cases {
            let group = |is_biased| advantages(&rewards, 4, AdvantageKind::Group, is_biased);
            assert_near(&group(false), &unbiased);
            assert_near(&group(true), &biased);
        }
    }

    /// The recipe's values for 1, 2, 3, 4; ranks by hand, and of two equal rewards in the middle.
    #[test]
    fn the_other_kinds_by_hand() {
        let of = |rewards: &[f64], kind| advantages(rewards, 4, kind, false);
        let ascending = [1.0, 2.0, 3.0, 4.0];
        assert_near(
            &of(&ascending, AdvantageKind::None),
            &[-1.5, -0.5, 0.5, 1.5],
        );
        assert_near(
            &of(&ascending, AdvantageKind::LeaveOneOut),
            &[-2.0, -2.0 / 3.0, 2.0 / 3.0, 2.0],
        );
        assert_near(
            &of(&ascending, AdvantageKind::Rank),
            &[-0.75, -0.25, 0.25, 0.75],
        );
        assert_near(
            &of(&[9.0, 2.0, 2.0, -1.0], AdvantageKind::Rank),
            &[0.75, 0.0, 0.0, -0.75],
        );
    }

    /// By hand: rewards 0, 1 | 0, 3: group means 0.5 and 1.5, variance of all (1 + 0 + 1 + 4) / 3.
    #[test]
    fn the_batch_s_unit_is_one_for_all_groups() {
        let unit = 2.0_f64.sqrt() + EPS;
        let expected = [-0.5, 0.5, -1.5, 1.5].map(|from_mean| from_mean / unit);
        let found = advantages(&[0.0, 1.0, 0.0, 3.0], 2, AdvantageKind::Batch, false);
        assert_near(&found, &expected);
    }

    /// 0.1 three times has a mean that is not 0.1; still nothing is better than anything.
    #[test]
    fn equal_rewards_give_no_advantage_at_all() {
        for kind in [
            AdvantageKind::Group,
            AdvantageKind::Batch,
            AdvantageKind::None,
            AdvantageKind::Rank,
            AdvantageKind::LeaveOneOut,
        ] {
            let found = advantages(&[0.1, 0.1, 0.1, 0.7, 0.7, 0.7], 3, kind, false);
            assert_eq!(found, [0.0; 6], "{kind:?}");
        }
    }

    #[test]
    #[should_panic(expected = "an answer is compared with others")]
    fn a_group_of_one_is_refused() {
        advantages(&[1.0], 1, AdvantageKind::Group, false);
    }
}
