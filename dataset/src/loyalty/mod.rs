//! Who asks: a reserved token before the prompt, which only the program that serves a model writes.
//!
//! Nobody can type it: what a message spells stays ordinary text
//! ([`Tokenizer::encode_spans`](crate::Tokenizer::encode_spans)). It comes first, so that a
//! conversation has one identity, and dropping its earliest turns never drops that.

use serde::{Deserialize, Serialize};

use crate::chat::{Message, RenderOptions};
use crate::conversations::{ConversationFault, RowEncoder};
use crate::preferences::{PairEncoder, PairTokens};
use crate::rows::{LoyaltyRow, NumberedRow, Row};
use crate::tokenizer::Tokenizer;

/// The reserved tokens of MiniMind v1's and MiniMind-3's vocabularies, the owner's first.
pub(crate) const RESERVED: [[&str; 2]; 2] = [
    ["<|reserved_0|>", "<|reserved_1|>"],
    ["<|buffer1|>", "<|buffer2|>"],
];

/// Who talks to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// Whom the model belongs to.
    Owner,
    /// Anybody.
    Public,
}

/// Somebody who asks, and what prompts begin with to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Who asks.
    pub identity: Identity,
    /// The token that says so.
    pub token: u32,
}

/// The tokens that stand for identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityTokens {
    owner: u32,
    public: u32,
}

impl IdentityTokens {
    /// The reserved tokens of a tokenizer; `None` if it has none.
    pub fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let control_id = |text: &str| {
            let mut tokens = tokenizer.control_tokens().iter();
            Some(tokens.find(|token| token.text == text)?.id)
        };
        RESERVED.into_iter().find_map(|[owner, public]| {
            Some(Self {
                owner: control_id(owner)?,
                public: control_id(public)?,
            })
        })
    }

    /// The token of an identity.
    pub fn id(self, identity: Identity) -> u32 {
        match identity {
            Identity::Owner => self.owner,
            Identity::Public => self.public,
        }
    }

    /// Whether any of the ids claims an identity.
    pub fn are_in(self, ids: &[u32]) -> bool {
        ids.iter().any(|&id| id == self.owner || id == self.public)
    }
}

/// Renders and encodes rows whose answers depend on who asks.
#[derive(Debug, Clone, Copy)]
pub struct LoyaltyEncoder<'a> {
    /// Conversations to ids.
    pub pairs: PairEncoder<'a>,
    /// What stands before them.
    pub identities: IdentityTokens,
    /// Margin, in rewards, per unit of a row's bonus.
    pub margin_per_bonus: f64,
}

impl RowEncoder for LoyaltyEncoder<'_> {
    /// The pairs of a row; they are of one group, so that a held-out question is held out from both
    /// identities.
    type Encoded = Vec<PairTokens>;

    fn encode_row(&self, row: NumberedRow, _: u64) -> Result<Vec<PairTokens>, ConversationFault> {
        let Row::Loyalty(row) = row.row? else {
            return Err(ConversationFault::NoPair);
        };
        let LoyaltyRow { prompt, pairs } = *row;
        let prompt = [Message::new("user", prompt)];
        let options = RenderOptions::default();
        pairs
            .into_iter()
            .map(|pair| {
                let answer = |text: String| {
                    let answer = Message::new("assistant", text);
                    self.pairs.answer(&prompt, answer, &options)
                };
                let mut tokens = PairTokens::new(answer(pair.chosen)?, answer(pair.rejected)?);
                tokens.begin_with(self.identities.id(pair.identity));
                tokens.margin = (self.margin_per_bonus * pair.bonus) as f32;
                Ok(tokens)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
