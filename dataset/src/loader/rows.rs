//! Packed rows, read from the shards one at a time.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::LoaderConfig;
use crate::batch::{IGNORE_INDEX, TokenBatch};
use crate::cache::TokenShards;
use crate::mask::labels_of;
use crate::pack::{PackIndex, PackOptions, Piece, pack_documents};

/// Shards and the index that says which pieces make each row.
#[derive(Debug)]
pub(super) struct Rows {
    shards: Arc<TokenShards>,
    config: LoaderConfig,
    index: PackIndex,
}

impl Rows {
    pub(super) fn new(shards: Arc<TokenShards>, config: LoaderConfig) -> Self {
        Self {
            shards,
            config,
            index: PackIndex::default(),
        }
    }

    pub(super) fn shards(&self) -> &TokenShards {
        &self.shards
    }

    pub(super) fn index(&self) -> &PackIndex {
        &self.index
    }

    pub(super) fn pack(&mut self, documents: Vec<u32>, order: Option<(u64, u64)>) {
        let options = PackOptions {
            seq_len: self.config.seq_len,
            mode: self.config.mode,
            order,
        };
        let shards = &self.shards;
        self.index = pack_documents(documents, |document| shards.document_len(document), options);
    }

    pub(super) fn batch(&self, rows: Range<usize>) -> TokenBatch {
        let mut batch = TokenBatch::with_capacity(rows.len(), self.config.seq_len);
        for row in rows {
            self.push_row(row, &mut batch);
        }
        batch
    }

    pub(super) fn push_row(&self, row: usize, batch: &mut TokenBatch) {
        let pieces: Vec<(Vec<u32>, Vec<i32>)> = self
            .index
            .row(row)
            .iter()
            .map(|piece| self.read_piece(piece))
            .collect();
        let pieces = pieces
            .iter()
            .map(|(ids, labels)| (ids.as_slice(), labels.as_slice()));
        batch.push_row(pieces, self.config.pad_id);
    }

    /// Ids and labels of a piece. The last token of a piece that is not its document's last one is
    /// trained too: it is to predict the first token of the next piece.
    fn read_piece(&self, piece: &Piece) -> (Vec<u32>, Vec<i32>) {
        let &Piece {
            document,
            len,
            start,
        } = piece;
        let end = start + u64::from(len);
        let kept = kept_len(&self.shards, document, &self.config);
        let (mut ids, trained) = self.shards.read(document, start..(end + 1).min(kept));
        let mut labels = labels_of(&ids, trained.as_deref());
        ids.truncate(len as usize);
        labels.truncate(len as usize);
        (ids, labels)
    }
}

fn kept_len(shards: &TokenShards, document: u32, config: &LoaderConfig) -> u64 {
    let len = shards.document_len(document);
    config.mode.kept_len(len, config.seq_len)
}

/// The documents that have a token to learn within what is kept of them.
pub(super) fn supervised(
    shards: &TokenShards,
    documents: Vec<u32>,
    config: &LoaderConfig,
) -> Vec<u32> {
    let is_supervised = |&document: &u32| {
        let kept = kept_len(shards, document, config);
        if kept < 2 || !shards.has_marks(document) {
            return kept >= 2;
        }
        let (ids, trained) = shards.read(document, 0..kept);
        labels_of(&ids, trained.as_deref())
            .into_iter()
            .any(|label| label != IGNORE_INDEX)
    };
    documents.into_par_iter().filter(is_supervised).collect()
}

/// Hash of what decides the rows, in the 52 bits that every reader of JSON keeps exactly.
pub(super) fn fingerprint(shards: &TokenShards, documents: &[u32], config: &LoaderConfig) -> u64 {
    let LoaderConfig {
        seq_len,
        batch_size: _,
        seed,
        mode,
        pad_id: _,
    } = *config;
    let mut hasher = Sha256::new();
    hasher.update(shards.fingerprint());
    hasher.update(format!(" {seq_len} {seed} {mode:?} "));
    for block in documents.chunks(4096) {
        let bytes: Vec<u8> = block
            .iter()
            .flat_map(|document| document.to_le_bytes())
            .collect();
        hasher.update(bytes);
    }
    let digest = hasher.finalize();
    digest[..8]
        .iter()
        .fold(0, |bits: u64, &byte| bits << 8 | u64::from(byte))
        >> 12
}
