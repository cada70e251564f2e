//! Shards on disk: what is written is what is read, and nothing half-written is taken for whole.

use std::fs;

use super::*;
use crate::source::SourceConfig;
use crate::tokenizer::Tokenizer;

/// A byte-level tokenizer without merges: one token per byte, plus ids for bos and eos.
fn byte_tokenizer(folder: &Path) -> Tokenizer {
    // The printable stand-ins that byte-level tokenizers use, in the order of bytes (GPT-2).
    let is_printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut shifted = 256;
    let mut vocabulary = serde_json::Map::new();
    for byte in 0..256_u32 {
        let code = if is_printable(byte) {
            byte
        } else {
            shifted += 1;
            shifted - 1
        };
        vocabulary.insert(char::from_u32(code).unwrap().to_string(), byte.into());
    }
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    for (id, content) in [(256, "<s>"), (257, "</s>")] {
        vocabulary.insert(content.to_owned(), id.into());
    }
    let level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false,
        "trim_offsets": true, "use_regex": false});
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [special(256, "<s>"), special(257, "</s>")],
        "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []}
    });
    let path = folder.join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    let config = serde_json::json!({"bos_token": "<s>", "eos_token": "</s>"});
    fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::load(folder).unwrap()
}

/// A folder with a tokenizer, a JSONL file of two documents and a cache.
struct Fixture {
    folder: tempfile::TempDir,
    tokenizer: Tokenizer,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = byte_tokenizer(folder.path());
        let fixture = Self { folder, tokenizer };
        fixture.write("a.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"中\"}\n");
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn source(&self, pattern: &str) -> SourceConfig {
        SourceConfig::new(self.path(pattern).to_string_lossy())
    }

    fn build(&self, sources: &[SourceConfig]) -> Result<TokenShards, CacheError> {
        let request = CacheRequest {
            cache_dir: &self.path("cache"),
            sources,
            tokenizer: &self.tokenizer,
        };
        open_or_build(&request, &mut |_| {})
    }

    /// Names in the cache folder that end so, in order.
    fn cached(&self, ending: &str) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = fs::read_dir(self.path("cache"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().unwrap_or_default() == ending)
            .collect();
        paths.sort();
        paths
    }
}

/// Two documents by hand: bos, the bytes of "ab", eos; bos, the bytes of "中", eos.
#[test]
fn text_becomes_documents_of_ids() {
    let fixture = Fixture::new();
    let shards = fixture.build(&[fixture.source("a.jsonl")]).unwrap();
    assert_eq!(shards.num_documents(), 2);
    assert_eq!((shards.num_tokens(), shards.num_bytes()), (9, 5));
    let expected = DocumentTokens {
        ids: vec![256, 0xe4, 0xb8, 0xad, 257],
        trained: None,
        num_bytes: 3,
    };
    assert_eq!(shards.document(1), expected);
    assert_eq!(shards.document_len(0), 4);
    assert_eq!(shards.read(1, 1..3).0, [0xe4, 0xb8]);
    assert_eq!(shards.num_bytes_of(&[1, 0, 1]), 8);
}

/// A second opening, a moved file and another weight build nothing; a changed byte does.
#[test]
fn shards_are_keyed_by_content() {
    let fixture = Fixture::new();
    let first = fixture.build(&[fixture.source("a.jsonl")]).unwrap();
    fs::rename(fixture.path("a.jsonl"), fixture.path("b.jsonl")).unwrap();
    let mut source = fixture.source("b.jsonl");
    source.weight = 2.5;
    let moved = fixture.build(&[source]).unwrap();
    assert_eq!(fixture.cached("").len(), 1);
    assert_eq!(moved.document(0), first.document(0));
    assert_eq!((first.weight(0), moved.weight(0)), (1.0, 2.5));
    assert_ne!(first.fingerprint(), moved.fingerprint());

    fixture.write("b.jsonl", "{\"text\": \"ac\"}\n{\"text\": \"中\"}\n");
    let changed = fixture.build(&[fixture.source("b.jsonl")]).unwrap();
    assert_eq!(fixture.cached("").len(), 2);
    assert_eq!(changed.document(0).ids, [256, 97, 99, 257]);
}

