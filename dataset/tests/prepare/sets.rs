//! What each data set becomes, from files of the makers' layouts and columns.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dataset::prepare::{Origin, PrepareError, PrepareOptions, Prepared, SOURCES, Source, prepare};
use dataset::rows::{Row, RowFormat, RowReader};
use serde_json::{Value, json};

/// A folder of data sets as the hub has them; its `make.py` says how it was made.
pub(crate) const HUB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/hub");

pub(crate) fn source(name: &str) -> &'static Source {
    SOURCES.iter().find(|source| source.name == name).unwrap()
}

pub(crate) fn options(folder: &Path) -> PrepareOptions {
    PrepareOptions {
        output_dir: folder.to_owned(),
        max_samples: None,
        seed: 42,
        max_dropped: 0.5,
    }
}

fn hub() -> Origin {
    Origin::Folder {
        path: HUB.into(),
        holds_one: false,
    }
}

fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn field(rows: &[Value], name: &str) -> Vec<String> {
    let field = |row: &Value| row[name].as_str().unwrap().to_owned();
    rows.iter().map(field).collect()
}

fn prepared(name: &str, folder: &Path) -> Prepared {
    prepare(source(name), &hub(), &options(folder)).unwrap()
}

/// Every data set, with rows counted in `make.py`: read, dropped, written.
#[test]
fn every_data_set_is_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let mut counts = BTreeMap::new();
    for source in &SOURCES {
        let prepared = prepare(source, &hub(), &options(folder.path())).unwrap();
        for file in prepared.files {
            let name = file
                .written
                .path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let dropped = file.dropped.total();
            counts.insert(name, (file.num_read, dropped, file.written.num_rows));
        }
    }
    let expected = [
        ("coig-cqia_train.jsonl", (5, 1, 4)),
        ("hh-rlhf_test.jsonl", (1, 0, 1)),
        ("hh-rlhf_train.jsonl", (4, 1, 3)),
        ("ruozhiba_train.jsonl", (2, 0, 2)),
        ("s1k-gemini_train.jsonl", (2, 0, 2)),
        ("s1k_train.jsonl", (3, 1, 2)),
        ("ultrafeedback_train.jsonl", (3, 1, 2)),
    ];
    let expected = expected.map(|(name, count)| (name.to_owned(), count));
    assert_eq!(counts, BTreeMap::from(expected));
}

/// The three kinds of records, each with APT's fields in APT's order.
#[test]
fn records_have_apt_s_fields() {
    let folder = tempfile::tempdir().unwrap();
    let first = |name: &str, index: usize| {
        let prepared = prepared(name, folder.path());
        let file = prepared.files.last().unwrap();
        let text = fs::read_to_string(&file.written.path).unwrap();
        text.lines().nth(index).unwrap().to_owned()
    };
    assert_eq!(
        first("s1k", 0),
        r#"{"problem":"Is 4 plus 8 even?","cot_explicit":"Both are even.","answer":"\\text{yes}","solution":"A sum of two even numbers is even, as 2a + 2b = 2(a + b).","source":"s1k"}"#
    );
    assert_eq!(
        first("s1k-gemini", 1),
        r#"{"problem":"What is 6 times 7?","cot_explicit":"Six sevens.\nThey are 42.","answer":"42","solution":"So it is \\boxed{42}.","source":"s1k-gemini"}"#
    );
    assert_eq!(
        first("ultrafeedback", 0),
        r#"{"prompt":"Name a colour.","chosen":"Blue is a colour.","rejected":"Seven.","source":"evol_instruct"}"#
    );
    assert_eq!(
        first("hh-rlhf", 0),
        r#"{"prompt":"\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why is the sky blue?\n\nAssistant:","chosen":"Air scatters blue light.","rejected":"It is painted.","source":"harmless-base"}"#
    );
    assert_eq!(
        first("coig-cqia", 0),
        r#"{"prompt":"请选择正确的答案。\n\n输入: 一年有几个月？ A. 十 B. 十二","response":"B","source":"exam","task_type":{"major":["选择题"],"minor":["常识"]}}"#
    );
}

/// Training reads what was prepared: conversations with thoughts, and preferences.
#[test]
fn prepared_files_can_be_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["coig-cqia", "s1k", "hh-rlhf", "ultrafeedback"] {
        for file in prepared(name, folder.path()).files {
            let rows = RowReader::open(&file.written.path, RowFormat::Auto).unwrap();
            for row in rows {
                let row = row.unwrap().row.unwrap();
                assert_eq!(
                    matches!(row, Row::Preference(_)),
                    ["hh-rlhf", "ultrafeedback"].contains(&name)
                );
                let chat = row.into_chat().unwrap();
                let answer = chat.conversations.last().unwrap();
                assert!(answer.is_assistant());
                assert_eq!(answer.reasoning_content.is_some(), name == "s1k");
                // The answer alone, not the solution that stands beside it.
                assert!(name != "s1k" || [r"\text{yes}", "9"].contains(&answer.content.as_str()));
            }
        }
    }
}

