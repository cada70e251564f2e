//! Choosing tokens: what a graphics card chooses is what the host chooses, but for the rounding of sums.
//!
//! The expected shares are computed here once more, from a whole sort in f64.

use burn::prelude::*;
use model::generate::GenerateConfig;
#[cfg(feature = "cube")]
use model::kernels::choice::reference;
use model::kernels::choice::{ChosenToken, RowChoice, choose_tokens};
use model::sample::{Choice, LogitsNotFinite};

#[cfg(feature = "cube")]
use crate::card::card;
use crate::check::Noise;

/// How far f32 sums over thousands of shares may move the border between two tokens.
#[cfg(feature = "cube")]
const BORDER: f64 = 2e-6;

/// Absolute bound on log-probabilities and entropies of up to 10 nats, in f32.
#[cfg(feature = "cube")]
const SCORE_TOLERANCE: f64 = 2e-5;

type Chosen = Vec<Result<ChosenToken, LogitsNotFinite>>;

/// Rows of logits with what is asked of each.
struct Case {
    vocab_size: usize,
    logits: Vec<f32>,
    configs: Vec<GenerateConfig>,
    uniforms: Vec<f64>,
}

impl Case {
    fn new(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            logits: Vec::new(),
            configs: Vec::new(),
            uniforms: Vec::new(),
        }
    }

    fn push(&mut self, logits: &[f32], config: &GenerateConfig, uniform: f64) {
        assert_eq!(logits.len(), self.vocab_size);
        self.logits.extend_from_slice(logits);
        self.configs.push(config.clone());
        self.uniforms.push(uniform);
    }

    fn rows(&self) -> impl Iterator<Item = (&[f32], &GenerateConfig, f64)> {
        self.logits
            .chunks_exact(self.vocab_size)
            .zip(&self.configs)
            .zip(&self.uniforms)
            .map(|((logits, config), &uniform)| (logits, config, uniform))
    }

    /// Tokens and everything that can be asked about them.
    fn chosen(&self, device: &Device, choose: fn(Tensor<2>, &[RowChoice<'_>]) -> Chosen) -> Chosen {
        let shape = [self.configs.len(), self.vocab_size];
        let logits = Tensor::from_data(TensorData::new(self.logits.clone(), shape), device);
        let choice = |(_, config, uniform)| RowChoice {
            choice: Choice { config, uniform },
            with_logprob: true,
            score_temperature: Some(1.7),
        };
        choose(logits, &self.rows().map(choice).collect::<Vec<_>>())
    }
}

/// Random logits with a spread of some nats; every third row has ties, every fourth has tokens that
/// are ruled out.
fn random_row(vocab_size: usize, number: usize, noise: &mut Noise) -> Vec<f32> {
    let value = |value: f64| 6.0 * value as f32;
    let mut logits: Vec<f32> = noise.values(vocab_size).into_iter().map(value).collect();
    if number.is_multiple_of(3) {
        for logit in &mut logits {
            *logit = (*logit * 2.0).round() / 2.0;
        }
    }
    if number.is_multiple_of(4) {
        for _ in 0..vocab_size / 2 {
            logits[noise.below(vocab_size)] = f32::NEG_INFINITY;
        }
        logits[noise.below(vocab_size)] = 1.0;
    }
    logits
}

/// Every filter alone, all together, and none.
fn settings() -> Vec<GenerateConfig> {
    let sampling = GenerateConfig {
        do_sample: true,
        ..GenerateConfig::greedy(1)
    };
    let of = |temperature, top_k, top_p, min_p| GenerateConfig {
        temperature,
        top_k,
        top_p,
        min_p,
        ..sampling.clone()
    };
    vec![
        of(1.0, 0, 1.0, 0.0),
        of(0.3, 0, 1.0, 0.0),
        of(4.0, 0, 1.0, 0.0),
        of(1.0, 1, 1.0, 0.0),
        of(1.5, 5, 1.0, 0.0),
        of(3.0, 9999, 1.0, 0.0),
        of(1.0, 0, 0.9, 0.0),
        of(2.5, 0, 0.35, 0.0),
        of(1.0, 0, 1e-9, 0.0),
        of(1.0, 0, 1.0, 0.05),
        of(2.0, 0, 1.0, 1.0),
        of(0.85, 50, 0.85, 0.0),
        of(2.0, 20, 0.95, 0.02),
        of(1e-300, 0, 1.0, 0.0),
        of(1e-300, 3, 0.5, 0.1),
        of(0.0, 0, 1.0, 0.0),
        GenerateConfig::greedy(1),
    ]
}

/// Ids that the filters leave with the shares at which they end, by a sort of everything.
fn ends_of_shares(config: &GenerateConfig, logits: &[f32]) -> Vec<(u32, f64)> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| (f64::from(logit - largest) / config.temperature).exp();
    let mut left: Vec<(u32, f64)> = (0..)
        .zip(logits.iter().map(|&logit| weight(logit)))
        .collect();
    left.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if config.top_k > 0 {
        left.truncate(config.top_k);
    }
    let total = |left: &[(u32, f64)]| left.iter().map(|token| token.1).sum::<f64>();
    if config.top_p < 1.0 {
        let enough = config.top_p * total(&left);
        let needed = |count: &usize| total(&left[..*count]) < enough;
        left.truncate((0..left.len()).take_while(needed).count());
    }
    left.retain(|token| token.1 >= config.min_p && token.1 > 0.0);
    let whole = total(&left);
    let mut end = 0.0;
    for token in &mut left {
        end += token.1 / whole;
        token.1 = end;
    }
    left
}

