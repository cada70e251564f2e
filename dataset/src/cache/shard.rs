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
//! | `trained.bin` | one bit per token, lowest first: is it to be learnt; absent if all are |

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CacheError, DocumentTokens, hex};

/// Name and version of the layout above; part of every shard's key.
pub(super) const FORMAT: &str = "kindling token shard 1";

const HEADER: &str = "shard.json";
const TOKENS: &str = "tokens.bin";
const OFFSETS: &str = "offsets.bin";
const BYTES: &str = "bytes.bin";
const TRAINED: &str = "trained.bin";

/// What `shard.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    key: String,
    id_bytes: usize,
    num_documents: u64,
    num_tokens: u64,
    num_bytes: u64,
    num_dropped: u64,
    checksums: BTreeMap<String, String>,
}

/// Documents of one source file.
#[derive(Debug)]
pub(super) struct Shard {
    header: Header,
    tokens: Data,
    offsets: Data,
    bytes: Data,
    trained: Option<Data>,
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
        let trained = has_marks.then(|| Data::Memory(std::mem::take(&mut layout.marks)));
        Self {
            header: layout.header(hex(&hasher.finalize()), BTreeMap::new()),
            tokens: Data::Memory(tokens),
            offsets: Data::Memory(offsets),
            bytes: Data::Memory(bytes),
            trained,
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
        let trained = if header.checksums.contains_key(TRAINED) {
            Some(open(TRAINED, header.num_tokens.div_ceil(8))?)
        } else {
            None
        };
        Ok(Self {
            header,
            tokens,
            offsets,
            bytes,
            trained,
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
        self.trained.is_some()
    }

    pub(super) fn trained(&self, tokens: Range<u64>) -> Option<Vec<bool>> {
        let bits = self.trained.as_ref()?.as_bytes();
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
    let read_error = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => damaged("no file".to_owned(), "a file".to_owned()),
        _ => CacheError::io(&path, "read")(source),
    };
    let file = File::open(&path).map_err(read_error)?;
    let found = file.metadata().map_err(read_error)?.len();
    if found != len {
        return Err(damaged(format!("{found} bytes"), format!("{len} bytes")));
    }
    let map = map_file(&file).map_err(CacheError::io(&path, "read"))?;
    let found = checksum(&map);
    let expected = header.checksums.get(name).map_or("none", String::as_str);
    if found != expected {
        let checksum = |sum: &str| format!("checksum {sum}");
        return Err(damaged(checksum(&found), checksum(expected)));
    }
    Ok(Data::Mapped(map))
}

#[expect(
    unsafe_code,
    reason = "mapping a file is unsafe, since others could cut it short"
)]
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: shards are written once under a temporary name and never changed after their rename.
    unsafe { Mmap::map(file) }
}

