//! Documents of one source file, in memory or memory-mapped.
//!
//! A shard on disk is a folder. Numbers are little-endian.
//!
//! | file | content |
//! |---|---|
//! | `shard.json` | [`Header`]: format, counts, and the checksum of each other file |
//! | `tokens.bin` | ids of all documents, as `u16` if the vocabulary allows, else as `u32` |
//! | `offsets.bin` | where each document begins among them, and the end: `u64` |
//! | `bytes.bin` | size of each document's text in UTF-8 bytes: `u32` |
//!
//! All of its tokens are to be learnt. Conversations, of which only some are, are held in memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::write::Layout;
use super::{CacheError, DocumentTokens, hex};

/// Name and version of the layout above; part of every shard's key.
pub(super) const FORMAT: &str = "kindling token shard 1";

pub(super) const HEADER: &str = "shard.json";
pub(super) const TOKENS: &str = "tokens.bin";
pub(super) const OFFSETS: &str = "offsets.bin";
pub(super) const BYTES: &str = "bytes.bin";

/// What `shard.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) key: String,
    pub(super) id_bytes: usize,
    pub(super) num_documents: u64,
    pub(super) num_tokens: u64,
    pub(super) num_bytes: u64,
    pub(super) num_dropped: u64,
    pub(super) checksums: BTreeMap<String, String>,
}

/// Documents of one source file.
#[derive(Debug)]
pub(super) struct Shard {
    header: Header,
    tokens: Data,
    offsets: Data,
    bytes: Data,
    /// One bit per token, lowest first: is it to be learnt; `None` if all are.
    marks: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Data {
    Memory(Vec<u8>),
    Mapped(Mmap),
}

impl Data {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }

    fn u64_at(&self, index: usize) -> u64 {
        let bytes = &self.as_bytes()[index * 8..index * 8 + 8];
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    }

    fn u32_at(&self, index: usize) -> u32 {
        let bytes = &self.as_bytes()[index * 4..index * 4 + 4];
        u32::from_le_bytes(bytes.try_into().expect("four bytes"))
    }
}

impl Shard {
    /// Holds documents in memory, in the same layout.
    pub(super) fn in_memory(documents: Vec<DocumentTokens>) -> Self {
        let has_marks = documents.iter().any(|document| document.trained.is_some());
        let mut layout = Layout::new(4, has_marks);
        let (mut tokens, mut offsets, mut bytes) = (Vec::new(), vec![0; 8], Vec::new());
        for document in documents {
            let record = layout.record(&document);
            tokens.extend(record.ids);
            offsets.extend(record.end);
            bytes.extend(record.num_bytes);
        }
        let mut hasher = Sha256::new();
        for part in [&tokens, &offsets, &bytes, &layout.marks] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let marks = has_marks.then(|| std::mem::take(&mut layout.marks));
        Self {
            header: layout.header(hex(&hasher.finalize()), BTreeMap::new()),
            tokens: Data::Memory(tokens),
            offsets: Data::Memory(offsets),
            bytes: Data::Memory(bytes),
            marks,
        }
    }

    /// Maps the folder of a shard and verifies every byte of it.
    pub(super) fn open(folder: &Path, key: &str) -> Result<Self, CacheError> {
        let path = folder.join(HEADER);
        let json = fs::read(&path).map_err(CacheError::io(&path, "read"))?;
        let damaged = |found: String, expected: String| CacheError::Damaged {
            path: path.clone(),
            found,
            expected,
        };
        let header: Header = serde_json::from_slice(&json)
            .map_err(|error| damaged(error.to_string(), "the header of a shard".to_owned()))?;
        for (found, expected) in [(&*header.format, FORMAT), (&*header.key, key)] {
            if found != expected {
                return Err(damaged(format!("`{found}`"), format!("`{expected}`")));
            }
        }
        let open = |name, len| open_part(folder, name, &header, len);
        let tokens = open(TOKENS, header.num_tokens * header.id_bytes as u64)?;
        let offsets = open(OFFSETS, (header.num_documents + 1) * 8)?;
        let bytes = open(BYTES, header.num_documents * 4)?;
        Ok(Self {
            header,
            tokens,
            offsets,
            bytes,
            marks: None,
        })
    }