/// Sources keep their order and weights; a source can be a glob of several files.
#[test]
fn sources_follow_one_another() {
    let fixture = Fixture::new();
    fixture.write("x1.txt", "one");
    fixture.write("x2.txt", "two");
    let mut texts = fixture.source("x*.txt");
    texts.weight = 0.5;
    let shards = fixture.build(&[texts, fixture.source("a.jsonl")]).unwrap();
    let lengths: Vec<u64> = (0..4)
        .map(|document| shards.document_len(document))
        .collect();
    assert_eq!(lengths, [5, 5, 4, 5]);
    let weights: Vec<f64> = (0..4).map(|document| shards.weight(document)).collect();
    assert_eq!(weights, [0.5, 0.5, 1.0, 1.0]);
}

/// Whatever byte of whatever file is changed or cut off, opening says which file and what to do.
#[test]
fn damage_is_found_and_named() {
    let fixture = Fixture::new();
    let sources = [fixture.source("a.jsonl")];
    fixture.build(&sources).unwrap();
    let folder = fixture.cached("").remove(0);
    for name in ["tokens.bin", "offsets.bin", "bytes.bin"] {
        let path = folder.join(name);
        let good = fs::read(&path).unwrap();
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 0x10;
            fs::write(&path, bad).unwrap();
            let message = fixture.build(&sources).unwrap_err().to_string();
            let expected = format!("{}: damaged token shard: found checksum", path.display());
            assert!(message.starts_with(&expected), "{message}");
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        let message = fixture.build(&sources).unwrap_err().to_string();
        let expected = format!(
            "{}: damaged token shard: found {} bytes, expected {} bytes; delete the folder {} and \
             it is built anew",
            path.display(),
            good.len() - 1,
            good.len(),
            folder.display()
        );
        assert_eq!(message, expected);
        fs::remove_file(&path).unwrap();
        let message = fixture.build(&sources).unwrap_err().to_string();
        assert!(
            message.contains("found no file, expected a file"),
            "{message}"
        );
        fs::write(&path, good).unwrap();
    }
    let header = folder.join("shard.json");
    let good = fs::read_to_string(&header).unwrap();
    fs::write(&header, good.replace("shard 1", "shard 0")).unwrap();
    let message = fixture.build(&sources).unwrap_err().to_string();
    assert!(
        message.contains("found `kindling token shard 0`"),
        "{message}"
    );
    fs::write(&header, &good[..good.len() / 2]).unwrap();
    let message = fixture.build(&sources).unwrap_err().to_string();
    assert!(
        message.contains("expected the header of a shard"),
        "{message}"
    );

    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(fixture.build(&sources).unwrap().num_documents(), 2);
}

/// A build that was killed leaves its temporary folder; the next one clears it away and succeeds.
#[test]
fn leftovers_of_a_killed_build_do_no_harm() {
    let fixture = Fixture::new();
    let sources = [fixture.source("a.jsonl")];
    fixture.build(&sources).unwrap();
    let folder = fixture.cached("").remove(0);
    let partial = folder.with_extension("partial");
    fs::rename(&folder, &partial).unwrap();
    fs::remove_file(partial.join("shard.json")).unwrap();
    fs::write(partial.join("tokens.bin"), "half").unwrap();

    assert_eq!(fixture.build(&sources).unwrap().num_tokens(), 9);
    assert!(fixture.cached("partial").is_empty());
}

