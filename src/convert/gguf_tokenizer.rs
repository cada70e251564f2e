//! A tokenizer as GGUF holds it: tokens in the order of their ids, merges, and which regular
//! expression cuts a text into words.

use anyhow::{Context, Result, bail};
use dataset::tokenizer::Tokenizer;
use model::ModelConfig;
use model::gguf::Metadata;
use serde_json::Value;

/// llama.cpp's kinds of tokens.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// How Qwen cuts a text into words; llama.cpp calls it `qwen2`.
const QWEN_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Everything that a GGUF file says besides the model's shape.
///
/// # Errors
///
/// A tokenizer that is no byte-level BPE, or that cuts words in a way llama.cpp has no name for.
pub(super) fn metadata(
    name: &str,
    tokenizer: &Tokenizer,
    config: &ModelConfig,
) -> Result<Vec<(String, Metadata)>> {
    let json = tokenizer.to_json();
    let text = |text: &str| Metadata::Text(text.to_owned());
    let (tokens, kinds) = tokens_and_kinds(tokenizer, &json, config.vocab_size as u32);
    let mut pairs = vec![
        ("general.name", text(name)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text(words_of(&json)?)),
        ("tokenizer.ggml.tokens", Metadata::Texts(tokens)),
        ("tokenizer.ggml.token_type", Metadata::I32s(kinds)),
        ("tokenizer.ggml.merges", merges_of(&json)?),
        ("tokenizer.ggml.add_bos_token", Metadata::Bool(false)),
        ("tokenizer.ggml.add_eos_token", Metadata::Bool(false)),
        (
            "tokenizer.ggml.padding_token_id",
            Metadata::U32(tokenizer.pad_id()),
        ),
    ];
    let eos_id = config.eos_token_id.first().copied().or(tokenizer.eos_id());
    for (key, id) in [
        ("tokenizer.ggml.bos_token_id", tokenizer.bos_id()),
        ("tokenizer.ggml.eos_token_id", eos_id),
    ] {
        pairs.extend(id.map(|id| (key, Metadata::U32(id))));
    }
    if let Some(template) = tokenizer.chat_template() {
        pairs.push(("tokenizer.chat_template", text(template.source())));
    }
    let owned = pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    Ok(owned.collect())
}

/// Every id's token, and whether it is text, steers the model, or is none.
fn tokens_and_kinds(
    tokenizer: &Tokenizer,
    json: &Value,
    vocab_size: u32,
) -> (Vec<String>, Vec<i32>) {
    let added = json["added_tokens"].as_array();
    let is_added = |id: u32| added.is_some_and(|added| added.iter().any(|token| token["id"] == id));
    let is_special = |id: u32| {
        let mut control = tokenizer.control_tokens().iter();
        control.any(|token| token.id == id && token.is_special)
    };
    let of_id = |id| match tokenizer.id_to_token(id) {
        None => (format!("[PAD{id}]"), UNUSED),
        Some(token) if is_special(id) => (token, CONTROL),
        Some(token) if is_added(id) => (token, USER_DEFINED),
        Some(token) => (token, NORMAL),
    };
    (0..vocab_size).map(of_id).unzip()
}

fn merges_of(json: &Value) -> Result<Metadata> {
    let merges = json["model"]["merges"].as_array();
    let merges = merges.into_iter().flatten().map(|merge| match merge {
        Value::String(merge) => Some(merge.clone()),
        pair => Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?)),
    });
    let merges = merges.collect::<Option<Vec<String>>>();
    merges
        .map(Metadata::Texts)
        .context("the tokenizer has a merge that is no pair of tokens")
}

/// llama.cpp's name for the way a text is cut into words.
fn words_of(json: &Value) -> Result<&'static str> {
    let kind = json["model"]["type"].as_str().unwrap_or("BPE");
    if kind != "BPE" || json["model"]["byte_fallback"] == true {
        bail!("the tokenizer is not byte-level BPE, as which alone GGUF is written");
    }
    if !json["normalizer"].is_null() && json["normalizer"]["type"] != "NFC" {
        bail!("the tokenizer's normalizer has no name in llama.cpp, expected none");
    }
    let pre_tokenizer = &json["pre_tokenizer"];
    let steps = match pre_tokenizer["pretokenizers"].as_array() {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(pre_tokenizer),
    };
    let is_gpt2 = |step: &Value| step["type"] == "ByteLevel" && step["use_regex"] != false;
    match steps {
        [bytes] if is_gpt2(bytes) => Ok("gpt-2"),
        // Every digit a word of its own, as SmolLM has it too.
        [digits, bytes]
            if digits["type"] == "Digits"
                && digits["individual_digits"] == true
                && is_gpt2(bytes) =>
        {
            Ok("smollm")
        }
        [split, bytes]
            if bytes["type"] == "ByteLevel" && split["pattern"]["Regex"] == QWEN_WORDS =>
        {
            Ok("qwen2")
        }
        _ => bail!(
            "the tokenizer's pre-tokenizer has no name in llama.cpp, expected GPT-2's, SmolLM's or \
             Qwen's"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(pre_tokenizer: &Value) -> Option<&'static str> {
        words_of(&json!({ "pre_tokenizer": pre_tokenizer })).ok()
    }

    /// MiniMind's, kindling's and Qwen's, and two that llama.cpp would cut otherwise.
    #[test]
    fn words_are_cut_as_the_tokenizer_says() {
        let gpt2 = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true});
        assert_eq!(words(&gpt2), Some("gpt-2"));
        let digits = json!({"type": "Digits", "individual_digits": true});
        let kindling = json!({"type": "Sequence", "pretokenizers": [digits, gpt2]});
        assert_eq!(words(&kindling), Some("smollm"));
        let bytes = json!({"type": "ByteLevel", "use_regex": false});
        let split = json!({"type": "Split", "pattern": {"Regex": QWEN_WORDS}});
        let qwen = json!({"type": "Sequence", "pretokenizers": [split, bytes]});
        assert_eq!(words(&qwen), Some("qwen2"));
        assert_eq!(words(&bytes), None);
        assert_eq!(words(&Value::Null), None);
    }
}
