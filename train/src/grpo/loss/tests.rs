//! Against a float64 recipe in numpy after TRL's GRPO trainer: two completions of three and two
//! tokens, padded to four.

use super::*;

/// f32 against float64 for losses of about one.
const TOLERANCE: f64 = 1e-6;
/// For the recipe's gradients, which are differences printed with eight digits.
const GRADIENT_TOLERANCE: f64 = 2e-6;

type Values = [[f32; 4]; 2];

const POLICY: Values = [[-1.0, -0.5, -2.0, -0.7], [-0.3, -1.2, -0.9, -1.5]];
const OLD: Values = [[-1.2, -0.5, -1.5, -0.7], [-0.6, -1.0, -0.9, -1.5]];
const REFERENCE: Values = [[-1.1, -0.6, -1.8, -0.7], [-0.5, -1.1, -1.0, -1.5]];
const MASK: Values = [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]];
const LENS: [usize; 2] = [3, 2];
const STEP: StepSize = StepSize {
    num_completions: 2,
    num_tokens: 5,
    num_micro_batches: 1,
    max_completion_tokens: 8,
};

fn options(kind: LossKind) -> LossOptions {
    LossOptions {
        kind,
        epsilon: 0.2,
        epsilon_high: 0.2,
        delta: 0.0,
        beta: 0.0,
        kl: KlKind::K3,
        sapo_temperature: 1.0,
        sapo_temperature_negative: 1.05,
    }
}

fn tensor(values: Values, device: &Device) -> Tensor<2> {
    Tensor::from_floats(values, device)
}

fn weights(kind: LossKind) -> Values {
    std::array::from_fn(|row| {
        std::array::from_fn(|place| {
            if place < LENS[row] {
                token_weight(kind, LENS[row], 5, STEP) as f32
            } else {
                0.0
            }
        })
    })
}

fn loss(policy: Tensor<2>, advantages: [[f32; 1]; 2], options: &LossOptions) -> Tensor<1> {
    let device = policy.device();
    let losses = token_losses(
        PolicyTensors {
            old: tensor(OLD, &device),
            reference: (options.beta > 0.0).then(|| tensor(REFERENCE, &device)),
            mask: tensor(MASK, &device),
            advantages: Tensor::from_floats(advantages, &device),
            policy,
        },
        options,
    );
    (losses * tensor(weights(options.kind), &device)).sum()
}

fn value(options: &LossOptions) -> f64 {
    let policy = tensor(POLICY, &Device::flex());
    scalar(loss(policy, [[1.0], [-0.5]], options))
}

fn scalar(tensor: Tensor<1>) -> f64 {
    tensor.into_data().iter::<f64>().sum()
}

fn gradient(options: &LossOptions, advantages: [[f32; 1]; 2]) -> Vec<f64> {
    let device = Device::flex().autodiff();
    let policy = tensor(POLICY, &device).require_grad();
    let grads = loss(policy.clone(), advantages, options).backward();
    let gradient = policy.grad(&grads).unwrap();
    gradient.into_data().iter::<f64>().collect()
}

/// The recipe's losses: every kind, with and without divergence, second bound and clip-higher.
#[test]
fn losses_are_trl_s() {
    let plain = options(LossKind::Grpo);
    let cispo = |epsilon_high, beta| LossOptions {
        epsilon_high,
        beta,
        ..options(LossKind::Cispo)
    };
    let cases = [
        (plain, -0.196_681_414_870),
        (LossOptions { beta: 0.1, ..plain }, -0.195_565_913_188),
        (
            LossOptions {
                delta: 1.1,
                ..plain
            },
            -0.198_747_099_151,
        ),
        (options(LossKind::Bnpo), -0.344_447_175_877),
        (options(LossKind::DrGrpo), -0.107_639_742_462),
        (
            LossOptions {
                epsilon_high: 0.28,
                ..options(LossKind::Dapo)
            },
            -0.348_727_727_509,
        ),
        (cispo(5.0, 0.0), 0.448_149_360_920),
        (cispo(1.1, 0.0), 0.431_364_573_516),
        (cispo(5.0, 0.1), 0.449_248_946_228),
        (options(LossKind::Gspo), -0.189_600_934_924),
        (options(LossKind::Sapo), -0.475_158_318_887),
    ];
    for (options, expected) in cases {
        let found = value(&options);
        assert!(
            (found - expected).abs() < TOLERANCE,
            "{options:?}: {found} {expected}"
        );
    }
}