/// Another token than the host's only where the share lies on its border. Says for how many rows.
#[cfg(feature = "cube")]
fn assert_chosen_alike(case: &Case, found: &Chosen, expected: &Chosen) -> usize {
    assert_eq!(found.len(), expected.len());
    let mut num_moved = 0;
    for (((logits, config, uniform), found), expected) in case.rows().zip(found).zip(expected) {
        let (Ok(found), Ok(expected)) = (found, expected) else {
            assert_eq!(found, expected, "{config:?}");
            continue;
        };
        if found.token_id != expected.token_id {
            let ends = ends_of_shares(config, logits);
            let place = |id| ends.iter().position(|token| token.0 == id);
            let places = [found, expected].map(|token| place(token.token_id).unwrap());
            let (first, second) = (places[0].min(places[1]), places[0].max(places[1]));
            let distance = (ends[first].1 - uniform).abs();
            assert!(
                second == first + 1 && distance < BORDER,
                "{found:?} and not {expected:?} of {} at {uniform}: {config:?}",
                case.vocab_size
            );
            num_moved += 1;
        }
    }
    num_moved
}

/// Rows of one width under every setting.
fn random_case(vocab_size: usize, noise: &mut Noise) -> Case {
    let mut case = Case::new(vocab_size);
    for (number, config) in settings().iter().cycle().take(3 * 17).enumerate() {
        let logits = random_row(vocab_size, number, noise);
        let uniform = f64::midpoint(noise.values(1)[0], 1.0).min(1.0 - 1e-9);
        let uniform = if number % 7 == 0 { 0.0 } else { uniform };
        case.push(&logits, config, uniform);
    }
    case
}

/// The sort is the expected value of the host's choice too.
#[test]
fn the_host_chooses_what_a_whole_sort_says() {
    let mut noise = Noise::new(91);
    for vocab_size in [1, 2, 33, 700] {
        let case = random_case(vocab_size, &mut noise);
        let found = case.chosen(&Device::flex(), choose_tokens);
        for ((logits, config, uniform), found) in case.rows().zip(found) {
            let ends = ends_of_shares(config, logits);
            let is_greedy = !config.do_sample || config.temperature == 0.0;
            let share = if is_greedy { 0.0 } else { uniform };
            let expected = ends.iter().find(|token| token.1 > share);
            let expected = expected.or(ends.last()).map(|token| token.0);
            let likeliest = (0..)
                .zip(logits)
                .fold((0, f32::NEG_INFINITY), |best, (id, &l)| {
                    if l > best.1 { (id, l) } else { best }
                });
            let expected = if is_greedy {
                Some(likeliest.0)
            } else {
                expected
            };
            assert_eq!(Some(found.unwrap().token_id), expected, "{config:?}");
        }
    }
}

/// The host's choice is the expected value.
#[cfg(feature = "cube")]
#[test]
fn a_graphics_card_chooses_what_the_host_chooses() {
    let Some(device) = card() else { return };
    let mut noise = Noise::new(92);
    let (mut num_moved, mut num_rows) = (0, 0);
    for vocab_size in [1, 2, 33, 255, 700, 6401] {
        let case = random_case(vocab_size, &mut noise);
        let expected = case.chosen(&Device::flex(), reference::choose_tokens);
        let found = case.chosen(&device, choose_tokens);
        num_moved += assert_chosen_alike(&case, &found, &expected);
        num_rows += found.len();
        for (found, expected) in found.iter().zip(&expected) {
            let (found, expected) = (found.unwrap(), expected.unwrap());
            if found.token_id == expected.token_id {
                assert_scores_alike(found, expected);
            }
        }
    }
    assert!(50 * num_moved < num_rows, "{num_moved} of {num_rows} moved");
}

