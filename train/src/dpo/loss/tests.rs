//! Every loss against recorded values, its gradient against differences.
//!
//! The values are those of a float64 recipe in numpy for `β` 0.1, two pairs with policy
//! log-probabilities -10, -20 (better) and -12, -18 (worse), the reference's -11, -19 and -11.5,
//! -19.5, and 5, 8 and 4, 6 tokens; `ε` 0.1 for "robust" and "exo_pair".

use super::*;

const TOLERANCE: f64 = 1e-5;
const POLICY: [[f32; 2]; 2] = [[-10.0, -20.0], [-12.0, -18.0]];
const REFERENCE: [[f32; 2]; 2] = [[-11.0, -19.0], [-11.5, -19.5]];
const NUM_TOKENS: [[f32; 2]; 2] = [[5.0, 8.0], [4.0, 6.0]];

fn section(loss: DpoLoss) -> DpoSection {
    let label_smoothing = match loss {
        DpoLoss::Robust | DpoLoss::ExoPair => 0.1,
        _ => 0.0,
    };
    DpoSection {
        loss,
        label_smoothing,
        ..DpoSection::default()
    }
}

fn pairs(policy: PairValues, device: &Device) -> PairLogps {
    let values = |values: [[f32; 2]; 2]| PairValues {
        chosen: Tensor::from_floats(values[0], device),
        rejected: Tensor::from_floats(values[1], device),
    };
    let reference = values(REFERENCE);
    PairLogps {
        ratios: PairValues {
            chosen: policy.chosen.clone() - reference.chosen,
            rejected: policy.rejected.clone() - reference.rejected,
        },
        policy,
        num_tokens: values(NUM_TOKENS),
        margins: Tensor::zeros([2], device),
    }
}

fn losses_at(config: &DpoSection, policy: [[f32; 2]; 2]) -> Vec<f64> {
    let device = Device::flex();
    let policy = PairValues {
        chosen: Tensor::from_floats(policy[0], &device),
        rejected: Tensor::from_floats(policy[1], &device),
    };
    let losses = pair_losses(config, &pairs(policy, &device));
    losses.into_data().iter::<f64>().collect()
}

fn assert_near(found: &[f64], expected: [f64; 2], what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        // Squares of tens have the rounding of their size.
        let tolerance = TOLERANCE * expected.abs().max(1.0);
        let difference = (found - expected).abs();
        assert!(difference < tolerance, "{what}: {found} {expected}");
    }
}

#[test]
fn losses_are_the_recorded_ones() {
    for (loss, expected) in [
        (DpoLoss::Sigmoid, [0.620_957_047_8, 0.825_939_419_9]),
        (DpoLoss::Hinge, [0.85, 1.25]),
        (DpoLoss::Ipo, [21.855_625, 28.890_625]),
        (DpoLoss::Robust, [0.602_207_047_8, 0.857_189_419_9]),
        (DpoLoss::ExoPair, [0.431_388_457_2, 0.655_193_245_5]),
        (DpoLoss::NcaPair, [1.350_824_814_1, 1.452_073_514_0]),
        (DpoLoss::BcoPair, [1.312_856_308_1, 1.515_353_707_9]),
        (DpoLoss::SppoHard, [36.25, 78.25]),
        (DpoLoss::Aot, [0.825_939_419_9, 0.620_957_047_8]),
        (DpoLoss::AotUnpaired, [0.718_459_648_0, 0.718_459_648_0]),
        (DpoLoss::ApoZero, [0.962_523_416_0, 1.062_409_032_8]),
        (DpoLoss::ApoDown, [0.987_549_342_1, 1.037_197_313_4]),
        (DpoLoss::Discopop, [0.849_337_579_3, 0.829_005_321_2]),
        (DpoLoss::Cpo, [0.598_138_869_4, 0.798_138_869_4]),
    ] {
        let found = losses_at(&section(loss), POLICY);
        assert_near(&found, expected, &format!("{loss:?}"));
    }
    let orpo = DpoSection {
        beta: 1.0,
        ..section(DpoLoss::Orpo)
    };
    let expected = [0.288_750_784_3, 0.461_161_250_1];
    assert_near(&losses_at(&orpo, POLICY), expected, "orpo");
    let simpo = DpoSection {
        beta: 2.0,
        margin: 0.5,
        ..section(DpoLoss::Simpo)
    };
    let expected = [0.201_413_278_0, 0.474_076_984_2];
    assert_near(&losses_at(&simpo, POLICY), expected, "simpo");
    let per_token = DpoSection {
        length_normalized: true,
        ..section(DpoLoss::Sigmoid)
    };
    let expected = [0.677_029_206_0, 0.712_072_951_5];
    assert_near(&losses_at(&per_token, POLICY), expected, "per token");
    for (divergence, expected) in [
        (Divergence::ForwardKl, [0.631_154_383_6, 0.825_666_887_0]),
        (Divergence::Js, [0.660_652_162_5, 0.750_284_064_4]),
        (Divergence::Alpha, [0.627_690_947_1, 0.817_685_805_3]),
    ] {
        let config = DpoSection {
            divergence,
            ..section(DpoLoss::Sigmoid)
        };
        assert_near(
            &losses_at(&config, POLICY),
            expected,
            &format!("{divergence:?}"),
        );
    }
}

