//! Documents into rows of equal length, with as little padding as possible.
//!
//! Best-fit decreasing within windows of the shuffled epoch. Source: Ding et al. 2024,
//! arXiv:2404.10830, section 3; ties are broken as TRL does (older piece first, older row first).

use std::cmp::Reverse;
use std::collections::VecDeque;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::draw::Draw;

/// Documents that are packed together: enough for full rows, few enough to keep the order random.
pub const PACK_WINDOW_DOCUMENTS: usize = 100_000;

/// What happens to a document that is longer than a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackMode {
    /// It is cut into pieces of a row's length and a remainder, and all are kept: pretraining.
    Split,
    /// Its end is cut off: conversations, whose later half makes no sense alone.
    Truncate,
}

impl PackMode {
    /// How many of a document's first tokens are used.
    pub fn kept_len(self, len: u64, seq_len: usize) -> u64 {
        match self {
            Self::Split => len,
            Self::Truncate => len.min(seq_len as u64),
        }
    }
}

/// A stretch of one document that lies in one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Index of the document.
    pub document: u32,
    /// Number of tokens in this piece.
    pub len: u32,
    /// First token of the piece within the document.
    pub start: u64,
}

/// Which pieces make each row of an epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackIndex {
    pieces: Vec<Piece>,
    row_ends: Vec<usize>,
    seq_len: usize,
    num_tokens: u64,
    num_truncated: usize,
}

impl PackIndex {
    /// Number of rows of the epoch.
    pub fn num_rows(&self) -> usize {
        self.row_ends.len()
    }

    /// Number of tokens of the epoch, without padding.
    pub fn num_tokens(&self) -> u64 {
        self.num_tokens
    }

    /// Number of documents whose end was cut off.
    pub fn num_truncated(&self) -> usize {
        self.num_truncated
    }

    /// Pieces of one row, in the order in which they lie in it.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[Piece] {
        let start = row.checked_sub(1).map_or(0, |before| self.row_ends[before]);
        &self.pieces[start..self.row_ends[row]]
    }

    /// Share of the slots that hold a token, from 0 to 1.
    pub fn efficiency(&self) -> f64 {
        let slots = self.num_rows() * self.seq_len;
        self.num_tokens as f64 / slots.max(1) as f64
    }

    fn append(&mut self, other: Self) {
        let offset = self.pieces.len();
        self.pieces.extend(other.pieces);
        self.row_ends
            .extend(other.row_ends.into_iter().map(|end| end + offset));
        self.num_tokens += other.num_tokens;
        self.num_truncated += other.num_truncated;
    }
}

/// How an epoch is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackOptions {
    /// Slots per row.
    pub seq_len: usize,
    /// What happens to longer documents.
    pub mode: PackMode,
    /// Seed and epoch that decide the order; `None` keeps the order of documents and of rows.
    pub order: Option<(u64, u64)>,
}

/// Packs an epoch; a document may be listed more than once, each time is packed on its own.
///
/// Documents are shuffled, then packed in windows of [`PACK_WINDOW_DOCUMENTS`], whose rows are
/// shuffled in turn (best fit would begin each window with its longest documents). Takes
/// `O(n log n)`; the result does not depend on the number of threads. Empty documents are left out.
///
/// # Panics
///
/// If `seq_len` is 0 or does not fit in 32 bits.
pub fn pack_documents(
    mut documents: Vec<u32>,
    length_of: impl Fn(u32) -> u64 + Sync,
    options: PackOptions,
) -> PackIndex {
    assert!(options.seq_len > 0, "a row needs at least one slot");
    assert!(
        u32::try_from(options.seq_len).is_ok(),
        "a row's length fits in 32 bits"
    );
    if let Some((seed, epoch)) = options.order {
        Draw::new(seed, epoch << 32).shuffle(&mut documents);
    }
    let windows: Vec<PackIndex> = documents
        .par_chunks(PACK_WINDOW_DOCUMENTS)
        .enumerate()
        .map(|(window, documents)| pack_window(window as u64, documents, &length_of, options))
        .collect();
    let mut index = PackIndex {
        seq_len: options.seq_len,
        ..PackIndex::default()
    };
    for window in windows {
        index.append(window);
    }
    index
}

