//! Keys and values of prompts' beginnings, for later prompts that begin alike.
//!
//! Only whole pieces are kept: what is computed of a piece depends on the pieces before it alone, so
//! a beginning from here is the same, bit for bit, as one that is read again.

use crate::batch::PROMPT_PIECE;
use crate::kv_cache::KvCache;

/// The most recently used beginnings.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    max_tokens: usize,
    /// The most recently used one last.
    entries: Vec<Entry>,
    num_reused_tokens: u64,
}

#[derive(Debug)]
struct Entry {
    /// Tokens of whole pieces.
    ids: Vec<u32>,
    /// Their keys and values, in one row.
    cache: KvCache,
}

impl PrefixCache {
    /// Keeps beginnings of up to `max_tokens` tokens together.
    pub(crate) fn new(max_tokens: usize) -> Self {
        Self {
            max_tokens,
            entries: Vec::new(),
            num_reused_tokens: 0,
        }
    }

    /// What is known of a prompt's beginning, but for its last token, with room for `capacity`
    /// slots.
    pub(crate) fn find(&mut self, prompt_ids: &[u32], capacity: usize) -> Option<KvCache> {
        let before_last = &prompt_ids[..prompt_ids.len() - 1];
        let shared = |entry: &Entry| whole_pieces(common_len(&entry.ids, before_last));
        let (index, len) = self
            .entries
            .iter()
            .map(shared)
            .enumerate()
            .max_by_key(|&(_, len)| len)?;
        if len == 0 {
            return None;
        }
        let entry = self.entries.remove(index);
        let copy = entry.cache.beginnings(&[len], capacity);
        self.entries.push(entry);
        self.num_reused_tokens += len as u64;
        Some(copy)
    }

    /// Remembers the whole pieces of a prompt that was read.
    pub(crate) fn keep(&mut self, prompt_ids: &[u32], cache: &KvCache) {
        let len = whole_pieces(prompt_ids.len());
        if len == 0 || len > self.max_tokens {
            return;
        }
        let ids = &prompt_ids[..len];
        if self.entries.iter().any(|entry| entry.ids.starts_with(ids)) {
            return;
        }
        self.entries.retain(|entry| !ids.starts_with(&entry.ids));
        self.entries.push(Entry {
            ids: ids.to_vec(),
            cache: cache.beginnings(&[len], len),
        });
        let mut num_tokens: usize = self.entries.iter().map(|entry| entry.ids.len()).sum();
        while num_tokens > self.max_tokens {
            num_tokens -= self.entries.remove(0).ids.len();
        }
    }

    pub(crate) fn num_reused_tokens(&self) -> u64 {
        self.num_reused_tokens
    }
}

fn whole_pieces(len: usize) -> usize {
    len / PROMPT_PIECE * PROMPT_PIECE
}

fn common_len(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
