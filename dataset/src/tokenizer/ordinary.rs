//! The view of a vocabulary that user text goes through: without the tokens that steer a model.

use serde_json::{Map, Value, json};

/// A token that means something to the model's template, so that user text must not become it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlToken {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Whether it is left out of decoded text (`<|im_end|>` is, `<think>` is not).
    pub is_special: bool,
}

/// The added tokens in the order of their ids, but for runs of white space: GPT-NeoX and others
/// add those as ordinary vocabulary.
pub(super) fn control_tokens(tokenizer: &tokenizers::Tokenizer) -> Vec<ControlToken> {
    let added = tokenizer.get_added_tokens_decoder();
    let mut tokens: Vec<ControlToken> = added
        .into_iter()
        .filter(|(_, token)| !token.content.trim().is_empty())
        .map(|(id, token)| ControlToken {
            id,
            text: token.content,
            is_special: token.special,
        })
        .collect();
    tokens.sort_by_key(|token| token.id);
    tokens
}

/// The same tokenizer with the control tokens taken out of its added vocabulary and of its model,
/// so that no text whatever can become one.
pub(super) fn without_control_tokens(
    tokenizer: &tokenizers::Tokenizer,
    control_tokens: &[ControlToken],
) -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut json = serde_json::to_value(tokenizer)?;
    let is_control = |text: &str| control_tokens.iter().any(|token| token.text == text);
    let is_control_value = |value: &Value| value.as_str().is_some_and(is_control);

    let mut kept = Vec::new();
    if let Some(added) = json["added_tokens"].as_array_mut() {
        added.retain(|token| !is_control_value(&token["content"]));
        kept.clone_from(added);
    }
    let model = &mut json["model"];
    let unknown = model["unk_token"].as_str().map(str::to_owned);
    if let Some(vocab) = model["vocab"].as_object_mut() {
        // The unknown token stays: the model needs its id, and spelling it out does not give it.
        let old = std::mem::take(vocab);
        *vocab = old
            .into_iter()
            .filter(|(text, _)| !is_control(text) || Some(text) == unknown.as_ref())
            .collect::<Map<_, _>>();
        // A kept added token without an entry in the model would be numbered anew.
        for token in &kept {
            if let Some(text) = token["content"].as_str() {
                vocab.entry(text).or_insert_with(|| token["id"].clone());
            }
        }
    } else if let Some(pieces) = model["vocab"].as_array_mut() {
        // A unigram model numbers its pieces by position: hide the text, keep the place.
        for (id, piece) in pieces.iter_mut().enumerate() {
            if is_control_value(&piece[0]) {
                piece[0] = json!(format!("\u{0}{id}\u{0}"));
            }
        }
    }
    if let Some(merges) = model["merges"].as_array_mut() {
        merges.retain(|merge| {
            let [left, right] = [&merge[0], &merge[1]].map(|part| part.as_str().unwrap_or(""));
            ![left, right, &format!("{left}{right}")]
                .into_iter()
                .any(is_control)
        });
    }
    Ok(serde_json::from_value(json)?)
}
