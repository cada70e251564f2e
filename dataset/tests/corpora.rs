//! Readers and tokenizer training on real files; skipped where KINDLING_CORPORA is not set.

use std::path::{Path, PathBuf};

use dataset::Tokenizer;
use dataset::magpie::leaks::has_leak;
use dataset::magpie::record::{Record, read_records, write_records};
use dataset::source::{Documents, SourceConfig};
use dataset::tokenizer_train::{
    Language, SampleConfig, SpecialTokens, TokenizerTrainer, train_on_sources,
};

fn pretrain_folder() -> Option<PathBuf> {
    let Some(corpora) = std::env::var_os("KINDLING_CORPORA") else {
        println!("skipped: KINDLING_CORPORA is not set");
        return None;
    };
    Some(Path::new(&corpora).join("pretrain"))
}

fn source(folder: &Path, pattern: &str, field: &str) -> SourceConfig {
    let path = folder.join(pattern).display().to_string();
    SourceConfig {
        field: field.to_owned(),
        ..SourceConfig::new(path)
    }
}

fn read(source: SourceConfig) -> Vec<String> {
    let documents = Documents::open(&[source]).expect("the files are there");
    documents
        .map(|document| document.expect("the files are sound").text)
        .collect()
}

/// Numbers of rows as other readers count them (Python's json), whole texts of the plain files.
#[test]
fn real_files_are_read_whole() {
    let Some(folder) = pretrain_folder() else {
        return;
    };
    assert_eq!(read(source(&folder, "en_c4_demo.jsonl", "text")).len(), 300);
    assert_eq!(
        read(source(&folder, "zh_firefly_dummy_pretrain.jsonl", "text")).len(),
        45
    );
    let poems = read(source(&folder, "zh_poetry/ci.song.0.json", "paragraphs"));
    assert!(poems[0].contains("气和玉烛，睿化著鸿明。"));
    for file in [
        "en_tinyshakespeare.txt",
        "zh_classic_hongloumeng.txt",
        "en_wiki_demo.txt",
    ] {
        let whole = std::fs::read_to_string(folder.join(file)).expect("a text file");
        let documents = read(source(&folder, file, "text"));
        let squeezed = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(squeezed(&documents.concat()), squeezed(&whole), "{file}");
        let longest = documents.iter().map(|text| text.chars().count()).max();
        println!(
            "{file}: {} documents, the longest of {longest:?}",
            documents.len()
        );
    }
}

/// A SQuAD file has its texts deeper than a field can name.
#[test]
fn a_nested_file_tells_its_fields() {
    let Some(folder) = pretrain_folder() else {
        return;
    };
    let mut documents =
        Documents::open(&[source(&folder, "zh_cmrc2018_dev.json", "text")]).expect("a file");
    let error = documents
        .next()
        .expect("an error")
        .expect_err("no such field")
        .to_string();
    assert!(error.ends_with("zh_cmrc2018_dev.json:1: no field `text`, found `version`, `data`"));
}

/// Bounds around a recorded run (1.07 Chinese and 3.05 English characters per token; much of the
/// Chinese is verse in old spelling). Python's `tokenizers` learns the same merges from the same text.
#[test]
fn a_tokenizer_of_6400_compresses_real_text() {
    let Some(folder) = pretrain_folder() else {
        return;
    };
    let sources = [
        source(&folder, "en_*.txt", "text"),
        source(&folder, "*_*.jsonl", "text"),
        source(&folder, "zh_classic_*.txt", "text"),
        source(&folder, "zh_poetry/*.json", "paragraphs"),
    ];
    let special_tokens = SpecialTokens::V3;
    let trainer = TokenizerTrainer {
        special_tokens,
        split_digits: true,
        ..Default::default()
    };
    let sample = SampleConfig {
        max_train_bytes: 4 << 20,
        ..SampleConfig::default()
    };
    let trained = train_on_sources(&trainer, &sources, &sample).expect("a tokenizer");
    assert_eq!(trained.tokenizer.vocab_size(), 6400);
    assert!(
        (3 << 20..=4 << 20).contains(&trained.num_bytes),
        "{}",
        trained.num_bytes
    );
    for (language, measured) in &trained.compression {
        println!(
            "{language:?}: {:.3} bytes, {:.3} characters per token",
            measured.bytes_per_token(),
            measured.chars_per_token()
        );
    }
    let chinese = trained.compression[&Language::Chinese].chars_per_token();
    let english = trained.compression[&Language::English].chars_per_token();
    assert!((1.03..1.15).contains(&chinese), "{chinese}");
    assert!((2.9..3.2).contains(&english), "{english}");

    let folder = tempfile::tempdir().expect("a folder");
    trained
        .tokenizer
        .save(folder.path())
        .expect("a written tokenizer");
    let loaded = Tokenizer::load(folder.path()).expect("a tokenizer");
    assert_eq!(loaded.fingerprint(), trained.tokenizer.fingerprint());
}

fn magpie_folder() -> Option<PathBuf> {
    let folder = pretrain_folder()?.with_file_name("magpie");
    folder.exists().then_some(folder)
}

/// What Ohtani-y's fork of Magpie published is read and written back to the same bytes, and its two
/// known leaks are found (counts taken with Python's json on the same files).
#[test]
fn published_magpie_files_round_trip_and_their_leaks_are_found() {
    let Some(folder) = magpie_folder() else {
        return;
    };
    let written = tempfile::tempdir().expect("a folder");
    let files = std::fs::read_dir(folder.join("ohtani")).expect("a folder");
    let files = files.map(|entry| entry.expect("an entry").path());
    let official = ["5res.json", "5res_armorm.json"];
    let official =
        official.map(|name| folder.join(format!("official_example_instructions_{name}")));
    let mut num_files = 0;
    for path in files.chain(official) {
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.ends_with("dataset_info.json") {
            continue;
        }
        let records = read_records(&path).expect("records");
        let copy = written.path().join("copy.json");
        write_records(&copy, &records).expect("a written file");
        let bytes = |path: &Path| std::fs::read(path).expect("a file");
        assert!(bytes(&path) == bytes(&copy), "{name} is not the same");
        num_files += 1;
    }
    assert_eq!(num_files, 10);
    let lines = read_records(&folder.join("official_example_instructions.jsonl")).expect("records");
    assert_eq!(lines.len(), 5);

    for (file, leaked, colons) in [
        ("calculus_20250801_033058__calculus_ins", 165, 184),
        (
            "AllDomains_20250731_234751__statistics__statistics_ins",
            75,
            121,
        ),
        ("statistics_20250731_212932__statistics_ins", 26, 40),
        ("statistics_20250731_232533__statistics_ins", 89, 113),
    ] {
        let path = folder.join(format!("ohtani/Qwen2.5-3B-Instruct_{file}.json"));
        let records = read_records(&path).expect("records");
        let count = |holds: fn(&str) -> bool| {
            let texts = records.iter().map(Record::instruction);
            texts.filter(|text| holds(text)).count()
        };
        assert_eq!(count(has_leak), leaked, "{file}");
        assert_eq!(count(|text| text.ends_with(':')), colons, "{file}");
    }
}
