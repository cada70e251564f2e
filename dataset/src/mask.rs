//! The two mask rules, each written once: which slots a slot sees, and which tokens are trained.

use crate::batch::{Gap, IGNORE_INDEX};

/// Whether the token in slot `query` of a row sees the token in slot `key`.
///
/// A slot sees its own piece up to itself: `query - positions[query] ..= query`. With a gap it sees
/// as many, but skips `len` slots behind the `since` slots before it. Models apply the same rule to
/// tensors; it needs no document ids, since positions restart with each piece.
///
/// # Panics
///
/// If `query` is no slot of the row.
pub fn sees(positions: &[u32], gaps: &[Gap], query: usize, key: usize) -> bool {
    let gap = gaps.get(query).copied().unwrap_or_default();
    let (since, len) = (gap.since as usize, gap.len as usize);
    let start = query - positions[query] as usize - len;
    let gap = query - since - len..query - since;
    (start..=query).contains(&key) && !gap.contains(&key)
}

/// Targets of a document's tokens: position `t` is to predict token `t + 1`, and is trained iff
/// that token is.
///
/// The last token has no target. `trained` marks the tokens to learn; `None` marks all.
///
/// # Panics
///
/// If `trained` has not one mark per token.
pub fn labels_of(ids: &[u32], trained: Option<&[bool]>) -> Vec<i32> {
    if let Some(trained) = trained {
        assert_eq!(ids.len(), trained.len(), "one mark per token");
    }
    let is_trained = |position: usize| trained.is_none_or(|trained| trained[position]);
    (1..=ids.len())
        .map(|next| match ids.get(next) {
            Some(&id) if is_trained(next) => id as i32,
            _ => IGNORE_INDEX,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::TokenBatch;

    /// The rule by positions is the rule by documents: same piece and not later.
    #[test]
    fn a_slot_sees_its_own_document_up_to_itself() {
        let mut batch = TokenBatch::with_capacity(1, 9);
        let ids = [3_u32; 4];
        let labels = [IGNORE_INDEX; 4];
        batch.push_row(
            [
                (&ids[..3], &labels[..3]),
                (&ids[..1], &labels[..1]),
                (&ids[..], &labels[..]),
            ],
            0,
        );
        for query in 0..9 {
            for key in 0..9 {
                let same = batch.document_ids[query] == batch.document_ids[key];
                assert_eq!(
                    sees(&batch.positions, &batch.gaps, query, key),
                    same && key <= query,
                    "slot {query} and slot {key}"
                );
            }
        }
    }

    /// By hand: a prompt of two tokens and an answer of two, the last of which has no successor.
    #[test]
    fn labels_follow_the_next_token_and_its_mark() {
        assert_eq!(labels_of(&[4, 5, 6, 7], None), [5, 6, 7, IGNORE_INDEX]);
        assert_eq!(
            labels_of(&[4, 5, 6, 7], Some(&[false, false, true, true])),
            [IGNORE_INDEX, 6, 7, IGNORE_INDEX]
        );
        assert_eq!(labels_of(&[], None), [0_i32; 0]);
        assert_eq!(labels_of(&[9], Some(&[true])), [IGNORE_INDEX]);
    }
}