/// A draw is a part of the whole, in its order, and the seed's.
#[test]
fn samples_are_drawn_by_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let drawn = |seed, max_samples| {
        let options = PrepareOptions {
            seed,
            max_samples,
            ..options(folder.path())
        };
        let prepared = prepare(source("coig-cqia"), &hub(), &options).unwrap();
        let file = &prepared.files[0].written;
        assert!(max_samples.is_none_or(|most| file.num_rows <= most));
        field(&rows(&file.path), "prompt")
    };
    let all = drawn(1, None);
    let places = |seed| -> Vec<usize> {
        let drawn = drawn(seed, Some(2));
        let place = |prompt: &String| all.iter().position(|other| other == prompt).unwrap();
        drawn.iter().map(place).collect()
    };
    assert!(places(1).is_sorted() && places(1).len() == 2);
    assert_eq!(places(1), places(1));
    assert!((2..20).any(|seed| places(seed) != places(1)));
    assert_eq!(drawn(1, Some(100)), all);
}

/// Other columns than a maker's own are found out, with the reason, and nothing is left behind.
#[test]
fn a_data_set_without_usable_rows_fails_with_the_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("s1K-1.1");
    fs::create_dir(&set).unwrap();
    let row = json!({"ask": "q", "reply": "a"});
    fs::write(set.join("train.jsonl"), format!("{row}\nno JSON\n")).unwrap();
    let origin = Origin::Folder {
        path: folder.path().to_owned(),
        holds_one: false,
    };
    let output = folder.path().join("output");
    let error = prepare(source("s1k"), &origin, &options(&output)).unwrap_err();
    assert!(matches!(error, PrepareError::TooManyDropped { .. }));
    let message = error.to_string();
    assert!(
        message.starts_with(
            "s1k: 2 of 2 train rows cannot be used, expected less than a share of 0.5: \
             1 x `problem` is empty (the first at train.jsonl:1); 1 x not JSON: "
        ),
        "{message}"
    );
    assert_eq!(fs::read_dir(&output).unwrap().count(), 0);

    fs::write(set.join("train.jsonl"), "").unwrap();
    let error = prepare(source("s1k"), &origin, &options(&output)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "s1k: its train files hold no rows, expected at least one"
    );
    let error = prepare(source("hh-rlhf"), &origin, &options(&output)).unwrap_err();
    let message = error.to_string();
    assert!(
        message.starts_with("hh-rlhf: found no file of Anthropic/hh-rlhf in "),
        "{message}"
    );
}

/// Both of Argilla's repositories hold the same preferences in different columns.
#[test]
fn a_folder_of_its_own_may_be_named() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::Folder {
        path: Path::new(HUB).join("argilla/ultrafeedback-binarized-preferences-cleaned"),
        holds_one: true,
    };
    let prepared = prepare(source("ultrafeedback"), &origin, &options(folder.path())).unwrap();
    let rows = rows(&prepared.files[0].written.path);
    assert_eq!(
        rows,
        [
            json!({"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "Seven.",
            "source": "evol_instruct"})
        ]
    );
}

/// Anthropic's own test file of harmless-base and COIG-CQIA's riddles, counted with Python's `re`
/// and `json`: of 2,312 pairs 5 differ before their last turn and 4 chosen answers are empty.
#[test]
fn real_files_are_prepared() {
    let Some(corpora) = std::env::var_os("KINDLING_CORPORA").map(std::path::PathBuf::from) else {
        println!("skipped: KINDLING_CORPORA is not set");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in [
        (
            "dpo/hh_rlhf_harmless-base_test.jsonl.gz",
            "hh-rlhf/harmless-base/test.jsonl.gz",
        ),
        (
            "sft/zh_ruozhiba_raw_emollm.jsonl",
            "COIG-CQIA/ruozhiba/ruozhiba_ruozhiba.jsonl",
        ),
    ] {
        let to = folder.path().join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(corpora.join(from), to).unwrap();
    }
    let origin = Origin::Folder {
        path: folder.path().to_owned(),
        holds_one: false,
    };
    let prepared = |name: &str| {
        let options = options(&folder.path().join("output"));
        let prepared = prepare(source(name), &origin, &options).unwrap();
        let [file] = <[_; 1]>::try_from(prepared.files).unwrap();
        file
    };
    let pairs = prepared("hh-rlhf");
    assert_eq!((pairs.num_read, pairs.written.num_rows), (2312, 2303));
    let reasons = pairs.dropped.by_count();
    let counts: Vec<usize> = reasons.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [5, 4], "{reasons:?}");
    assert_eq!(reasons[1].0, "`chosen` is empty");
    let riddles = prepared("ruozhiba");
    assert_eq!((riddles.num_read, riddles.written.num_rows), (240, 240));
    let rows = rows(&riddles.written.path);
    assert_eq!(rows[0]["source"], "ruozhiba");
    assert!(rows[0]["task_type"]["major"].is_array());
}