fn pack_window(
    window: u64,
    documents: &[u32],
    length_of: impl Fn(u32) -> u64,
    options: PackOptions,
) -> PackIndex {
    let seq_len = options.seq_len;
    let mut index = PackIndex::default();
    let mut pieces = Vec::with_capacity(documents.len());
    for &document in documents {
        let len = length_of(document);
        let kept = options.mode.kept_len(len, seq_len);
        index.num_truncated += usize::from(kept < len);
        index.num_tokens += kept;
        pieces.extend((0..kept).step_by(seq_len).map(|start| Piece {
            document,
            len: (kept - start).min(seq_len as u64) as u32,
            start,
        }));
    }
    pieces.sort_by_key(|piece| Reverse(piece.len));
    let row_of = best_fit(pieces.iter().map(|piece| piece.len), seq_len);
    let num_rows = row_of.iter().max().map_or(0, |&row| row as usize + 1);

    // Counting sort by row: the place where each row begins, in the order in which rows shall lie.
    let mut order: Vec<usize> = (0..num_rows).collect();
    if let Some((seed, epoch)) = options.order {
        Draw::new(seed, (epoch << 32) + 1 + window).shuffle(&mut order);
    }
    let mut sizes = vec![0; num_rows];
    for &row in &row_of {
        sizes[row as usize] += 1;
    }
    let mut next = vec![0; num_rows];
    let mut end = 0;
    for &row in &order {
        next[row] = end;
        end += sizes[row];
        index.row_ends.push(end);
    }
    index.pieces.clone_from(&pieces);
    for (piece, row) in pieces.into_iter().zip(row_of) {
        let slot = &mut next[row as usize];
        index.pieces[*slot] = piece;
        *slot += 1;
    }
    index
}

/// The row of each piece: the fullest row that still has room, or a new one.
///
/// Decreasing lengths make it best-fit decreasing; no length may be 0 or exceed `seq_len`.
fn best_fit(lengths: impl Iterator<Item = u32>, seq_len: usize) -> Vec<u32> {
    // Rows by the room they have left, the oldest first, and the set of rooms that have a row.
    let mut rows_by_room: Vec<VecDeque<u32>> = vec![VecDeque::new(); seq_len + 1];
    let mut rooms = RoomSet::new(seq_len + 1);
    let mut num_rows = 0;
    lengths
        .map(|len| {
            let len = len as usize;
            let room = rooms.first_at_least(len).unwrap_or(seq_len);
            let row = rows_by_room[room].pop_front().unwrap_or_else(|| {
                num_rows += 1;
                num_rows - 1
            });
            if rows_by_room[room].is_empty() {
                rooms.remove(room);
            }
            let left = room - len;
            if left > 0 {
                rows_by_room[left].push_back(row);
                rooms.insert(left);
            }
            row
        })
        .collect()
}

/// Set of numbers below `seq_len`, one bit each.
struct RoomSet(Vec<u64>);

impl RoomSet {
    fn new(end: usize) -> Self {
        Self(vec![0; end.div_ceil(64)])
    }

    fn insert(&mut self, room: usize) {
        self.0[room / 64] |= 1 << (room % 64);
    }

    fn remove(&mut self, room: usize) {
        self.0[room / 64] &= !(1 << (room % 64));
    }

