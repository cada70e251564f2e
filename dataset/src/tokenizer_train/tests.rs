//! Tests of the trainer: determinism, special tokens, digits, and what it refuses.

use std::fs;

use super::*;
use crate::source::SourceConfig;

/// Text with many ties between pairs: numbers and made-up words, each as frequent as the next.
fn texts() -> Vec<String> {
    (0..400)
        .map(|number: u32| {
            let word: String = (0..6)
                .map(|place| char::from(b'a' + (number.pow(2) >> place) as u8 % 26))
                .collect();
            format!(
                "{number} {word} {} 第{number}回 人工智能",
                word.to_uppercase()
            )
        })
        .collect()
}

fn json_of(tokenizer: &Tokenizer) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path()).unwrap();
    let read = |name| fs::read_to_string(folder.path().join(name)).unwrap();
    (read("tokenizer.json"), read("tokenizer_config.json"))
}

/// Hash maps are seeded anew in each training, and threads meet in another order; neither may show.
#[test]
fn the_same_text_gives_the_same_tokenizer() {
    let trainer = TokenizerTrainer {
        vocab_size: 1000,
        ..Default::default()
    };
    let texts = texts();
    let first = trainer.train(texts.iter()).unwrap();
    let expected = json_of(&first);
    for _ in 0..5 {
        assert!(json_of(&trainer.train(texts.iter()).unwrap()) == expected);
    }
    let mut backwards = texts;
    backwards.reverse();
    assert!(json_of(&trainer.train(backwards.iter()).unwrap()) == expected);
    assert_eq!(first.vocab_size(), 1000);
}

/// MiniMind's numbers: unknown 0, beginning 1, end 2; ours reserved after; then the 256 bytes.
#[test]
fn special_tokens_come_first() {
    let trainer = TokenizerTrainer {
        vocab_size: 300,
        ..Default::default()
    };
    let v1 = trainer.train(texts().iter()).unwrap();
    for (id, text) in [
        "<unk>",
        "<s>",
        "</s>",
        "<|reserved_0|>",
        "<|reserved_1|>",
        "!",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(v1.token_to_id(text), Some(id as u32), "{text}");
    }
    let v3 = TokenizerTrainer {
        special_tokens: SpecialTokens::V3,
        ..trainer
    };
    let v3 = v3.train(texts().iter()).unwrap();
    for (text, id) in [
        ("<|endoftext|>", 0),
        ("<|im_start|>", 1),
        ("<|im_end|>", 2),
        ("<tts_text_bos_single>", 20),
        ("<tool_call>", 21),
        ("</think>", 26),
        ("<|buffer9|>", 35),
        ("!", 36),
    ] {
        assert_eq!(v3.token_to_id(text), Some(id), "{text}");
    }
    let shown: Vec<bool> = v3
        .control_tokens()
        .iter()
        .map(|token| !token.is_special)
        .collect();
    assert_eq!(shown, (0..36).map(|id| id >= 21).collect::<Vec<_>>());
}

/// The set is MiniMind-3's own, token for token and flag for flag.
#[test]
fn the_v3_set_is_that_of_minimind() {
    let Some(corpora) = std::env::var_os("KINDLING_CORPORA") else {
        println!("skipped: KINDLING_CORPORA is not set");
        return;
    };
    let path = Path::new(&corpora).join("tokenizer/minimind_current");
    let minimind = Tokenizer::load(&path).unwrap();
    let trainer = TokenizerTrainer {
        special_tokens: SpecialTokens::V3,
        ..Default::default()
    };
    let ours = trainer.train(texts().iter()).unwrap();
    assert_eq!(ours.control_tokens(), minimind.control_tokens());
}

