//! What every decoder must keep: causality, separate documents, seeds that fix the weights.

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::Tolerance;
use model::params::{NamedParam, named_params};
use model::{CausalLm, ModelConfig};

use crate::fixture::{golden_model, hidden, int_tensor, l2_norm, logits};

const MODELS: [&str; 3] = ["v1_dense", "v3_dense", "hf_llama_yarn"];
/// One layer's rounding, twice.
const SAME: f32 = 1e-5;

/// Changing the sixth token leaves the first five positions as they were, and changes the sixth.
#[test]
fn future_tokens_do_not_leak_into_the_past() {
    let device = Device::flex();
    for name in MODELS {
        let model = golden_model(name, &device);
        let before = hidden(&model, &[vec![7, 3, 9, 1, 4, 8]], &device);
        let after = hidden(&model, &[vec![7, 3, 9, 1, 4, 100]], &device);
        let past = |x: &Tensor<3>| x.clone().slice([0..1, 0..5]).into_data();
        past(&before).assert_approx_eq::<f32>(&past(&after), Tolerance::absolute(SAME));

        let last = |x: Tensor<3>| x.slice([0..1, 5..6]);
        let change: f32 = (last(before) - last(after)).abs().max().into_scalar();
        assert!(change > 1e-2, "{name}: {change}");
    }
}

/// Two documents in one row are computed as if each had a row of its own.
#[test]
fn packed_documents_do_not_see_each_other() {
    let device = Device::flex();
    let (first, second) = (vec![7, 3, 9, 1], vec![4, 8, 2, 6, 5]);
    let packed = int_tensor(&[[first.clone(), second.clone()].concat()], &device);
    let positions = int_tensor(&[vec![0, 1, 2, 3, 0, 1, 2, 3, 4]], &device);
    for name in MODELS {
        let model = golden_model(name, &device);
        let packed = model.forward(packed.clone(), positions.clone());
        for (ids, start) in [(&first, 0), (&second, first.len())] {
            let alone = hidden(&model, std::slice::from_ref(ids), &device).into_data();
            let inside = packed
                .clone()
                .slice([0..1, start..start + ids.len()])
                .into_data();
            inside.assert_approx_eq::<f32>(&alone, Tolerance::absolute(SAME));
        }
    }
}

/// Rows of a batch are independent of one another.
#[test]
fn rows_of_a_batch_do_not_see_each_other() {
    let device = Device::flex();
    let model = golden_model("v3_dense", &device);
    let (first, second) = (vec![7, 3, 9, 1], vec![4, 8, 2, 6]);
    let both = logits(&model, &[first.clone(), second], &device);
    let alone = logits(&model, &[first], &device);
    assert!(crate::fixture::max_difference(&both[..alone.len()], &alone) < SAME);
}

/// The tables end where the config says.
#[test]
#[should_panic(expected = "a row of 65 tokens, but max_position_embeddings is 64")]
fn a_row_longer_than_the_tables_is_refused() {
    let device = Device::flex();
    hidden(&golden_model("v1_dense", &device), &[vec![1; 65]], &device);
}

/// First values recorded from a run on x86-64 Linux; every tensor has a stream of its own.
#[test]
fn the_seed_fixes_every_weight() {
    let device = Device::flex();
    let draw = |seed| named_params(&CausalLm::new(&small(), seed, &device));
    assert_eq!(draw(7), draw(7));
    let (seven, eight) = (draw(7), draw(8));
    for (a, b) in seven.iter().zip(&eight) {
        assert_eq!(a == b, a.path.ends_with("norm.weight"), "{}", a.path);
    }
    assert_eq!(seven[0].path, "embed_tokens.weight");
    assert_eq!(
        seven[0].values[..3],
        [-0.012_262_416, 0.010_545_5, 0.003_976_571_4]
    );
    // Another width elsewhere, another number of layers: the same embedding.
    let other = ModelConfig {
        num_hidden_layers: 1,
        intermediate_size: 32,
        ..small()
    };
    assert_eq!(
        named_params(&CausalLm::new(&other, 7, &device))[0],
        seven[0]
    );
}

/// `initializer_range` in general, `1/sqrt(2 · 3)` of it where the residual stream is written.
#[test]
fn fresh_weights_have_their_standard_deviation() {
    for NamedParam { path, values, .. } in
        named_params(&CausalLm::new(&small(), 1, &Device::flex()))
    {
        if path.ends_with("norm.weight") {
            assert!(
                values
                    .iter()
                    .all(|value| value.to_bits() == 1.0_f32.to_bits()),
                "{path}"
            );
            continue;
        }
        let writes_residual = path.ends_with("o_proj.weight") || path.ends_with("down_proj.weight");
        let expected = if writes_residual {
            0.02 / 6.0_f64.sqrt()
        } else {
            0.02
        };
        let std = l2_norm(values.iter().copied()) / (values.len() as f64).sqrt();
        assert!((std / expected - 1.0).abs() < 0.05, "{path}: {std}");
    }
}

/// The mean negative log-likelihood of a fresh model is that of guessing, ln 160 = 5.0752.
#[test]
fn a_fresh_model_guesses_evenly() {
    let device = Device::flex();
    let model = CausalLm::new(&small(), 3, &device);
    let row: Vec<i64> = (0..40).map(|t| t * 37 % 160).collect();
    let hidden = hidden(&model, &[row], &device);
    let logps = burn::tensor::activation::log_softmax(model.logits(hidden), 2);
    let mean: f32 = logps.mean().into_scalar();
    assert!((f64::from(-mean) - 160_f64.ln()).abs() < 0.05, "{mean}");
}

/// Ids come from the paths, so what is kept by id has one order in every process.
#[test]
fn parameter_ids_are_the_same_in_every_model_of_a_shape() {
    let device = Device::flex();
    let ids = |model: &CausalLm| {
        model
            .layers
            .iter()
            .map(|l| l.mlp.dense().unwrap().up_proj.weight.id)
            .collect()
    };
    let (a, b): (Vec<_>, Vec<_>) = (
        ids(&CausalLm::new(&small(), 1, &device)),
        ids(&CausalLm::new(&small(), 2, &device)),
    );
    assert_eq!(a, b);
    assert_ne!(a[0], a[1]);
}

/// A model moved to and from training keeps its values.
#[test]
fn a_model_on_a_training_device_computes_the_same() {
    let (plain, training) = (Device::flex(), Device::flex().autodiff());
    let ids = [vec![7, 3, 9, 1]];
    let model = CausalLm::new(&small(), 5, &training);
    let expected = logits(&CausalLm::new(&small(), 5, &plain), &ids, &plain);
    let in_training = logits(&model, &ids, &training);
    let valid = logits(&model.valid(), &ids, &plain);
    assert!(crate::fixture::max_difference(&in_training, &expected) < SAME);
    assert!(crate::fixture::max_difference(&valid, &expected) < SAME);
}

fn small() -> ModelConfig {
    ModelConfig {
        num_hidden_layers: 3,
        rope_scaling: None,
        ..golden_model("hf_qwen3", &Device::flex()).config().clone()
    }
}
