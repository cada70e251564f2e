//! Ids to text one at a time, while a model is still writing.

use crate::tokenizer::Tokenizer;

/// What `decode` puts in the place of bytes that are no whole character.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Text of a growing list of ids, holding back characters of which only some bytes are there.
#[derive(Debug, Clone)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    skip_special_tokens: bool,
    /// One id that is out already, for decoders that look at the one before, and all since.
    ids: Vec<u32>,
    /// Bytes of the decoded `ids` that are out already.
    emitted: usize,
}

impl<'a> StreamDecoder<'a> {
    /// A decoder at the beginning of a text.
    pub fn new(tokenizer: &'a Tokenizer, skip_special_tokens: bool) -> Self {
        Self {
            tokenizer,
            skip_special_tokens,
            ids: Vec::new(),
            emitted: 0,
        }
    }

    /// Takes the next id in; gives the text that it completes, if any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids, self.skip_special_tokens);
        // Cut-off bytes at the end show as one replacement character; those before are final.
        let is_cut_off = text.ends_with(REPLACEMENT);
        let final_len = text.len()
            - if is_cut_off {
                REPLACEMENT.len_utf8()
            } else {
                0
            };
        let completed = text
            .get(self.emitted..final_len)
            .unwrap_or_default()
            .to_owned();
        self.emitted = self.emitted.max(final_len);
        if !is_cut_off {
            let last = self.tokenizer.decode(&[id], self.skip_special_tokens);
            if !last.is_empty() {
                self.ids = vec![id];
                self.emitted = last.len();
            }
        }
        (!completed.is_empty()).then_some(completed)
    }

    /// What is still held back, once no more ids come: a cut-off character as U+FFFD.
    pub fn finish(self) -> String {
        let text = self.tokenizer.decode(&self.ids, self.skip_special_tokens);
        text.get(self.emitted..).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer_train::TokenizerTrainer;

    /// A tokenizer without merges: each byte is a token.
    fn bytes_tokenizer() -> Tokenizer {
        let trainer = TokenizerTrainer {
            vocab_size: 261,
            ..Default::default()
        };
        trainer.train(["a"].iter()).unwrap()
    }

    /// UTF-8 needs three bytes for a Han letter and four for an emoji; text comes with the last.
    #[test]
    fn half_characters_are_held_back() {
        let tokenizer = bytes_tokenizer();
        let mut decoder = StreamDecoder::new(&tokenizer, true);
        let ids = tokenizer.encode_ordinary("a你😀 b");
        let pieces: Vec<Option<String>> = ids.iter().map(|&id| decoder.push(id)).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            pieces,
            [
                some("a"),
                None,
                None,
                some("你"),
                None,
                None,
                None,
                some("😀"),
                some(" "),
                some("b")
            ]
        );
        assert_eq!(decoder.finish(), "");
    }

    /// A model may stop inside a character, or go on with something that does not belong to it.
    #[test]
    fn broken_characters_come_out_once_they_are_known_to_be() {
        let tokenizer = bytes_tokenizer();
        let ids = tokenizer.encode_ordinary("你");
        let letter = tokenizer.encode_ordinary("a")[0];
        let mut decoder = StreamDecoder::new(&tokenizer, true);
        assert_eq!(decoder.push(ids[0]), None);
        assert_eq!(decoder.push(ids[0]).unwrap(), "\u{fffd}");
        assert_eq!(decoder.push(ids[1]), None);
        assert_eq!(decoder.push(letter).unwrap(), "\u{fffd}a");
        assert_eq!(decoder.push(ids[0]), None);
        assert_eq!(decoder.finish(), "\u{fffd}");
    }

    /// U+FFFD as real text is only late by one token.
    #[test]
    fn a_real_replacement_character_is_text() {
        let tokenizer = bytes_tokenizer();
        let text = "x\u{fffd}\u{fffd}y\u{fffd}";
        let mut decoder = StreamDecoder::new(&tokenizer, true);
        let ids = tokenizer.encode_ordinary(text);
        let pieces: String = ids.iter().filter_map(|&id| decoder.push(id)).collect();
        assert_eq!(pieces + &decoder.finish(), text);
    }

    /// Pieces join to what decoding all at once gives, with control tokens shown or not.
    #[test]
    fn pieces_join_to_the_whole() {
        let trainer = TokenizerTrainer {
            vocab_size: 300,
            ..Default::default()
        };
        let tokenizer = trainer.train(["你好，世界。你好，世界。"].iter()).unwrap();
        let ids = tokenizer.encode("<s>user\n你好，世😀界</s>\n");
        for skip_special_tokens in [true, false] {
            let mut decoder = StreamDecoder::new(&tokenizer, skip_special_tokens);
            let pieces: String = ids.iter().filter_map(|&id| decoder.push(id)).collect();
            assert_eq!(
                pieces + &decoder.finish(),
                tokenizer.decode(&ids, skip_special_tokens)
            );
        }
    }
}