    fn first_at_least(&self, room: usize) -> Option<usize> {
        let mut word = room / 64;
        let mut bits = self.0.get(word)? & (u64::MAX << (room % 64));
        while bits == 0 {
            word += 1;
            bits = *self.0.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of tokens, where the token values number all documents' tokens through from 1.
    fn packed(lengths: &[u64], seq_len: usize, mode: PackMode) -> Vec<Vec<Vec<u64>>> {
        let firsts: Vec<u64> = lengths
            .iter()
            .scan(1, |next, &len| {
                let first = *next;
                *next += len;
                Some(first)
            })
            .collect();
        let documents = (0..lengths.len() as u32).collect();
        let options = PackOptions {
            seq_len,
            mode,
            order: None,
        };
        let index = pack_documents(documents, |document| lengths[document as usize], options);
        let tokens = |piece: &Piece| -> Vec<u64> {
            let first = firsts[piece.document as usize] + piece.start;
            (first..first + u64::from(piece.len)).collect()
        };
        (0..index.num_rows())
            .map(|row| index.row(row).iter().map(tokens).collect())
            .collect()
    }

    /// TRL, tests/test_data_utils.py at f2cd577: strategy "bfd" on documents of 3, 4 and 1 tokens.
    #[test]
    fn packs_as_trl_best_fit() {
        assert_eq!(
            packed(&[3, 4, 1], 4, PackMode::Truncate),
            [vec![vec![4, 5, 6, 7]], vec![vec![1, 2, 3], vec![8]]]
        );
        assert_eq!(
            packed(&[5, 1, 4, 3], 5, PackMode::Truncate),
            [
                vec![vec![1, 2, 3, 4, 5]],
                vec![vec![7, 8, 9, 10], vec![6]],
                vec![vec![11, 12, 13]]
            ]
        );
    }

    /// TRL, same file: strategy "bfd_split" keeps the overflow as a piece, "bfd" drops it.
    #[test]
    fn packs_long_documents_as_trl() {
        assert_eq!(
            packed(&[5, 2, 4, 1], 4, PackMode::Split),
            [
                vec![vec![1, 2, 3, 4]],
                vec![vec![8, 9, 10, 11]],
                vec![vec![6, 7], vec![5], vec![12]]
            ]
        );
        assert_eq!(
            packed(&[5, 2, 4, 1], 4, PackMode::Truncate),
            [
                vec![vec![1, 2, 3, 4]],
                vec![vec![8, 9, 10, 11]],
                vec![vec![6, 7], vec![12]]
            ]
        );
    }

    /// TRL, same file: empty documents leave no trace.
    #[test]
    fn drops_empty_documents_as_trl() {
        assert_eq!(
            packed(&[2, 0, 3, 0, 1], 4, PackMode::Split),
            [vec![vec![3, 4, 5], vec![6]], vec![vec![1, 2]]]
        );
    }

    /// Lengths from 1 to 40, in rows of 16 slots, several windows: each token once, rows not over.
    #[test]
    fn every_token_is_packed_once_in_every_epoch() {
        let num_documents = 2 * PACK_WINDOW_DOCUMENTS + 77;
        let length_of =
            |document: u32| u64::from(document.wrapping_mul(2_654_435_761) >> 8) % 40 + 1;
        let total: u64 = (0..num_documents as u32).map(length_of).sum();
        let epoch = |epoch| {
            let options = PackOptions {
                seq_len: 16,
                mode: PackMode::Split,
                order: Some((3, epoch)),
            };
            pack_documents((0..num_documents as u32).collect(), length_of, options)
        };
        let index = epoch(0);
        let mut seen = vec![0_u64; num_documents];
        for row in 0..index.num_rows() {
            let pieces = index.row(row);
            assert!(pieces.iter().map(|piece| piece.len).sum::<u32>() <= 16);
            for piece in pieces {
                // Pieces start at multiples of the row length, so bits say which were seen.
                let bit = 1 << (piece.start / 16);
                assert_eq!(piece.start % 16, 0);
                assert_eq!(seen[piece.document as usize] & bit, 0, "a piece came twice");
                seen[piece.document as usize] |= bit;
                let left = length_of(piece.document) - piece.start;
                assert_eq!(u64::from(piece.len), left.min(16));
            }
        }
        for (document, seen) in seen.into_iter().enumerate() {
            let pieces = length_of(document as u32).div_ceil(16);
            assert_eq!(seen, (1 << pieces) - 1, "document {document}");
        }
        assert_eq!(index.num_tokens(), total);
        assert!(index.efficiency() > 0.99, "{}", index.efficiency());
        assert_eq!(index, epoch(0));
        assert_ne!(index, epoch(1));
    }

    /// The best-fit search is exact at the borders of the bit set's words.
    #[test]
    fn rooms_are_found_across_words() {
        let mut rooms = RoomSet::new(200);
        for room in [3, 63, 64, 130, 199] {
            rooms.insert(room);
        }
        rooms.remove(130);
        let found = [0, 4, 64, 65, 199, 200].map(|room| rooms.first_at_least(room));
        assert_eq!(
            found,
            [Some(3), Some(63), Some(64), Some(199), Some(199), None]
        );
    }
}
