//! llama2.c's `tokenizer.bin`: SentencePiece tokens with their scores, made a `tokenizer.json`.
//!
//! Source: `tokenizer.py` and `run.c` of <https://github.com/karpathy/llama2.c>: the length of the
//! longest token as u32, then per token its score as f32, its length as u32 and its bytes. The steps
//! around the vocabulary are those that `transformers` gives a SentencePiece BPE.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{Tokenizer, TokenizerConfig, TokenizerError, read};

/// SentencePiece's stand-in for a space, which the file has as a space.
const SPACE: &str = "\u{2581}";
/// Tokens 0 to 2, which the file decorates with line ends.
const CONTROL: [&str; 3] = ["<unk>", "<s>", "</s>"];
/// Longer tokens are no words of anything.
const MAX_TOKEN_BYTES: usize = 1024;

impl Tokenizer {
    /// Reads a `tokenizer.bin` of llama2.c.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is cut off, or has a token that is too long, twice there or no
    /// text.
    pub fn load_llama2c(path: &Path) -> Result<Self, TokenizerError> {
        let tokens = tokens_of(&read(path)?, path)?;
        let json = tokenizer_json(&tokens).to_string();
        let full = tokenizers::Tokenizer::from_bytes(json.as_bytes()).map_err(|source| {
            TokenizerError::Parse {
                path: path.to_owned(),
                source,
            }
        })?;
        let [unk, bos, eos] = CONTROL;
        let fields = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "eos_token": eos,
            "unk_token": unk,
            "add_bos_token": false,
            "add_eos_token": false,
            "clean_up_tokenization_spaces": false,
        });
        let fields = fields.as_object().cloned().unwrap_or_default();
        Self::new(full, TokenizerConfig::from_fields(fields), path)
    }
}

/// Every token with its score, in the order of the ids.
fn tokens_of(bytes: &[u8], path: &Path) -> Result<Vec<(String, f32)>, TokenizerError> {
    let broken = |index: usize, problem| TokenizerError::Llama2c {
        path: path.to_owned(),
        index,
        problem,
    };
    let mut rest = bytes.get(4..).ok_or_else(|| broken(0, "is cut off"))?;
    let mut ids = BTreeMap::new();
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let index = tokens.len();
        let (head, tail) = rest
            .split_first_chunk::<8>()
            .ok_or_else(|| broken(index, "is cut off"))?;
        let score = f32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if len > MAX_TOKEN_BYTES {
            return Err(broken(index, "is longer than 1024 bytes"));
        }
        let text = tail.get(..len).ok_or_else(|| broken(index, "is cut off"))?;
        let text = std::str::from_utf8(text).map_err(|_| broken(index, "is not UTF-8"))?;
        let token = match CONTROL.get(index) {
            Some(control) => (*control).to_owned(),
            None => text.replace(' ', SPACE),
        };
        if token.is_empty() || ids.insert(token.clone(), index).is_some() {
            return Err(broken(index, "is empty or there already"));
        }
        tokens.push((token, score));
        rest = &tail[len..];
    }
    if tokens.len() <= CONTROL.len() {
        return Err(broken(tokens.len(), "is missing"));
    }
    Ok(tokens)
}

fn tokenizer_json(tokens: &[(String, f32)]) -> Value {
    let vocab: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, (token, _))| (token.clone(), id.into()))
        .collect();
    let added = CONTROL.iter().enumerate().map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    });
    json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<Value>>(),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE",
            "unk_token": CONTROL[0],
            "fuse_unk": true,
            "byte_fallback": true,
            "vocab": vocab,
            "merges": merges_of(tokens),
        },
    })
}

/// The pairs that make a token, those of better tokens first: SentencePiece always joins the pair
/// whose whole has the best score.
fn merges_of(tokens: &[(String, f32)]) -> Vec<[&str; 2]> {
    let ids: BTreeMap<&str, usize> = tokens
        .iter()
        .enumerate()
        .map(|(id, (token, _))| (token.as_str(), id))
        .collect();
    let mut merges = Vec::new();
    for (token, score) in tokens.iter().skip(CONTROL.len()) {
        let mut pairs: Vec<(usize, usize, [&str; 2])> = token
            .char_indices()
            .skip(1)
            .filter_map(|(middle, _)| {
                let (left, right) = token.split_at(middle);
                Some((*ids.get(left)?, *ids.get(right)?, [left, right]))
            })
            .collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(_, _, pair)| (*score, pair)));
    }
    merges.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    merges.into_iter().map(|(_, pair)| pair).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file of `<unk>`, `<s>`, `</s>` and these.
    fn file(tokens: &[(&str, f32)]) -> Vec<u8> {
        let control = [("<unk>", 0.0), ("\n<s>\n", 0.0), ("\n</s>\n", 0.0)];
        let mut bytes = 10_u32.to_le_bytes().to_vec();
        for (token, score) in control.iter().chain(tokens) {
            bytes.extend(score.to_le_bytes());
            bytes.extend((token.len() as u32).to_le_bytes());
            bytes.extend(token.as_bytes());
        }
        bytes
    }

    fn load(bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.bin");
        fs::write(&path, bytes).unwrap();
        Tokenizer::load_llama2c(&path)
    }

    /// By hand: `ab` (score -1) goes before `bc` (-2), the better of two overlapping pairs; what has
    /// no token is its bytes.
    #[test]
    fn the_pair_with_the_best_score_is_joined_first() {
        let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
        let mut tokens: Vec<(&str, f32)> = bytes.iter().map(|byte| (byte.as_str(), 0.0)).collect();
        let words = [
            ("ab", -1.0),
            ("bc", -2.0),
            (" ", -3.0),
            ("a", -4.0),
            ("b", -5.0),
            ("c", -6.0),
        ];
        tokens.extend(words);
        let tokenizer = load(&file(&tokens)).unwrap();
        let [ab, space, c] = [0, 2, 5].map(|word| 3 + 256 + word);
        assert_eq!(tokenizer.encode("abc"), [space, ab, c]);
        let eta = "\u{3b7}".as_bytes().iter().map(|byte| 3 + u32::from(*byte));
        let ids: Vec<u32> = std::iter::once(space).chain(eta).collect();
        assert_eq!(tokenizer.encode("\u{3b7}"), ids);
        assert_eq!(tokenizer.decode(&ids, true), "\u{3b7}");
        assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(1), Some(2)));
    }

    /// Every byte of a file made small, large or negative: a tokenizer or an error, whatever it says.
    #[test]
    fn damaged_files_are_tokenizers_or_errors() {
        let whole = file(&[("a", 0.0), ("b", -1.0), ("ab", -2.0)]);
        let values = [0, 1, 0x7f, 0x80, 0xff];
        let places = (0..whole.len()).flat_map(|at| values.map(|byte| (at, byte)));
        let is_read = |&(at, byte): &(usize, u8)| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            load(&bytes).is_ok()
        };
        let num_read = places.filter(is_read).count();
        let num_damaged = whole.len() * values.len();
        assert!((1..num_damaged).contains(&num_read), "{num_read}");
    }

    /// A file that is cut at every place, and one with a length beyond its end.
    #[test]
    fn broken_files_are_errors_that_name_the_token() {
        let whole = file(&[("a", 0.0)]);
        for len in 0..whole.len() - 9 {
            let error = load(&whole[..len]).unwrap_err();
            assert!(error.to_string().contains("token "), "{error}");
        }
        let mut long = whole.clone();
        let at = whole.len() - 5;
        long[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let message = load(&long).unwrap_err().to_string();
        assert!(
            message.ends_with("token 3 is longer than 1024 bytes"),
            "{message}"
        );
    }
}
