//! A model that is certain to write a given text, and a tokenizer with one token per byte.

use std::fs;
use std::path::Path;

use burn::module::Param;
use burn::prelude::*;
use dataset::chat::V1_TEMPLATE;
use dataset::tokenizer::Tokenizer;
use model::causal_lm::CausalLm;
use model::config::{ModelConfig, ModelType};
use serde_json::json;

/// `<unk>`, `<s>` and `</s>`, then the bytes.
pub(crate) const VOCAB_SIZE: usize = 3 + 256;
pub(crate) const BOS: u32 = 1;
pub(crate) const EOS: u32 = 2;

/// Tokens that the models here can read.
pub(crate) const MAX_POSITIONS: usize = 96;

/// How far a certain token's logit is above the others.
const CERTAINTY: f32 = 10.0;

/// A model that answers a prompt ending in `last_of_prompt` with `answer` and the stop id, whatever
/// came before.
///
/// The layer adds nothing to the embedding, which is one-hot; the head knows the successor of every
/// token. So no byte may come twice.
pub(crate) fn model_that_writes(last_of_prompt: char, answer: &str) -> CausalLm {
    let config = config();
    let device = Device::flex();
    let mut model = CausalLm::new(&config, 0, &device);
    model.embed_tokens.weight = Param::from_tensor(Tensor::eye(VOCAB_SIZE, &device));
    let layer = &mut model.layers[0];
    let mlp = layer.mlp.dense_mut().expect("the layer has no experts");
    for adds in [&mut layer.self_attn.o_proj, &mut mlp.down_proj] {
        let shape = adds.weight.dims();
        adds.weight = Param::from_tensor(Tensor::zeros(shape, &device));
    }

    let mut successors = vec![0.0; VOCAB_SIZE * VOCAB_SIZE]; // [D, V]
    let mut previous = token_of(last_of_prompt as u8);
    for next in answer.bytes().map(token_of).chain([EOS]) {
        let row = &mut successors[previous as usize * VOCAB_SIZE..][..VOCAB_SIZE];
        assert!(
            row.iter().all(|&logit| logit == 0.0),
            "byte {} comes twice",
            previous - 3
        );
        row[next as usize] = CERTAINTY;
        previous = next;
    }
    let weight = TensorData::new(successors, [VOCAB_SIZE, VOCAB_SIZE]);
    let head = model.lm_head.as_mut().expect("the head is not tied");
    head.weight = Param::from_tensor(Tensor::from_data(weight, &device));
    model
}

fn config() -> ModelConfig {
    ModelConfig {
        model_type: ModelType::Llama,
        vocab_size: VOCAB_SIZE,
        hidden_size: VOCAB_SIZE,
        intermediate_size: 4,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        head_dim: 4,
        max_position_embeddings: MAX_POSITIONS,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        experts: None,
        rope_scaling: None,
        tie_word_embeddings: false,
        initializer_range: 0.02,
        bos_token_id: Some(BOS),
        eos_token_id: vec![EOS],
        pad_token_id: Some(0),
    }
}

/// A model of the same shape that knows nothing, but is sure of much.
pub(crate) fn random_model() -> CausalLm {
    let config = ModelConfig {
        hidden_size: 32,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        initializer_range: 0.6,
        ..config()
    };
    CausalLm::new(&config, 5, &Device::flex())
}

pub(crate) fn token_of(byte: u8) -> u32 {
    3 + u32::from(byte)
}

/// Writes a tokenizer without merges, with MiniMind v1's control tokens and template.
pub(crate) fn write_byte_tokenizer(dir: &Path) {
    let specials = ["<unk>", "<s>", "</s>"];
    let mut vocab = serde_json::Map::new();
    for (id, token) in specials.into_iter().enumerate() {
        vocab.insert(token.to_owned(), id.into());
    }
    for (byte, letter) in (0..=255).zip(byte_letters()) {
        vocab.insert(letter.to_string(), token_of(byte).into());
    }
    let added: Vec<_> = specials
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added, "normalizer": null, "pre_tokenizer": byte_level,
        "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": []}});
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>",
        "chat_template": V1_TEMPLATE});
    fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
}

pub(crate) fn byte_tokenizer() -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    write_byte_tokenizer(dir.path());
    Tokenizer::load(dir.path()).unwrap()
}

/// GPT-2's letter for each byte: itself where it is printable, else one from U+0100 on.
fn byte_letters() -> impl Iterator<Item = char> {
    let mut next_stand_in = 0x100;
    (0..=255_u8).map(move |byte| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => {
            next_stand_in += 1;
            char::from_u32(next_stand_in - 1).expect("these letters exist")
        }
    })
}
