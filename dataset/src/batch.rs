//! The contract between the rooms: token ids and labels of a batch, as host vectors.
//!
//! Axis letters: `B` rows, `T` slots of a row. All vectors are row-major `[B, T]`.

/// Label of a position that is not trained.
pub const IGNORE_INDEX: i32 = -100;

/// Document id of the slots that fill up a row's end.
pub const PADDING_DOCUMENT: u32 = u32::MAX;

/// Rows of packed documents, ready to become tensors.
///
/// Documents are contiguous within a row and `positions` restart at 0 at the first token of each
/// piece, so slot `i` sees exactly the slots `i - positions[i] ..= i`; where a piece forks, those of
/// its second branch skip a gap ([`crate::mask::sees`]). Padding at a row's end is a piece of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// Number of rows, `B`.
    pub batch_size: usize,
    /// Slots per row, `T`.
    pub seq_len: usize,
    /// Token ids.
    pub input_ids: Vec<u32>,
    /// Target of each slot, already shifted: the token that follows it, or [`IGNORE_INDEX`].
    pub labels: Vec<i32>,
    /// Number of earlier slots that each slot sees: its place in its document.
    pub positions: Vec<u32>,
    /// Slots that each slot does not see between those it sees; empty where no piece forks.
    pub gaps: Vec<Gap>,
    /// Number of the slot's piece within its row, from 0, or [`PADDING_DOCUMENT`].
    pub document_ids: Vec<u32>,
}

/// Slots that a slot does not see between those it sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gap {
    /// Slots between the gap and the slot itself.
    pub since: u32,
    /// Slots of the gap.
    pub len: u32,
}

/// Tokens that lie together in a row and see no others.
#[derive(Debug, Clone, Copy)]
pub struct RowPiece<'a> {
    /// Token ids.
    pub ids: &'a [u32],
    /// One target per token.
    pub labels: &'a [i32],
    /// Two continuations behind one beginning, if there are two.
    pub fork: Option<Fork>,
}

/// Two continuations of one beginning, of which the second does not see the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// Tokens of the beginning.
    pub shared: usize,
    /// Tokens of the first continuation.
    pub first: usize,
}

impl<'a> From<(&'a [u32], &'a [i32])> for RowPiece<'a> {
    fn from((ids, labels): (&'a [u32], &'a [i32])) -> Self {
        Self {
            ids,
            labels,
            fork: None,
        }
    }
}

impl TokenBatch {
    /// A batch without rows and with room for `batch_size` of them.
    pub fn with_capacity(batch_size: usize, seq_len: usize) -> Self {
        let capacity = batch_size * seq_len;
        Self {
            batch_size: 0,
            seq_len,
            input_ids: Vec::with_capacity(capacity),
            labels: Vec::with_capacity(capacity),
            positions: Vec::with_capacity(capacity),
            gaps: Vec::new(),
            document_ids: Vec::with_capacity(capacity),
        }
    }

