//! Sliding windows against one plain forward pass per token.

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use eval::perplexity::{WindowConfig, text_loss};
use model::causal_lm::CausalLm;

use crate::scripted::{BOS, byte_tokenizer, random_model, token_of};

/// Sums of about sixty f32 values.
const NLL: f64 = 2e-4;

/// The last token's log-probability after the others.
fn last_logp(model: &CausalLm, ids: &[u32]) -> f64 {
    let (last, read) = ids.split_last().unwrap();
    let (len, device) = (read.len(), Device::flex());
    let read: Vec<i32> = read.iter().map(|&id| id as i32).collect();
    let tensor = |values| Tensor::<2, Int>::from_data(TensorData::new(values, [1, len]), &device);
    let hidden = model.forward(tensor(read), tensor((0..len as i32).collect()));
    let logps: Vec<f32> = log_softmax(model.logits(hidden), 2)
        .into_data()
        .try_into_vec()
        .unwrap();
    f64::from(logps[(len - 1) * model.config().vocab_size + *last as usize])
}

/// Token `i` sees all before it until a window is full; then the windows end every `stride` tokens,
/// the last of them at the end of the text.
fn brute_force(model: &CausalLm, text: &str, window: usize, stride: usize) -> f64 {
    let ids: Vec<u32> = [BOS]
        .into_iter()
        .chain(text.bytes().map(token_of))
        .collect();
    let nll = (1..ids.len()).map(|i| {
        let num_moves = i.saturating_sub(window).div_ceil(stride);
        let end = (window + num_moves * stride).min(ids.len() - 1);
        let start = end.saturating_sub(window);
        -last_logp(model, &ids[start..=i])
    });
    nll.sum()
}

/// 60, 1, 25 and 0 bytes under several windows; a document of no bytes has no tokens.
#[test]
fn windows_give_what_plain_forward_passes_give() {
    let model = random_model();
    let tokenizer = byte_tokenizer();
    let long = "the quick brown fox jumps over the lazy dog, again and again";
    let texts = [long, "x", "什么是窗口? why", ""].map(str::to_owned);
    for (window, stride) in [(64, 64), (16, 16), (16, 8), (7, 3), (5, 1)] {
        let config = WindowConfig { window, stride };
        let found = text_loss(&model, &tokenizer, &texts, config).unwrap();
        let expected: f64 = texts
            .iter()
            .map(|text| brute_force(&model, text, window, stride))
            .sum();
        assert!(
            (found.nll - expected).abs() < NLL,
            "{config:?}: {} for {expected}",
            found.nll
        );
        let num_bytes: usize = texts.iter().map(String::len).sum();
        assert_eq!((found.num_bytes, found.num_tokens), (num_bytes, num_bytes));
        assert_eq!(found.num_documents, 4);
    }
}

#[test]
fn windows_that_make_no_sense_are_refused() {
    let model = random_model();
    let message = |window, stride| {
        let config = WindowConfig { window, stride };
        config.validate(&model).unwrap_err().to_string()
    };
    assert_eq!(
        message(97, 1),
        "window is 97, expected 1 to the model's max_position_embeddings = 96"
    );
    assert_eq!(message(8, 9), "stride is 9, expected 1 to window = 8");
    assert_eq!(message(8, 0), "stride is 0, expected 1 to window = 8");
}
