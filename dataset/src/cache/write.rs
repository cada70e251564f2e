//! Writing a shard: its layout document by document, and the files of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::shard::{BYTES, FORMAT, HEADER, Header, OFFSETS, TOKENS, checksum};
use super::{CacheError, DocumentTokens};

/// Running counts of a shard, and the marks of one in memory.
pub(super) struct Layout {
    id_bytes: usize,
    has_marks: bool,
    num_documents: u64,
    num_tokens: u64,
    num_bytes: u64,
    num_dropped: u64,
    /// One bit per token, lowest first: is it to be learnt.
    pub(super) marks: Vec<u8>,
}

/// What one document adds to each file.
#[derive(Default)]
pub(super) struct Record {
    pub(super) ids: Vec<u8>,
    pub(super) end: Vec<u8>,
    pub(super) num_bytes: Vec<u8>,
}

impl Layout {
    pub(super) fn new(id_bytes: usize, has_marks: bool) -> Self {
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

    pub(super) fn record(&mut self, document: &DocumentTokens) -> Record {
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

    pub(super) fn header(&self, key: String, checksums: BTreeMap<String, String>) -> Header {
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
    pub(super) fn create(folder: &Path, key: &str, vocab_size: usize) -> Result<Self, CacheError> {
        let id_bytes = if vocab_size <= 1 << 16 { 2 } else { 4 };
        let mut parts = Vec::new();
        for name in [TOKENS, OFFSETS, BYTES] {
            let path = folder.join(name);
            let file = File::create_new(&path).map_err(CacheError::io(&path, "written"))?;
            parts.push((name, BufWriter::with_capacity(1 << 20, file)));
        }
        let mut writer = Self {
            layout: Layout::new(id_bytes, false),
            key: key.to_owned(),
            folder: folder.to_owned(),
            parts,
        };
        writer.write(1, &[0; 8])?;
        Ok(writer)
    }

    /// Appends a document; one without tokens is counted and left out.
    ///
    /// # Panics
    ///
    /// If only some of its tokens are to be learnt, which the files have no place for.
    pub(super) fn push(&mut self, document: &DocumentTokens) -> Result<(), CacheError> {
        assert!(document.trained.is_none(), "marks stay in memory");
        let record = self.layout.record(document);
        self.write(0, &record.ids)?;
        self.write(1, &record.end)?;
        self.write(2, &record.num_bytes)
    }

    /// Writes what is left and brings it all to the disk; returns the number of tokens.
    pub(super) fn finish(self) -> Result<u64, CacheError> {
        let mut checksums = BTreeMap::new();
        for (name, writer) in self.parts {
            let path = self.folder.join(name);
            let write_error = |source| CacheError::io(&path, "written")(source);
            let file = writer
                .into_inner()
                .map_err(|error| write_error(error.into_error()))?;
            file.sync_all().map_err(write_error)?;
            let file = File::open(&path).map_err(CacheError::io(&path, "read"))?;
            let sum = checksum(&file).map_err(CacheError::io(&path, "read"))?;
            checksums.insert(name.to_owned(), sum);
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
