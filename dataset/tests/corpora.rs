//! Readers and tokenizer training on real files; skipped where KINDLING_CORPORA is not set.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use dataset::Tokenizer;
use dataset::magpie::clean::holds_answer;
use dataset::magpie::leaks::has_leak;
use dataset::magpie::prefer::{PreferSection, prefer, rewards};
use dataset::magpie::record::{Record, read_records, write_records};
use dataset::magpie::work::{StepOutcome, Workplace};
use dataset::source::{Documents, SourceConfig};
use dataset::tokenizer_train::{
    Language, SampleConfig, SpecialTokens, TokenizerTrainer, train_on_sources,
};
use serde_json::Value;

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

/// Pairs of a published file of weighed answers, and what was counted.
fn pairs_of(path: &Path, min_margin: f64) -> (Vec<Record>, serde_json::Map<String, Value>) {
    let folder = tempfile::tempdir().expect("a folder");
    let section = PreferSection {
        min_margin,
        test_fraction: 0.0,
        ..PreferSection::default()
    };
    let mut workplace = Workplace {
        dir: folder.path(),
        overwrite: false,
        ending: "jsonl",
        save_every: 100,
        observe: &mut |_| ControlFlow::Continue(()),
    };
    let outcome = prefer(&section, 42, path, &mut workplace).expect("pairs");
    let StepOutcome::Done(entry) = outcome else {
        panic!("{outcome:?}");
    };
    let pairs = folder.path().join("preferences_train.jsonl");
    (read_records(&pairs).expect("records"), entry.counts)
}

/// Rewards of both publishers, one per answer; the pair of Magpie's first row and the numbers of
/// pairs are what Python's `max` and `min` give on the same files.
#[test]
fn published_rewards_become_pairs() {
    let Some(folder) = magpie_folder() else {
        return;
    };
    let official = folder.join("official_example_instructions_5res_armorm.json");
    let records = read_records(&official).expect("records");
    let scores = rewards(&records[0]).expect("rewards");
    assert_eq!(scores[..2], [0.112_792_968_75, 0.107_421_875]);
    let (pairs, counts) = pairs_of(&official, 0.0);
    assert_eq!((pairs.len(), &counts["train"]), (5, &5.into()));
    let first = pairs
        .iter()
        .find(|pair| pair.instruction() == records[0].instruction());
    let answer = |field: &str| first.expect("a pair").0[field][1]["content"].clone();
    let responses = records[0].responses();
    assert_eq!(
        [answer("chosen"), answer("rejected")],
        [responses[3], responses[1]]
    );

    let fork = "ohtani/Qwen2.5-3B-Instruct_statistics_20250731_212932__statistics_ins_7res_armorm";
    let fork = folder.join(format!("{fork}.json"));
    let counted = |min_margin| {
        let (_, counts) = pairs_of(&fork, min_margin);
        ["train", "small_margin", "unweighed"].map(|name| counts[name].as_u64())
    };
    assert_eq!(counted(0.0), [Some(200), Some(0), Some(0)]);
    assert_eq!(counted(0.0278), [Some(102), Some(98), Some(0)]);
}

/// What Ohtani-y's fork of Magpie published is read and written back to the same bytes, and its
/// known leaks are found (counts taken with Python's json and re on the same files): the text of
/// special tokens, colons at the end, and questions that begin to answer themselves.
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

    for (file, counts) in [
        ("calculus_20250801_033058__calculus_ins", [165, 184, 331]),
        (
            "AllDomains_20250731_234751__statistics__statistics_ins",
            [75, 121, 236],
        ),
        ("statistics_20250731_212932__statistics_ins", [26, 40, 82]),
        ("statistics_20250731_232533__statistics_ins", [89, 113, 241]),
    ] {
        let path = folder.join(format!("ohtani/Qwen2.5-3B-Instruct_{file}.json"));
        let records = read_records(&path).expect("records");
        let count = |holds: fn(&str) -> bool| {
            let texts = records.iter().map(Record::instruction);
            texts.filter(|text| holds(text)).count()
        };
        let ends_in_colon = |text: &str| text.ends_with(':');
        let found = [count(has_leak), count(ends_in_colon), count(holds_answer)];
        assert_eq!(found, counts, "{file}");
    }
}