#[cfg(feature = "cube")]
fn assert_scores_alike(found: ChosenToken, expected: ChosenToken) {
    let numbers = |token: ChosenToken| {
        let score = token.score.unwrap();
        let logprob = token.logprob.unwrap();
        [f64::from(logprob), f64::from(score.logp), score.entropy]
    };
    for (found, expected) in numbers(found).into_iter().zip(numbers(expected)) {
        let difference = (found - expected).abs();
        assert!(difference < SCORE_TOLERANCE, "{found} and not {expected}");
    }
}

/// A row is asked alone and among rows that ask for more.
#[cfg(feature = "cube")]
#[test]
fn a_row_is_given_the_same_token_in_any_batch_of_a_graphics_card() {
    let Some(device) = card() else { return };
    let mut noise = Noise::new(93);
    let case = random_case(700, &mut noise);
    let together = case.chosen(&device, choose_tokens);
    // One row under each setting.
    for ((logits, config, uniform), expected) in case.rows().zip(together).take(17) {
        let mut alone = Case::new(700);
        alone.push(logits, config, uniform);
        assert_eq!(alone.chosen(&device, choose_tokens), [expected]);
    }
}

/// By hand: places 1 to 4 hold the same logit, place 0 and the rest lie below it.
#[cfg(feature = "cube")]
#[test]
fn a_graphics_card_keeps_the_lowest_ids_among_equals() {
    let Some(device) = card() else { return };
    let logits = [0.5, 2.0, 2.0, 2.0, 2.0, -0.0, 0.0];
    let config = |top_k, top_p| GenerateConfig {
        do_sample: true,
        top_k,
        top_p,
        ..GenerateConfig::greedy(1)
    };
    let cases = [
        (config(3, 1.0), 0.0, 1),
        (config(3, 1.0), 0.34, 2),
        (config(3, 1.0), 0.99, 3),
        (config(4, 1.0), 0.99, 4),
        // Two of four equal tokens reach 0.49 of the weight, three reach 0.51.
        (config(4, 0.49), 0.99, 2),
        (config(4, 0.51), 0.99, 3),
        (config(6, 1.0), 0.999, 5),
        (config(7, 1.0), 0.9999, 6),
    ];
    let mut case = Case::new(logits.len());
    for (config, uniform, _) in &cases {
        case.push(&logits, config, *uniform);
    }
    let found = case.chosen(&device, choose_tokens);
    for (found, (config, uniform, expected)) in found.into_iter().zip(cases) {
        let id = found.unwrap().token_id;
        assert_eq!(id, expected, "{config:?} at {uniform}");
    }
}

/// Rows that allow no choice are errors as on the host; rows beside them are not.
#[cfg(feature = "cube")]
#[test]
fn logits_that_are_not_finite_are_an_error_on_a_graphics_card_too() {
    let Some(device) = card() else { return };
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let rows = [
        ([1.0, 2.0, 0.5], Ok(1)),
        ([1.0, nan, 0.5], Err(LogitsNotFinite)),
        ([1.0, 2.0, inf], Err(LogitsNotFinite)),
        ([-inf, -inf, -inf], Err(LogitsNotFinite)),
        ([-inf, -inf, -3e38], Ok(2)),
        ([-3e38, 3e38, -inf], Ok(1)),
        ([-inf, -nan, 1.0], Err(LogitsNotFinite)),
    ];
    for config in [
        GenerateConfig::greedy(1),
        GenerateConfig {
            temperature: 0.1,
            ..GenerateConfig::minimind(1)
        },
    ] {
        let mut case = Case::new(3);
        for (logits, _) in &rows {
            case.push(logits, &config, 0.5);
        }
        for device in [&Device::flex(), &device] {
            let found = case.chosen(device, choose_tokens);
            let ids = found.into_iter().map(|found| found.map(|it| it.token_id));
            assert!(ids.eq(rows.map(|row| row.1)), "{config:?} on {device:?}");
        }
    }
}

/// Shares at equal distances: each token comes up as often as it is likely, to one draw.
#[cfg(feature = "cube")]
#[test]
fn tokens_come_up_as_often_as_they_are_likely_on_a_graphics_card() {
    const DRAWS: u32 = 400;
    let Some(device) = card() else { return };
    let shares = [0.15_f32, 0.4, 0.01, 0.04, 0.4];
    let config = GenerateConfig {
        do_sample: true,
        ..GenerateConfig::greedy(1)
    };
    let mut case = Case::new(shares.len());
    for number in 0..DRAWS {
        let uniform = (f64::from(number) + 0.5) / f64::from(DRAWS);
        case.push(&shares.map(f32::ln), &config, uniform);
    }
    let mut counts = [0.0_f32; 5];
    for found in case.chosen(&device, choose_tokens) {
        counts[found.unwrap().token_id as usize] += 1.0;
    }
    for (count, share) in counts.into_iter().zip(shares) {
        assert!((count - share * DRAWS as f32).abs() <= 1.0, "{counts:?}");
    }
}