    pub(super) fn key(&self) -> &str {
        &self.header.key
    }

    pub(super) fn num_documents(&self) -> usize {
        self.header.num_documents as usize
    }

    pub(super) fn num_tokens(&self) -> u64 {
        self.header.num_tokens
    }

    pub(super) fn num_bytes(&self) -> u64 {
        self.header.num_bytes
    }

    pub(super) fn num_dropped(&self) -> u64 {
        self.header.num_dropped
    }

    /// Where a document's tokens lie among those of the shard.
    pub(super) fn token_range(&self, document: usize) -> Range<u64> {
        self.offsets.u64_at(document)..self.offsets.u64_at(document + 1)
    }

    pub(super) fn document_bytes(&self, document: usize) -> u64 {
        u64::from(self.bytes.u32_at(document))
    }

    pub(super) fn ids(&self, tokens: Range<u64>) -> Vec<u32> {
        let width = self.header.id_bytes;
        let bytes =
            &self.tokens.as_bytes()[tokens.start as usize * width..tokens.end as usize * width];
        if width == 2 {
            let (ids, _) = bytes.as_chunks::<2>();
            ids.iter()
                .map(|&id| u32::from(u16::from_le_bytes(id)))
                .collect()
        } else {
            let (ids, _) = bytes.as_chunks::<4>();
            ids.iter().map(|&id| u32::from_le_bytes(id)).collect()
        }
    }

    pub(super) fn has_marks(&self) -> bool {
        self.marks.is_some()
    }

    pub(super) fn trained(&self, tokens: Range<u64>) -> Option<Vec<bool>> {
        let bits = self.marks.as_ref()?;
        let is_set = |token: u64| bits[token as usize / 8] >> (token % 8) & 1 == 1;
        Some(tokens.map(is_set).collect())
    }
}

fn open_part(folder: &Path, name: &str, header: &Header, len: u64) -> Result<Data, CacheError> {
    let path = folder.join(name);
    let damaged = |found, expected| CacheError::Damaged {
        path: path.clone(),
        found,
        expected,
    };
    let read_error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => damaged("no file".to_owned(), "a file".to_owned()),
        _ => CacheError::io(&path, "read")(source),
    };
    let file = File::open(&path).map_err(read_error)?;
    let found = file.metadata().map_err(read_error)?.len();
    if found != len {
        return Err(damaged(format!("{found} bytes"), format!("{len} bytes")));
    }
    let found = checksum(&file).map_err(CacheError::io(&path, "read"))?;
    let expected = header.checksums.get(name).map_or("none", String::as_str);
    if found != expected {
        let checksum = |sum: &str| format!("checksum {sum}");
        return Err(damaged(checksum(&found), checksum(expected)));
    }
    let map = map_file(&file).map_err(CacheError::io(&path, "read"))?;
    Ok(Data::Mapped(map))
}

#[expect(
    unsafe_code,
    reason = "mapping a file is unsafe, since others could cut it short"
)]
fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: shards are written once under a temporary name and never changed after their rename.
    unsafe { Mmap::map(file) }
}

/// Checksum against damage, not against forgery: any change within one word changes it for sure,
/// and it runs at the speed of memory, so that every byte can be verified at every start.
///
/// Reads the file rather than a mapping of it, whose pages would count as memory of the process.
pub(super) fn checksum(file: &File) -> io::Result<String> {
    let mix = |state: u64, word: [u8; 8]| {
        (state ^ u64::from_le_bytes(word))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    };
    let mut state = file.metadata()?.len();
    let mut block = Vec::new();
    // Only the last block can be short, so only there can a word be incomplete.
    while file.take(1 << 20).read_to_end(&mut block)? > 0 {
        let (words, rest) = block.as_chunks::<8>();
        state = words.iter().fold(state, |state, &word| mix(state, word));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = mix(state, last);
        block.clear();
    }
    Ok(format!("{state:016x}"))
}
