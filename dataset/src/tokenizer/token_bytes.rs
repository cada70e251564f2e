//! The bytes that a token stands for, which need not be whole characters.

use std::collections::BTreeMap;

use super::Tokenizer;

impl Tokenizer {
    /// Bytes of every id in text: by the byte-level letters where the vocabulary is of those, else
    /// what the token decodes to alone. Control tokens that are left out of text have none.
    pub fn token_bytes(&self) -> Vec<Vec<u8>> {
        let is_byte_level = self.to_json()["decoder"]["type"] == "ByteLevel";
        let bytes_by_letter: BTreeMap<char, u8> = byte_letters().collect();
        let is_added: Vec<u32> = self.control_tokens.iter().map(|token| token.id).collect();
        (0..self.vocab_size as u32)
            .map(|id| {
                if is_byte_level && !is_added.contains(&id) {
                    let token = self.id_to_token(id).unwrap_or_default();
                    let bytes = token.chars().map(|letter| bytes_by_letter.get(&letter));
                    if let Some(bytes) = bytes.collect::<Option<Vec<&u8>>>() {
                        return bytes.into_iter().copied().collect();
                    }
                }
                self.decode(&[id], true).into_bytes()
            })
            .collect()
    }
}

/// GPT-2's letter for each byte: itself where it is printable, else one from U+0100 on.
fn byte_letters() -> impl Iterator<Item = (char, u8)> {
    let mut next_stand_in = 0x100;
    (0..=255_u8).map(move |byte| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => (char::from(byte), byte),
        _ => {
            next_stand_in += 1;
            let letter = char::from_u32(next_stand_in - 1).expect("these letters exist");
            (letter, byte)
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::tokenizer_train::TokenizerTrainer;

    /// Whatever the tokens are cut like, their bytes join to the text's.
    #[test]
    fn bytes_of_tokens_join_to_the_text() {
        let trainer = TokenizerTrainer {
            vocab_size: 280,
            ..TokenizerTrainer::default()
        };
        let tokenizer = trainer.train(["你好 你好\n the the"].iter()).unwrap();
        let bytes = tokenizer.token_bytes();
        assert_eq!(bytes.len(), tokenizer.vocab_size());
        let text = "你好, the 😀\n\u{7f}";
        let ids = tokenizer.encode_ordinary(text);
        let joined: Vec<u8> = ids
            .iter()
            .flat_map(|&id| bytes[id as usize].clone())
            .collect();
        assert_eq!(joined, text.as_bytes());
        let eos = tokenizer.eos_id().unwrap();
        assert!(bytes[eos as usize].is_empty());
    }
}
