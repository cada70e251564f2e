//! Building shards: documents stream through both cores into files, never whole in memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::hashes::{ContentHashes, Stamp};
use super::progress::{BuildPhase, BuildProgress};
use super::shard::{FORMAT, Shard};
use super::write::ShardWriter;
use super::{CacheError, DocumentTokens, TokenShards, hex};
use crate::source::{Documents, SourceConfig, SourceError};
use crate::tokenizer::Tokenizer;

/// Text that is read before it is handed to the cores: at most three such batches are in memory.
const BATCH_BYTES: usize = 8 << 20;

/// What is to be tokenised, and where the result is kept.
#[derive(Debug, Clone, Copy)]
pub struct CacheRequest<'a> {
    /// Folder of the shards; made if it is not there.
    pub cache_dir: &'a Path,
    /// Sources of the text, with their weights.
    pub sources: &'a [SourceConfig],
    /// Tokenizer that encodes each document.
    pub tokenizer: &'a Tokenizer,
}

struct SourceFile {
    path: PathBuf,
    source: SourceConfig,
}

/// Opens the shards of all sources, building those that are not there.
///
/// A build writes to a temporary folder, brings it to the disk and renames it, so a killed one
/// leaves no half-written shard, and the next one begins it anew. Processes that want the same shard
/// wait for the first of them (a lock file beside the shard, which stays).
///
/// # Errors
///
/// Text that cannot be read, a shard that is damaged, a folder that cannot be written.
pub fn open_or_build(
    request: &CacheRequest,
    progress: &mut dyn FnMut(BuildProgress),
) -> Result<TokenShards, CacheError> {
    let cache_dir = request.cache_dir;
    fs::create_dir_all(cache_dir).map_err(CacheError::io(cache_dir, "written"))?;
    let files = source_files(request.sources)?;
    let keys = shard_keys(request, &files, progress)?;

    let mut total_bytes = 0;
    for (file, key) in files.iter().zip(&keys) {
        if !cache_dir.join(key).is_dir() {
            total_bytes += file_size(&file.path)?;
        }
    }
    let mut done_bytes = 0;
    let mut shards = Vec::new();
    for (file, key) in files.iter().zip(&keys) {
        if !cache_dir.join(key).is_dir() {
            build_shard(request, file, key, &mut |bytes| {
                progress(BuildProgress {
                    phase: BuildPhase::Tokenizing,
                    path: &file.path,
                    done_bytes: (done_bytes + bytes).min(total_bytes),
                    total_bytes,
                });
            })?;
            done_bytes += file_size(&file.path)?;
        }
        let shard = Shard::open(&cache_dir.join(key), key)?;
        shards.push((shard, file.source.weight));
    }
    TokenShards::new(shards)
}

/// One entry per file, with a source that names just this file.
fn source_files(sources: &[SourceConfig]) -> Result<Vec<SourceFile>, SourceError> {
    if sources.is_empty() {
        return Err(SourceError::NoSources);
    }
    let mut files = Vec::new();
    for source in sources {
        for path in Documents::open(std::slice::from_ref(source))?.paths() {
            files.push(SourceFile {
                path: path.clone(),
                source: source.clone(),
            });
        }
    }
    Ok(files)
}

fn file_size(path: &Path) -> Result<u64, CacheError> {
    let metadata = fs::metadata(path).map_err(CacheError::io(path, "read"))?;
    Ok(metadata.len())
}

/// Hash of all that decides a shard's content, for each file.
fn shard_keys(
    request: &CacheRequest,
    files: &[SourceFile],
    progress: &mut dyn FnMut(BuildProgress),
) -> Result<Vec<String>, CacheError> {
    let mut hashes = ContentHashes::load(request.cache_dir);
    let mut contents = Vec::new();
    let mut total_bytes = 0;
    for file in files {
        let content = hashes.remembered(&file.path)?;
        if content.is_none() {
            total_bytes += file_size(&file.path)?;
        }
        contents.push(content);
    }
    let mut done_bytes = 0;
    let fingerprint = request.tokenizer.fingerprint();
    let mut keys = Vec::new();
    for (file, content) in files.iter().zip(contents) {
        let content = match content {
            Some(content) => content,
            None => hashes.compute(&file.path, |bytes| {
                done_bytes += bytes;
                progress(BuildProgress {
                    phase: BuildPhase::Hashing,
                    path: &file.path,
                    done_bytes: done_bytes.min(total_bytes),
                    total_bytes,
                });
            })?,
        };
        keys.push(shard_key(&content, &fingerprint, file));
    }
    hashes.save()?;
    Ok(keys)
}