/// A broken line stops the build with its position and leaves no shard behind.
#[test]
fn a_broken_line_leaves_nothing_behind() {
    let fixture = Fixture::new();
    fixture.write("bad.jsonl", "{\"text\": \"ab\"}\n{\"txt\": 1}\n");
    let error = fixture.build(&[fixture.source("bad.jsonl")]).unwrap_err();
    let expected = format!(
        "{}:2: no field `text`, found `txt`",
        fixture.path("bad.jsonl").display()
    );
    assert_eq!(error.to_string(), expected);
    assert!(fixture.cached("").is_empty() && fixture.cached("partial").is_empty());
}

/// Eight threads ask for the same shard at once; all get it, and only one is built.
#[test]
fn concurrent_builders_agree() {
    let fixture = Fixture::new();
    let lines: Vec<String> = (0..2000)
        .map(|n| format!("{{\"text\": \"line {n}\"}}"))
        .collect();
    fixture.write("many.jsonl", &lines.join("\n"));
    let sources = [fixture.source("many.jsonl")];
    let fingerprints: Vec<String> = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| fixture.build(&sources).unwrap().fingerprint()))
            .collect();
        builds
            .into_iter()
            .map(|build| build.join().unwrap())
            .collect()
    });
    assert!(
        fingerprints
            .iter()
            .all(|fingerprint| *fingerprint == fingerprints[0])
    );
    assert_eq!(fixture.cached("").len(), 1);
    assert!(fixture.cached("partial").is_empty());
}

/// Progress counts up to the size of the files, hashing first.
#[test]
fn progress_reaches_its_total() {
    let fixture = Fixture::new();
    let mut seen = Vec::new();
    let request = CacheRequest {
        cache_dir: &fixture.path("cache"),
        sources: &[fixture.source("a.jsonl")],
        tokenizer: &fixture.tokenizer,
    };
    let size = fs::metadata(fixture.path("a.jsonl")).unwrap().len();
    open_or_build(&request, &mut |progress| {
        assert!(progress.done_bytes <= progress.total_bytes);
        seen.push((progress.phase, progress.done_bytes, progress.total_bytes));
    })
    .unwrap();
    assert_eq!(seen[0], (BuildPhase::Hashing, size, size));
    assert_eq!(seen.last(), Some(&(BuildPhase::Tokenizing, size, size)));
}

/// Documents of odd lengths, one without tokens, in memory and on disk; marks, where some have
/// them, in memory.
#[test]
fn documents_come_back_from_memory_and_from_disk() {
    let document = |len: u32, step: Option<u32>| DocumentTokens {
        ids: (0..len).map(|id| id * 70_000 % 100_003).collect(),
        trained: step.map(|step| (0..len).map(|id| id % step == 0).collect()),
        num_bytes: u64::from(len) * 2,
    };
    let documents = [
        document(5, Some(2)),
        document(0, Some(1)),
        document(13, None),
        document(1, Some(7)),
        document(30, Some(3)),
    ];
    let folder = tempfile::tempdir().unwrap();
    let unmarked = documents.clone().map(|document| DocumentTokens {
        trained: None,
        ..document
    });
    let mut writer = write::ShardWriter::create(folder.path(), "key", 100_003).unwrap();
    for document in &unmarked {
        writer.push(document).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), 49);
    let mapped = TokenShards::new(vec![(Shard::open(folder.path(), "key").unwrap(), 1.0)]).unwrap();
    let in_memory = |documents: &[DocumentTokens]| TokenShards::from_documents(documents.to_vec());
    let marked = documents.clone().map(|mut document| {
        document.trained.get_or_insert_with(|| vec![true; 13]);
        document
    });
    for (shards, expected) in [
        (mapped, &unmarked),
        (in_memory(&unmarked), &unmarked),
        (in_memory(&documents), &marked),
    ] {
        assert_eq!((shards.num_documents(), shards.num_dropped()), (4, 1));
        for (index, number) in [0, 2, 3, 4].into_iter().enumerate() {
            assert_eq!(shards.document(index as u32), expected[number]);
        }
    }
}