/// The recipe's gradients: a clipped token and a masked one have none at all.
#[test]
fn gradients_are_trl_s() {
    let plain = options(LossKind::Grpo);
    let with_kl = LossOptions { beta: 0.1, ..plain };
    let cispo = LossOptions {
        epsilon_high: 5.0,
        ..options(LossKind::Cispo)
    };
    let cases = [
        (
            plain,
            [
                [0.0, -0.166_666_67, -0.101_088_44, 0.0],
                [0.168_732_35, 0.102_341_34, 0.0, 0.0],
            ],
        ),
        (
            with_kl,
            [
                [0.001_586_04, -0.165_080_62, -0.104_778_49, 0.0],
                [0.173_264_08, 0.099_712_07, 0.0, 0.0],
            ],
        ),
        (
            cispo,
            [
                [-0.244_280_55, -0.2, -0.121_306_13, 0.0],
                [0.134_985_88, 0.081_873_08, 0.0, 0.0],
            ],
        ),
    ];
    for (options, expected) in cases {
        let found = gradient(&options, [[1.0], [-0.5]]);
        for (found, expected) in found.iter().zip(expected.concat()) {
            assert!(
                (found - expected).abs() < GRADIENT_TOLERANCE,
                "{options:?}: {found} {expected}"
            );
        }
    }
}

/// Against differences of the losses themselves, for the kinds that the recipe has no gradients of.
#[test]
fn gradients_are_those_of_the_loss() {
    for kind in [LossKind::Dapo, LossKind::Gspo, LossKind::Sapo] {
        // The bounds are set where no ratio of the example is near them.
        let options = LossOptions {
            beta: 0.1,
            epsilon: 0.25,
            epsilon_high: 0.28,
            ..options(kind)
        };
        for (index, found) in gradient(&options, [[1.0], [-0.5]]).into_iter().enumerate() {
            let at = |step: f32| {
                let mut moved = POLICY;
                moved[index / 4][index % 4] += step;
                scalar(loss(
                    tensor(moved, &Device::flex()),
                    [[1.0], [-0.5]],
                    &options,
                ))
            };
            let expected = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!(
                (found - expected).abs() < 1e-4,
                "{kind:?} {index}: {found} {expected}"
            );
        }
    }
}

/// Nothing is better than anything: no gradient, and no NaN.
#[test]
fn no_advantage_gives_no_gradient() {
    for kind in [
        LossKind::Grpo,
        LossKind::Bnpo,
        LossKind::DrGrpo,
        LossKind::Dapo,
        LossKind::Cispo,
        LossKind::Gspo,
        LossKind::Sapo,
    ] {
        let found = gradient(&options(kind), [[0.0], [0.0]]);
        assert!(
            found.iter().all(|value| *value == 0.0),
            "{kind:?} {found:?}"
        );
    }
}

/// The recipe's masked means: k3 0.0109958531, k1 0.02; k2 by hand, (1 + 1 + 4 + 4 + 1) / 5 / 200.
#[test]
fn divergences_are_the_recipe_s() {
    let device = Device::flex();
    let mean = |kind| {
        let found = divergences(tensor(POLICY, &device), tensor(REFERENCE, &device), kind);
        scalar((found * tensor(MASK, &device)).sum()) / 5.0
    };
    assert!((mean(KlKind::K3) - 0.010_995_853_077).abs() < TOLERANCE);
    assert!((mean(KlKind::K1) - 0.02).abs() < TOLERANCE);
    assert!((mean(KlKind::K2) - 0.011).abs() < TOLERANCE);
}

/// A reference that cannot believe a token gives e²⁰ - 21 and no infinity.
#[test]
fn a_log_ratio_is_bounded() {
    let device = Device::flex();
    let (policy, reference) = (-90.0_f32, -1.0_f32);
    let of = |policy: f32, reference: f32| {
        let one = |value| Tensor::<2>::from_floats([[value]], &device);
        let found = divergences(one(policy), one(reference), KlKind::K3);
        scalar(found.reshape([1]))
    };
    let expected = 20.0_f64.exp() - 21.0;
    assert!((of(policy, reference) / expected - 1.0).abs() < 1e-6);
    assert!((of(reference, policy) - 19.0).abs() < 1e-5);
}

/// By hand, for a completion of 3 of the step's 20 tokens, 8 of them in its micro-batch.
#[test]
fn weights_by_hand() {
    let step = StepSize {
        num_completions: 4,
        num_tokens: 20,
        num_micro_batches: 2,
        max_completion_tokens: 10,
    };
    let cases = [
        (LossKind::Grpo, 12.0),
        (LossKind::Gspo, 12.0),
        (LossKind::Sapo, 12.0),
        (LossKind::Bnpo, 16.0),
        (LossKind::DrGrpo, 40.0),
        (LossKind::Dapo, 20.0),
        (LossKind::Cispo, 20.0),
    ];
    for (kind, divisor) in cases {
        let found = token_weight(kind, 3, 8, step);
        assert!((found * divisor - 1.0).abs() < 1e-12, "{kind:?}");
    }
}
