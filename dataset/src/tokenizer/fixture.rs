//! Small tokenizers for tests, with special tokens or a chat template of their choice.

use super::Tokenizer;
use crate::tokenizer_train::{SpecialTokens, TokenizerTrainer};

/// A tokenizer of 300 ids that renders conversations by this template.
pub(crate) fn tokenizer_with(template: &str) -> Tokenizer {
    let trainer = TokenizerTrainer {
        vocab_size: 300,
        ..TokenizerTrainer::default()
    };
    let tokenizer = trainer.train(["one two three"].iter()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("template.jinja");
    std::fs::write(&path, template).unwrap();
    tokenizer.with_chat_template(&path).unwrap()
}

/// A tokenizer of 340 ids with these special tokens and their chat template.
pub(crate) fn tokenizer_of(special_tokens: SpecialTokens) -> Tokenizer {
    let trainer = TokenizerTrainer {
        vocab_size: 340,
        special_tokens,
        ..TokenizerTrainer::default()
    };
    trainer.train(["the cat and the hat"].iter()).unwrap()
}
