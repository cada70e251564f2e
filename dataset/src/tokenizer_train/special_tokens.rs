//! The sets of special tokens that MiniMind models were trained with, and what a tokenizer's
//! configuration says about them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use crate::chat::{V1_TEMPLATE, V3_TEMPLATE};

/// Which special tokens come first in the vocabulary, and which chat template goes with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpecialTokens {
    /// MiniMind v1's three and two reserved ones; `<s>user\n..</s>` turns.
    #[default]
    V1,
    /// MiniMind-3's 36, nine of them free for later use; ChatML turns with tools and thinking.
    V3,
}

/// Unknown, beginning and end as MiniMind v1 numbers them, and two to give a meaning later.
const V1_TOKENS: [&str; 5] = ["<unk>", "<s>", "</s>", "<|reserved_0|>", "<|reserved_1|>"];

/// MiniMind-3's tokens 0 to 20, left out of decoded text.
const V3_SPECIAL: [&str; 21] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<|audio_pad|>",
    "<tts_pad>",
    "<tts_text_bos>",
    "<tts_text_eod>",
    "<tts_text_bos_single>",
];

/// MiniMind-3's tokens 21 to 35, which decoded text shows.
const V3_SHOWN: [&str; 15] = [
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
    "<|buffer1|>",
    "<|buffer2|>",
    "<|buffer3|>",
    "<|buffer4|>",
    "<|buffer5|>",
    "<|buffer6|>",
    "<|buffer7|>",
    "<|buffer8|>",
    "<|buffer9|>",
];

impl SpecialTokens {
    /// The tokens in the order of their ids, from 0.
    pub(super) fn tokens(self) -> Vec<AddedToken> {
        let (special, shown): (&[&str], &[&str]) = match self {
            Self::V1 => (&V1_TOKENS, &[]),
            Self::V3 => (&V3_SPECIAL, &V3_SHOWN),
        };
        let special = special.iter().map(|&text| AddedToken::from(text, true));
        let shown = shown.iter().map(|&text| AddedToken::from(text, false));
        special
            .chain(shown)
            .map(|token| token.normalized(false))
            .collect()
    }

    /// The fields of `tokenizer_config.json`.
    pub(super) fn config_fields(self, model_max_length: usize) -> Map<String, Value> {
        let (unknown, bos, eos, template) = match self {
            Self::V1 => ("<unk>", "<s>", "</s>", V1_TEMPLATE),
            Self::V3 => ("<|endoftext|>", "<|im_start|>", "<|im_end|>", V3_TEMPLATE),
        };
        let tokens = self.tokens();
        let named = [unknown, bos, eos];
        let additional = tokens.iter().filter(|token| token.special);
        let additional: Vec<&str> = additional
            .map(|token| token.content.as_str())
            .filter(|text| !named.contains(text))
            .collect();
        let decoder: Map<String, Value> = tokens
            .iter()
            .enumerate()
            .map(|(id, token)| (id.to_string(), json!(token)))
            .collect();
        let fields = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "eos_token": eos,
            "pad_token": unknown,
            "unk_token": unknown,
            "additional_special_tokens": additional,
            "added_tokens_decoder": decoder,
            "add_bos_token": false,
            "add_eos_token": false,
            "add_prefix_space": false,
            "clean_up_tokenization_spaces": false,
            "spaces_between_special_tokens": false,
            "model_max_length": model_max_length,
            "chat_template": template,
        });
        match fields {
            Value::Object(fields) => fields,
            _ => unreachable!("an object was written above"),
        }
    }
}