fn shard_key(content: &str, fingerprint: &str, file: &SourceFile) -> String {
    // How `auto` reads a file depends on the ending of its name.
    let ending = file.path.extension().unwrap_or_default();
    let SourceConfig {
        path: _,
        weight: _,
        format,
        field,
        document_separator,
    } = &file.source;
    let reading = serde_json::json!([
        FORMAT,
        content,
        fingerprint,
        format,
        ending.to_string_lossy().to_ascii_lowercase(),
        field,
        document_separator,
    ]);
    hex(&Sha256::digest(reading.to_string())[..16])
}

fn build_shard(
    request: &CacheRequest,
    file: &SourceFile,
    key: &str,
    progress: &mut dyn FnMut(u64),
) -> Result<(), CacheError> {
    let folder = request.cache_dir.join(key);
    let lock_path = folder.with_extension("lock");
    let lock = File::create(&lock_path).map_err(CacheError::io(&lock_path, "written"))?;
    // The lock ends with the process, however it ends.
    lock.lock().map_err(CacheError::io(&lock_path, "locked"))?;
    if folder.is_dir() {
        return Ok(());
    }
    let temporary = folder.with_extension("partial");
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(CacheError::io(&temporary, "removed"))?;
    }
    fs::create_dir(&temporary).map_err(CacheError::io(&temporary, "written"))?;
    let result = write_shard(request.tokenizer, file, key, &temporary, progress).and_then(|()| {
        fs::rename(&temporary, &folder).map_err(CacheError::io(&folder, "written"))?;
        sync_folder(request.cache_dir)
    });
    if result.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_dir_all(&temporary);
    }
    result
}

fn write_shard(
    tokenizer: &Tokenizer,
    file: &SourceFile,
    key: &str,
    folder: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(), CacheError> {
    let stamp = Stamp::of(&file.path)?;
    let size = file_size(&file.path)?;
    let source = SourceConfig {
        path: file.path.to_string_lossy().into_owned(),
        ..file.source.clone()
    };
    let documents = Documents::open(&[source])?;
    let mut writer = ShardWriter::create(folder, key, tokenizer.vocab_size())?;
    let mut done_bytes = 0;
    thread::scope(|scope| {
        for batch in read_ahead(scope, documents) {
            let batch = batch?;
            let encode = |text: &String| DocumentTokens {
                ids: tokenizer.encode_document(text),
                trained: None,
                num_bytes: text.len() as u64,
            };
            let encoded: Vec<DocumentTokens> = batch.par_iter().map(encode).collect();
            for document in &encoded {
                writer.push(document)?;
                done_bytes += document.num_bytes;
            }
            progress(done_bytes.min(size));
        }
        Ok::<(), CacheError>(())
    })?;
    progress(size);
    if writer.finish()? == 0 {
        return Err(CacheError::NoTokens {
            path: file.path.clone(),
        });
    }
    if Stamp::of(&file.path)? != stamp {
        return Err(CacheError::Changed {
            path: file.path.clone(),
        });
    }
    sync_folder(folder)
}

/// Reads batches of texts in a thread of its own, so that parsing overlaps with tokenising.
fn read_ahead<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    documents: Documents,
) -> Receiver<Result<Vec<String>, SourceError>> {
    let (sender, receiver) = sync_channel(1);
    scope.spawn(move || {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        for document in documents {
            let text = match document {
                Ok(document) => document.text,
                Err(error) => {
                    let _ = sender.send(Err(error));
                    return;
                }
            };
            batch_bytes += text.len();
            batch.push(text);
            if batch_bytes >= BATCH_BYTES {
                batch_bytes = 0;
                if sender.send(Ok(std::mem::take(&mut batch))).is_err() {
                    return;
                }
            }
        }
        let _ = sender.send(Ok(batch));
    });
    receiver
}

/// Makes a rename or a new file in the folder survive a power cut.
fn sync_folder(folder: &Path) -> Result<(), CacheError> {
    if cfg!(unix) {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(CacheError::io(folder, "written"))?;
    }
    Ok(())
}
