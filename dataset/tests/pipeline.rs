//! Text to batches through all parts of the room: the playground, real files, a large file.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use dataset::Tokenizer;
use dataset::cache::{CacheRequest, DocumentTokens, TokenShards, open_or_build};
use dataset::chat::RenderOptions;
use dataset::loader::{Loader, LoaderConfig};
use dataset::pack::PackMode;
use dataset::playground::{Playground, PlaygroundConfig};
use dataset::source::SourceConfig;
use dataset::tokenizer_train::TokenizerTrainer;

fn train_tokenizer(texts: &[String], vocab_size: usize) -> Tokenizer {
    let trainer = TokenizerTrainer {
        vocab_size,
        split_digits: true,
        ..TokenizerTrainer::default()
    };
    trainer.train(texts.iter()).expect("there is text")
}

fn loader(shards: TokenShards, seq_len: usize, mode: PackMode, tokenizer: &Tokenizer) -> Loader {
    let config = LoaderConfig {
        seq_len,
        batch_size: 8,
        seed: 1,
        mode,
        pad_id: tokenizer.pad_id(),
    };
    let all = (0..shards.num_documents() as u32).collect();
    Loader::new(Arc::new(shards), all, config).expect("there is something to learn")
}

/// With a tokenizer of its own, documents and rows of the playground fill rows to 98 percent (none
/// is shorter than about a dozen tokens, so gaps below that stay), no conversation is cut, an equation has a token per character, and supervised tokens decode to the answers.
#[test]
fn the_playground_becomes_batches() {
    let playground = Playground::generate(&PlaygroundConfig::default());
    let tokenizer = train_tokenizer(&playground.documents, 1024);
    assert_eq!(tokenizer.encode_ordinary("37+45=82").len(), 8);

    let encode = |text: &String| DocumentTokens {
        ids: tokenizer.encode_document(text),
        trained: None,
        num_bytes: text.len() as u64,
    };
    let documents = playground.documents.iter().map(encode).collect();
    let pretrain = loader(
        TokenShards::from_documents(documents),
        512,
        PackMode::Split,
        &tokenizer,
    );
    let packing = pretrain.packing();
    println!(
        "documents: {} tokens in {} rows, {:.2} % full",
        packing.num_tokens(),
        packing.num_rows(),
        100.0 * packing.efficiency()
    );
    assert!(packing.efficiency() > 0.98);

    let rows = playground.rows.iter().map(|row| {
        let encoded = tokenizer
            .encode_chat(row, &RenderOptions::default())
            .expect("rows are sound")
            .expect("the tokenizer has a template");
        DocumentTokens {
            num_bytes: row.iter().map(|turn| turn.content.len() as u64).sum(),
            ids: encoded.ids,
            trained: Some(encoded.trained),
        }
    });
    let shards = TokenShards::from_documents(rows.collect());
    let mut tune = loader(shards, 512, PackMode::Truncate, &tokenizer);
    let packing = tune.packing();
    println!(
        "rows: {} tokens in {} rows, {:.2} % full",
        packing.num_tokens(),
        packing.num_rows(),
        100.0 * packing.efficiency()
    );
    assert!(packing.efficiency() > 0.98);
    assert_eq!((packing.num_truncated(), tune.num_unsupervised()), (0, 0));

    let batch = tune.next_batch();
    let labels: Vec<u32> = batch
        .labels
        .iter()
        .filter_map(|&id| id.try_into().ok())
        .collect();
    let said = tokenizer.decode(&labels, false);
    let answers: Vec<&str> = playground
        .rows
        .iter()
        .flatten()
        .filter(|turn| turn.is_assistant())
        .map(|turn| turn.content.as_str())
        .collect();
    for answer in said.split_terminator("</s>") {
        assert!(
            answers.contains(&answer),
            "{answer:?} is no answer of the playground"
        );
    }
}

