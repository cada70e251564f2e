//! Tokens that are added to a model.

use burn::prelude::*;
use model::CausalLm;
use model::hf::{load_model, save_model};
use tempfile::TempDir;

use crate::fixture::{golden_model, int_tensor};

fn logits(model: &CausalLm, device: &Device) -> Vec<Vec<f32>> {
    let ids = int_tensor(&[vec![3, 9, 27, 5]], device);
    let positions = int_tensor(&[vec![0, 1, 2, 3]], device);
    let logits = model.logits(model.forward(ids, positions)); // [1, T, V]
    let vocab_size = logits.dims()[2];
    let values: Vec<f32> = logits.into_data().iter().collect();
    values.chunks(vocab_size).map(<[f32]>::to_vec).collect()
}

/// The logits of known tokens are the same, those of new ones between the others; a folder keeps
/// them, tied and untied.
#[test]
fn known_tokens_keep_their_logits() {
    let device = Device::flex();
    for name in ["hf_llama", "hf_llama_untied"] {
        let plain = golden_model(name, &device);
        let known = plain.config().vocab_size;
        let larger = plain.clone().with_vocab_size(known + 2, 5);
        assert_eq!(larger.config().vocab_size, known + 2);
        let dir = TempDir::new().unwrap();
        save_model(&larger, dir.path()).unwrap();
        let read = load_model(dir.path(), &device).unwrap();
        for (before, after) in logits(&plain, &device).iter().zip(logits(&read, &device)) {
            assert_eq!(after.len(), known + 2);
            let difference = before.iter().zip(&after).map(|(a, b)| (a - b).abs());
            assert!(difference.fold(0.0, f32::max) < 1e-6, "{name}");
            let (least, most) = before.iter().fold((0.0, 0.0), |(least, most), &logit| {
                (f32::min(least, logit), f32::max(most, logit))
            });
            for new in &after[known..] {
                assert!(least < *new && *new < most, "{name}: {new}");
            }
            assert!((after[known] - after[known + 1]).abs() > 1e-4, "{name}");
        }
    }
}