    /// Appends one row that holds the given pieces side by side, padded to `seq_len`.
    ///
    /// # Panics
    ///
    /// If a piece has not one label per token or forks behind its end, or the pieces are longer than
    /// a row.
    pub fn push_row<'a>(
        &mut self,
        pieces: impl IntoIterator<Item = impl Into<RowPiece<'a>>>,
        pad_id: u32,
    ) {
        let row_end = (self.batch_size + 1) * self.seq_len;
        for (document, piece) in pieces.into_iter().enumerate() {
            let RowPiece { ids, labels, fork } = piece.into();
            assert_eq!(ids.len(), labels.len(), "one label per token");
            self.input_ids.extend_from_slice(ids);
            self.labels.extend_from_slice(labels);
            self.push_piece(ids.len(), document as u32);
            if let Some(fork) = fork {
                self.fork_last(ids.len(), fork);
            }
        }
        assert!(
            self.input_ids.len() <= row_end,
            "the pieces of a row are longer than its {} slots",
            self.seq_len
        );
        let padding = row_end - self.input_ids.len();
        self.input_ids.resize(row_end, pad_id);
        self.labels.resize(row_end, IGNORE_INDEX);
        self.push_piece(padding, PADDING_DOCUMENT);
        self.batch_size += 1;
    }

    /// Number of slots that are not padding.
    pub fn num_tokens(&self) -> usize {
        self.document_ids
            .iter()
            .filter(|&&document| document != PADDING_DOCUMENT)
            .count()
    }

    /// Number of slots that have a target: what a batch's loss is divided by.
    pub fn num_supervised(&self) -> usize {
        self.labels
            .iter()
            .filter(|&&label| label != IGNORE_INDEX)
            .count()
    }

    fn push_piece(&mut self, len: usize, document: u32) {
        self.positions.extend(0..len as u32);
        self.document_ids.extend(std::iter::repeat_n(document, len));
        if !self.gaps.is_empty() {
            self.gaps.resize(self.positions.len(), Gap::default());
        }
    }

    /// Turns the end of the last piece, of `len` slots, into a second continuation.
    fn fork_last(&mut self, len: usize, Fork { shared, first }: Fork) {
        let second = len - shared - first;
        let num_slots = self.positions.len();
        self.gaps.resize(num_slots, Gap::default());
        for since in 0..second {
            let slot = num_slots - second + since;
            self.positions[slot] = (shared + since) as u32;
            self.gaps[slot] = Gap {
                since: since as u32,
                len: first as u32,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pieces and padding, written out by hand.
    #[test]
    fn a_row_holds_its_pieces_and_padding() {
        let mut batch = TokenBatch::with_capacity(1, 7);
        let pieces: [(&[u32], &[i32]); 2] = [
            (&[5, 6, 7], &[6, 7, IGNORE_INDEX]),
            (&[8, 9], &[9, IGNORE_INDEX]),
        ];
        batch.push_row(pieces, 1);

        let pad = PADDING_DOCUMENT;
        assert_eq!(batch.input_ids, [5, 6, 7, 8, 9, 1, 1]);
        assert_eq!(batch.labels, [6, 7, -100, 9, -100, -100, -100]);
        assert_eq!(batch.positions, [0, 1, 2, 0, 1, 0, 1]);
        assert_eq!(batch.document_ids, [0, 0, 0, 1, 1, pad, pad]);
        assert_eq!((batch.num_tokens(), batch.num_supervised()), (5, 3));
    }

    /// A beginning of two tokens, continuations of one and two, and a piece after them, by hand.
    #[test]
    fn a_fork_puts_both_continuations_behind_one_beginning() {
        let mut batch = TokenBatch::with_capacity(1, 8);
        let ids = [5, 6, 7, 8, 9];
        let fork = Fork {
            shared: 2,
            first: 1,
        };
        let forked = RowPiece {
            ids: &ids,
            labels: &[IGNORE_INDEX; 5],
            fork: Some(fork),
        };
        let plain = RowPiece::from((&ids[..2], &[IGNORE_INDEX; 2][..]));
        batch.push_row([forked, plain], 0);
        assert_eq!(batch.positions, [0, 1, 2, 2, 3, 0, 1, 0]);
        let gap = |since, len| Gap { since, len };
        let mut gaps = [Gap::default(); 8];
        gaps[3] = gap(0, 1);
        gaps[4] = gap(1, 1);
        assert_eq!(batch.gaps, gaps);
    }

    /// A row is never silently longer than the others.
    #[test]
    #[should_panic(expected = "longer than its 2 slots")]
    fn a_row_that_overflows_is_refused() {
        let mut batch = TokenBatch::with_capacity(1, 2);
        let piece: (&[u32], &[i32]) = (&[1, 2, 3], &[2, 3, IGNORE_INDEX]);
        batch.push_row([piece], 0);
    }
}