/// Real Chinese and English files, tokenised through the cache, fill rows of 512 to 99 percent.
#[test]
fn real_text_fills_its_rows() {
    let Some(corpora) = std::env::var_os("KINDLING_CORPORA") else {
        println!("skipped: KINDLING_CORPORA is not set");
        return;
    };
    let folder = Path::new(&corpora).join("pretrain");
    let cache = tempfile::tempdir().expect("a folder for the cache");
    let text = fs::read_to_string(folder.join("en_wiki_demo.txt")).expect("the file is there");
    let tokenizer = train_tokenizer(&[text], 2048);
    let source = |name: &str| SourceConfig::new(folder.join(name).to_string_lossy());
    let sources = [source("*.jsonl"), source("en_*.txt"), source("zh_*.txt")];
    let request = CacheRequest {
        cache_dir: cache.path(),
        sources: &sources,
        tokenizer: &tokenizer,
    };
    let open = || open_or_build(&request, &mut |_| {}).expect("the files are sound");
    let start = Instant::now();
    let built = open();
    let build_secs = start.elapsed().as_secs_f64();
    let start = Instant::now();
    assert_eq!(open().fingerprint(), built.fingerprint());
    println!(
        "{} documents, {} tokens, {} bytes; built in {build_secs:.2} s, opened in {:.3} s",
        built.num_documents(),
        built.num_tokens(),
        built.num_bytes(),
        start.elapsed().as_secs_f64()
    );
    let packing = loader(built, 512, PackMode::Split, &tokenizer);
    println!("{:.2} % full", 100.0 * packing.packing().efficiency());
    assert!(packing.packing().efficiency() > 0.99);
}

/// Building the shards of a gigabyte keeps under a gigabyte of memory in use. Run by hand, with
/// nothing else in the process: `cargo test -p kindling-dataset --test pipeline -- --ignored
/// --nocapture`. Reads the high-water mark that Linux keeps for a process.
#[test]
#[ignore = "takes minutes and gigabytes of disk"]
fn a_large_file_is_tokenised_in_little_memory() {
    let gigabytes = std::env::var("GIGABYTES").map_or(1.0, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder for the text");
    let playground = Playground::generate(&PlaygroundConfig::default());
    let tokenizer = train_tokenizer(&playground.documents, 1024);
    let path = folder.path().join("large.jsonl");
    let mut file = BufWriter::new(File::create(&path).expect("a file for the text"));
    let mut size = 0;
    // Documents of all sizes, every page a little different.
    for page in 0_usize.. {
        let start = page * 131 % playground.documents.len();
        let end = (start + 1 + page % 40).min(playground.documents.len());
        let text = format!("{page} {}", playground.documents[start..end].join("\n"));
        let line = serde_json::json!({ "text": text }).to_string();
        writeln!(file, "{line}").expect("room on the disk");
        size += line.len() + 1;
        if size as f64 >= gigabytes * 1e9 {
            break;
        }
    }
    drop(file);
    let request = CacheRequest {
        cache_dir: &folder.path().join("cache"),
        sources: &[SourceConfig::new(path.to_string_lossy())],
        tokenizer: &tokenizer,
    };
    let start = Instant::now();
    let before = peak_memory_bytes();
    let shards = open_or_build(&request, &mut |_| {}).expect("the file is sound");
    let secs = start.elapsed().as_secs_f64();
    println!(
        "{:.2} GB, {} documents, {} tokens in {secs:.0} s, peak memory {} MB (before: {} MB)",
        size as f64 / 1e9,
        shards.num_documents(),
        shards.num_tokens(),
        peak_memory_bytes() >> 20,
        before >> 20
    );
    let start = Instant::now();
    drop(open_or_build(&request, &mut |_| {}).expect("the shard is sound"));
    println!("opened again in {:.2} s", start.elapsed().as_secs_f64());
    assert!(peak_memory_bytes() < 1 << 30);
}

fn peak_memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("the field");
    let kilobytes = line.split_whitespace().nth(1).expect("a number");
    kilobytes.parse::<u64>().expect("a number") << 10
}