/// Every text has a way there and back, also one of bytes that were never seen.
#[test]
fn any_text_survives_the_round_trip() {
    let tokenizer = TokenizerTrainer::default().train(texts().iter()).unwrap();
    for text in [
        "",
        " ",
        "\u{0}\r\n",
        "naïve 🦀 кот",
        "人工智能 12",
        "\u{10FFFF}",
    ] {
        assert_eq!(
            tokenizer.decode(&tokenizer.encode_ordinary(text), true),
            text
        );
        assert_eq!(
            tokenizer.decode(&tokenizer.encode_document(text), true),
            text
        );
    }
}

/// Sums are easier to learn digit by digit; elsewhere frequent numbers are one token.
#[test]
fn digits_are_split_on_request() {
    let texts = vec!["2024 2024 2024 2024"; 50];
    let trainer = TokenizerTrainer {
        vocab_size: 270,
        ..Default::default()
    };
    let merged = trainer.train(texts.iter()).unwrap();
    assert_eq!(merged.encode_ordinary("2024").len(), 1);
    let trainer = TokenizerTrainer {
        split_digits: true,
        ..trainer
    };
    let split = trainer.train(texts.iter()).unwrap();
    let digit = |digit: &str| split.token_to_id(digit).unwrap();
    let expected = [digit("1"), digit("2"), digit("2"), digit("0")];
    assert_eq!(split.encode_ordinary("1220"), expected);
    assert_eq!(
        split.decode(&split.encode_ordinary(" 12 + 3 = 15"), true),
        " 12 + 3 = 15"
    );
}

/// The bound is 256 bytes and five special tokens; the text has nothing left to merge at 263.
#[test]
fn impossible_sizes_are_refused_and_small_text_gives_fewer_tokens() {
    let trainer = TokenizerTrainer {
        vocab_size: 260,
        ..Default::default()
    };
    let error = trainer.train(["a"].iter()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "vocab_size is 260, expected at least 261: the 256 bytes and 5 special tokens"
    );
    let trainer = TokenizerTrainer::default();
    assert_eq!(trainer.train(["aab aab"].iter()).unwrap().vocab_size(), 263);
    for nothing in [&[][..], &[""][..]] {
        let error = trainer.train(nothing.iter()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "found no text to train on, expected at least one document"
        );
    }
}

/// Of 100 documents every 20th is held out; copies and the limit act on the others.
#[test]
fn files_are_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let lines: Vec<String> = (0..100)
        .map(|number| {
            if number % 2 == 0 {
                "\"one cat\""
            } else {
                "\"一只猫\""
            }
            .to_owned()
                + "\n"
        })
        .collect();
    fs::write(&path, lines.concat()).unwrap();
    let source = SourceConfig::new(path.display().to_string());
    let trainer = TokenizerTrainer {
        vocab_size: 270,
        ..Default::default()
    };
    let train = |source: &SourceConfig, sample: &SampleConfig| {
        train_on_sources(&trainer, std::slice::from_ref(source), sample)
    };

    let sample = SampleConfig::default();
    let trained = train(&source, &sample).unwrap();
    assert_eq!(trained.num_documents, 95);
    assert_eq!(trained.num_bytes, 50 * 7 + 45 * 9);
    assert_eq!(trained.compression.len(), 1);
    let chinese = trained.compression[&Language::Chinese];
    assert_eq!(
        (chinese.num_documents, chinese.num_bytes, chinese.num_chars),
        (5, 45, 15)
    );
    assert_eq!(
        chinese.num_tokens,
        5 * trained.tokenizer.encode_ordinary("一只猫").len()
    );

    let twice = SourceConfig {
        weight: 2.0,
        ..source.clone()
    };
    assert_eq!(train(&twice, &sample).unwrap().num_documents, 190);
    let limited = SampleConfig {
        max_train_bytes: 500,
        ..sample
    };
    let trained = train(&source, &limited).unwrap();
    assert!(
        (200..=500).contains(&trained.num_bytes),
        "{}",
        trained.num_bytes
    );

    fs::write(&path, "\"a\"\n{").unwrap();
    let error = train(&source, &sample).unwrap_err();
    assert!(error.to_string().ends_with("a.jsonl:2: not a valid row"));
}