/// By hand: x is 0.15 and -0.25; smoothing adds 0.1 x to each loss, a margin of 0.2 takes it from
/// x, and the better answers' cross entropy per token is 2 and 2.5.
#[test]
fn smoothing_margins_and_the_better_answer_s_likelihood() {
    let sigmoid = section(DpoLoss::Sigmoid);
    let plain = losses_at(&sigmoid, POLICY);
    let smoothed = DpoSection {
        label_smoothing: 0.1,
        ..sigmoid.clone()
    };
    let expected = [plain[0] + 0.1 * 0.15, plain[1] - 0.1 * 0.25];
    assert_near(&losses_at(&smoothed, POLICY), expected, "smoothing");
    let with_margin = DpoSection {
        margin: 0.2,
        ..sigmoid.clone()
    };
    let expected = [0.05f64.exp().ln_1p(), 0.45f64.exp().ln_1p()];
    assert_near(&losses_at(&with_margin, POLICY), expected, "margin");
    let with_sft = DpoSection {
        sft_coef: 0.5,
        ..sigmoid
    };
    let expected = [plain[0] + 1.0, plain[1] + 1.25];
    assert_near(&losses_at(&with_sft, POLICY), expected, "sft");
}

/// Where the policy is the reference there is no lead: ln 2.
#[test]
fn the_reference_itself_has_a_loss_of_ln_2() {
    let found = losses_at(&section(DpoLoss::Sigmoid), REFERENCE);
    assert_near(&found, [std::f64::consts::LN_2; 2], "sigmoid");
}

/// Gradient of the mean loss by the four log-probabilities.
fn gradient(config: &DpoSection) -> [Vec<f64>; 2] {
    let device = Device::flex().autodiff();
    let policy = PairValues {
        chosen: Tensor::<1>::from_floats(POLICY[0], &device).require_grad(),
        rejected: Tensor::<1>::from_floats(POLICY[1], &device).require_grad(),
    };
    let loss = pair_losses(config, &pairs(policy.clone(), &device)).mean();
    let grads = loss.backward();
    [policy.chosen, policy.rejected].map(|leaf| match leaf.grad(&grads) {
        Some(grad) => grad.into_data().iter::<f64>().collect(),
        None => vec![0.0; 2],
    })
}

/// The recipe's, of the mean over both pairs.
#[test]
fn gradients_are_the_recorded_ones() {
    for (loss, chosen, rejected) in [
        (
            DpoLoss::Sigmoid,
            [-0.023_128_51, -0.028_108_83],
            [0.023_128_51, 0.028_108_83],
        ),
        (DpoLoss::Hinge, [-0.05, -0.05], [0.05, 0.05]),
        (DpoLoss::Ipo, [-0.935, -0.671_875], [1.168_75, 0.895_833_34]),
        (
            DpoLoss::ApoZero,
            [-0.012_468_8, -0.012_468_8],
            [0.012_492_19, 0.012_429_95],
        ),
    ] {
        let found = gradient(&section(loss));
        assert_near(&found[0], chosen, &format!("{loss:?} chosen"));
        assert_near(&found[1], rejected, &format!("{loss:?} rejected"));
    }
}

#[test]
fn gradients_are_those_of_the_losses() {
    let all = [
        DpoLoss::Sigmoid,
        DpoLoss::Ipo,
        DpoLoss::Hinge,
        DpoLoss::Robust,
        DpoLoss::ExoPair,
        DpoLoss::NcaPair,
        DpoLoss::BcoPair,
        DpoLoss::SppoHard,
        DpoLoss::Aot,
        DpoLoss::AotUnpaired,
        DpoLoss::ApoZero,
        DpoLoss::ApoDown,
        DpoLoss::Discopop,
        DpoLoss::Simpo,
        DpoLoss::Orpo,
        DpoLoss::Cpo,
    ];
    let mut configs: Vec<DpoSection> = all.map(section).into();
    configs.extend(
        [Divergence::ForwardKl, Divergence::Js, Divergence::Alpha].map(|divergence| DpoSection {
            divergence,
            ..section(DpoLoss::Sigmoid)
        }),
    );
    for config in configs {
        let found = gradient(&config);
        for answer in 0..2 {
            for pair in 0..2 {
                let at = |step: f32| {
                    let mut policy = POLICY;
                    policy[answer][pair] += step;
                    losses_at(&config, policy).iter().sum::<f64>() / 2.0
                };
                // The step is a power of two, exact beside -20.
                let step = 1.0 / 64.0;
                let expected = (at(step as f32) - at(-step as f32)) / (2.0 * step);
                let found = found[answer][pair];
                let difference = (found - expected).abs();
                assert!(
                    difference < 2e-3 * expected.abs().max(0.1),
                    "{config:?}: {found} {expected}"
                );
            }
        }
    }
}