/// Checksum against damage, not against forgery: any change within one word changes it for sure,
/// and it runs at the speed of memory, so that every byte can be verified at every start.
fn checksum(bytes: &[u8]) -> String {
    let mix = |state: u64, word: u64| {
        (state ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = words.iter().fold(bytes.len() as u64, |state, &word| {
        mix(state, u64::from_le_bytes(word))
    });
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    state = mix(state, u64::from_le_bytes(last));
    format!("{:016x}", mix(state, 0))
}

/// Running counts of a shard, and the bits that wait for their byte to fill up.
struct Layout {
    id_bytes: usize,
    has_marks: bool,
    num_documents: u64,
    num_tokens: u64,
    num_bytes: u64,
    num_dropped: u64,
    /// Marks that are not yet taken away by a writer; all but the last byte are complete.
    marks: Vec<u8>,
}

/// What one document adds to each file.
#[derive(Default)]
struct Record {
    ids: Vec<u8>,
    end: Vec<u8>,
    num_bytes: Vec<u8>,
}

impl Layout {
    fn new(id_bytes: usize, has_marks: bool) -> Self {
        Self {
            id_bytes,
            has_marks,
            num_documents: 0,
            num_tokens: 0,
            num_bytes: 0,
            num_dropped: 0,
            marks: Vec::new(),
        }
    }

    fn record(&mut self, document: &DocumentTokens) -> Record {
        if document.ids.is_empty() {
            self.num_dropped += 1;
            return Record::default();
        }
        let num_bytes = u32::try_from(document.num_bytes).expect("a text is below 4 GB");
        self.push_marks(document);
        self.num_documents += 1;
        self.num_tokens += document.ids.len() as u64;
        self.num_bytes += document.num_bytes;
        let id_bytes = |id: &u32| id.to_le_bytes().into_iter().take(self.id_bytes);
        debug_assert!(self.id_bytes == 4 || document.ids.iter().all(|&id| id < 1 << 16));
        Record {
            ids: document.ids.iter().flat_map(id_bytes).collect(),
            end: self.num_tokens.to_le_bytes().to_vec(),
            num_bytes: num_bytes.to_le_bytes().to_vec(),
        }
    }

    fn push_marks(&mut self, document: &DocumentTokens) {
        if let Some(marks) = &document.trained {
            assert_eq!(marks.len(), document.ids.len(), "one mark per token");
        }
        if !self.has_marks {
            return;
        }
        for token in 0..document.ids.len() {
            let bit = (self.num_tokens + token as u64) % 8;
            if bit == 0 {
                self.marks.push(0);
            }
            let is_trained = document.trained.as_ref().is_none_or(|marks| marks[token]);
            *self.marks.last_mut().expect("the byte was pushed at bit 0") |=
                u8::from(is_trained) << bit;
        }
    }

    fn header(&self, key: String, checksums: BTreeMap<String, String>) -> Header {
        Header {
            format: FORMAT.to_owned(),
            key,
            id_bytes: self.id_bytes,
            num_documents: self.num_documents,
            num_tokens: self.num_tokens,
            num_bytes: self.num_bytes,
            num_dropped: self.num_dropped,
            checksums,
        }
    }
}

/// Writes a shard document by document; memory does not grow with the number of them.
pub(super) struct ShardWriter {
    layout: Layout,
    key: String,
    folder: PathBuf,
    parts: Vec<(&'static str, BufWriter<File>)>,
}

impl ShardWriter {
    /// Begins a shard in an empty folder. Ids are below `vocab_size`.
    pub(super) fn create(
        folder: &Path,
        key: &str,
        vocab_size: usize,
        has_marks: bool,
    ) -> Result<Self, CacheError> {
        let id_bytes = if vocab_size <= 1 << 16 { 2 } else { 4 };
        let mut parts = Vec::new();
        for name in [TOKENS, OFFSETS, BYTES, TRAINED] {
            if name != TRAINED || has_marks {
                let path = folder.join(name);
                let file = File::create_new(&path).map_err(CacheError::io(&path, "written"))?;
                parts.push((name, BufWriter::with_capacity(1 << 20, file)));
            }
        }
        let mut writer = Self {
            layout: Layout::new(id_bytes, has_marks),
            key: key.to_owned(),
            folder: folder.to_owned(),
            parts,
        };
        writer.write(1, &[0; 8])?;
        Ok(writer)
    }

    /// Appends a document; one without tokens is counted and left out.
    pub(super) fn push(&mut self, document: &DocumentTokens) -> Result<(), CacheError> {
        let record = self.layout.record(document);
        self.write(0, &record.ids)?;
        self.write(1, &record.end)?;
        self.write(2, &record.num_bytes)?;
        let num_complete = self.layout.marks.len().saturating_sub(1);
        let marks: Vec<u8> = self.layout.marks.drain(..num_complete).collect();
        self.write(3, &marks)
    }

    /// Writes what is left and brings it all to the disk; returns the number of tokens.
    pub(super) fn finish(mut self) -> Result<u64, CacheError> {
        let marks = std::mem::take(&mut self.layout.marks);
        self.write(3, &marks)?;
        let mut checksums = BTreeMap::new();
        for (name, writer) in self.parts {
            let path = self.folder.join(name);
            let write_error = |source| CacheError::io(&path, "written")(source);
            let file = writer
                .into_inner()
                .map_err(|error| write_error(error.into_error()))?;
            file.sync_all().map_err(write_error)?;
            let file = File::open(&path).map_err(CacheError::io(&path, "read"))?;
            if self.layout.num_tokens > 0 {
                let map = map_file(&file).map_err(CacheError::io(&path, "read"))?;
                checksums.insert(name.to_owned(), checksum(&map));
            }
        }
        let num_tokens = self.layout.num_tokens;
        let header = self.layout.header(self.key, checksums);
        let json = serde_json::to_vec_pretty(&header).expect("a header is plain JSON");
        let path = self.folder.join(HEADER);
        let mut file = File::create_new(&path).map_err(CacheError::io(&path, "written"))?;
        file.write_all(&json)
            .and_then(|()| file.sync_all())
            .map_err(CacheError::io(&path, "written"))?;
        Ok(num_tokens)
    }

    fn write(&mut self, part: usize, bytes: &[u8]) -> Result<(), CacheError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (name, file) = &mut self.parts[part];
        file.write_all(bytes)
            .map_err(CacheError::io(&self.folder.join(name), "written"))
    }
}
