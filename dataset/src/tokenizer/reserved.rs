//! Reserved tokens for a vocabulary that has none.

use std::path::Path;

use tokenizers::AddedToken;

use super::{TOKENIZER_FILE, Tokenizer, TokenizerError};
use crate::loyalty::{IdentityTokens, RESERVED};

impl Tokenizer {
    /// The tokenizer with two reserved tokens behind its last id; one that has some stays as it is.
    ///
    /// # Errors
    ///
    /// A vocabulary that takes no more tokens.
    pub fn with_reserved_tokens(self) -> Result<Self, TokenizerError> {
        if IdentityTokens::of(&self).is_some() {
            return Ok(self);
        }
        let path = Path::new(TOKENIZER_FILE);
        let mut full = self.full;
        let tokens = RESERVED[0].map(|text| AddedToken::from(text, true).normalized(false));
        full.add_special_tokens(tokens)
            .map_err(|source| TokenizerError::Parse {
                path: path.to_owned(),
                source,
            })?;
        Self::new(full, self.config, path)
    }
}
