//! Where the tokens of a batch stand, and which earlier slots of their rows they see.
//!
//! Axis letters: `B` rows, `T` slots of a row.

use burn::prelude::*;

/// Places of tokens in their documents, and what lies between the slots that a token sees.
///
/// A token in slot `s` sees the `places` slots before it and its own. Where two continuations of one
/// prompt lie behind it, the second does not see the first: its tokens see the `since` slots before
/// them, skip `len` slots, and see the rest of their places before those.
#[derive(Clone, Debug)]
pub struct Positions {
    /// `[B, T]`: number of earlier slots that a token sees, which is what turns its heads.
    pub places: Tensor<2, Int>,
    /// `[B, T, 2]`: `since` and `len` of the gap in what a token sees; `None` where no row has one.
    pub gaps: Option<Tensor<3, Int>>,
}

impl Positions {
    /// The same without autodiff.
    #[must_use]
    pub fn inner(self) -> Self {
        Self {
            places: self.places.inner(),
            gaps: self.gaps.map(Tensor::inner),
        }
    }
}

impl From<Tensor<2, Int>> for Positions {
    /// Of rows without gaps.
    fn from(places: Tensor<2, Int>) -> Self {
        Self { places, gaps: None }
    }
}
