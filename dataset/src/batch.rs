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
/// piece, so slot `i` sees exactly the slots `i - positions[i] ..= i`. Padding at a row's end is a
/// piece of its own.
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
    /// Offset of each slot from the first slot of its piece.
    pub positions: Vec<u32>,
    /// Number of the slot's piece within its row, from 0, or [`PADDING_DOCUMENT`].
    pub document_ids: Vec<u32>,
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
            document_ids: Vec::with_capacity(capacity),
        }
    }

    /// Appends one row that holds the given pieces side by side, padded to `seq_len`.
    ///
    /// # Panics
    ///
    /// If a piece has not one label per token, or the pieces are longer than a row.
    pub fn push_row<'a>(
        &mut self,
        pieces: impl IntoIterator<Item = (&'a [u32], &'a [i32])>,
        pad_id: u32,
    ) {
        let row_end = (self.batch_size + 1) * self.seq_len;
        for (document, (ids, labels)) in pieces.into_iter().enumerate() {
            assert_eq!(ids.len(), labels.len(), "one label per token");
            self.input_ids.extend_from_slice(ids);
            self.labels.extend_from_slice(labels);
            self.push_piece(ids.len(), document as u32);
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

    /// A row is never silently longer than the others.
    #[test]
    #[should_panic(expected = "longer than its 2 slots")]
    fn a_row_that_overflows_is_refused() {
        let mut batch = TokenBatch::with_capacity(1, 2);
        let piece: (&[u32], &[i32]) = (&[1, 2, 3], &[2, 3, IGNORE_INDEX]);
        batch.push_row([piece], 0);
    }
}
