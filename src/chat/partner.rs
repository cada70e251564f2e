//! Who answers in a terminal chat: a model of this process, or one behind an address.

use std::io;

use anyhow::Result;

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    /// Tokens of the answer.
    pub(super) num_tokens: usize,
    /// What ended it, in a word.
    pub(super) reason: String,
    pub(super) is_interrupted: bool,
}

/// Takes a piece of an answer; `false` says that no more of it is wanted.
pub(super) type TakePiece<'a> = dyn FnMut(&str) -> io::Result<bool> + 'a;

/// Somebody to talk to, who remembers what was said.
pub(super) trait Partner {
    /// Answers a text piece by piece.
    fn answer(&mut self, text: &str, take: &mut TakePiece<'_>) -> Result<Ending>;

    /// Begins again with this system prompt, or with none.
    fn set_system(&mut self, system: Option<String>) -> Result<()>;

    /// Forgets every turn.
    fn reset(&mut self);
}
