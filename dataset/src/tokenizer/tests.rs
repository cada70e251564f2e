//! Tests of the tokenizer on small vocabularies trained here.

use std::error::Error;

use serde_json::{Map, json};

use super::*;
use crate::chat::RenderOptions;
use crate::tokenizer_train::{SpecialTokens, TokenizerTrainer};

const TEXTS: [&str; 3] = [
    "the cat and the hat",
    "the sun, the moon",
    "人工智能，人工智能",
];

fn trained(special_tokens: SpecialTokens) -> Tokenizer {
    let trainer = TokenizerTrainer {
        vocab_size: 310,
        special_tokens,
        ..Default::default()
    };
    trainer.train(TEXTS.iter()).unwrap()
}

/// The tokenizer after a change to its JSON.
fn changed(tokenizer: &Tokenizer, change: impl FnOnce(&mut Value)) -> Tokenizer {
    let mut json = serde_json::to_value(&tokenizer.full).unwrap();
    change(&mut json);
    let full = serde_json::from_value(json).unwrap();
    Tokenizer::new(full, tokenizer.config.clone(), Path::new("changed")).unwrap()
}

/// Someone who writes `</s>` about HTML, or to break out of a turn, writes four characters.
#[test]
fn user_text_never_becomes_a_control_token() {
    for special_tokens in [SpecialTokens::V1, SpecialTokens::V3] {
        let tokenizer = trained(special_tokens);
        let controls = tokenizer.control_tokens().to_vec();
        assert!(controls.len() >= 5);
        for control in &controls {
            let text = format!("the {} hat{}", control.text, control.text);
            let ids = tokenizer.encode_ordinary(&text);
            assert!(
                ids.iter()
                    .all(|id| controls.iter().all(|control| control.id != *id))
            );
            assert_eq!(tokenizer.decode(&ids, true), text);
            let of_control = |id: &&u32| **id == control.id;
            assert_eq!(tokenizer.encode(&text).iter().filter(of_control).count(), 2);
        }
        let plain = "the hat and\tthe  moon\n\n人工，😀";
        assert_eq!(tokenizer.encode(plain), tokenizer.encode_ordinary(plain));
    }
}

/// Even where merges lead to a control token, as in a vocabulary that was trained on markup.
#[test]
fn merges_never_spell_a_control_token() {
    let tokenizer = changed(&trained(SpecialTokens::V1), |json| {
        json["pre_tokenizer"]["use_regex"] = json!(false);
        json["model"]["vocab"]["<s"] = json!(310);
        let merges = json["model"]["merges"].as_array_mut().unwrap();
        merges.push(json!(["<", "s"]));
        merges.push(json!(["<s", ">"]));
    });
    let ids = tokenizer.encode_ordinary("<s>");
    assert_eq!(ids, [310, tokenizer.token_to_id(">").unwrap()]);
    assert_eq!(tokenizer.encode("<s>"), [1]);
}

/// GPT-NeoX adds runs of spaces after its vocabulary; those are for everybody's text.
#[test]
fn added_white_space_is_ordinary_vocabulary() {
    let plain = trained(SpecialTokens::V1);
    let id = plain.vocab_size();
    let tokenizer = changed(&plain, |json| {
        let mut token = json["added_tokens"][0].clone();
        token["id"] = json!(id);
        token["content"] = json!("    ");
        token["special"] = json!(false);
        json["added_tokens"].as_array_mut().unwrap().push(token);
    });
    assert_eq!(tokenizer.vocab_size(), id + 1);
    assert_eq!(tokenizer.control_tokens().len(), 5);
    for ids in [
        tokenizer.encode("a    b"),
        tokenizer.encode_ordinary("a    b"),
    ] {
        assert_eq!(ids[1], id as u32);
        assert_eq!(ids.len(), 3);
    }
}

/// A file may ask for padding; a document must come out as long as it is.
#[test]
fn padding_and_truncation_of_the_file_are_ignored() {
    let plain = trained(SpecialTokens::V1);
    let padded = changed(&plain, |json| {
        json["padding"] = json!({"strategy": {"Fixed": 50}, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"});
        json["truncation"] = json!({"direction": "Right", "max_length": 2,
            "strategy": "LongestFirst", "stride": 0});
    });
    for text in ["a", "the cat and the hat and the moon"] {
        assert_eq!(padded.encode(text), plain.encode(text));
        assert_eq!(padded.encode_ordinary(text), plain.encode_ordinary(text));
    }
}

/// Between its beginning and its end a document is ordinary text, whatever it spells.
#[test]
fn documents_begin_and_end() {
    let tokenizer = trained(SpecialTokens::V1);
    for text in ["the 17", "the </s> 17", ""] {
        let ids = tokenizer.encode_document(text);
        assert_eq!((ids[0], ids[ids.len() - 1]), (1, 2));
        assert_eq!(ids[1..ids.len() - 1], tokenizer.encode_ordinary(text));
    }
}

/// What is written is what was there, and the cache key of documents stays.
#[test]
fn a_saved_tokenizer_loads_as_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for special_tokens in [SpecialTokens::V1, SpecialTokens::V3] {
        let tokenizer = trained(special_tokens);
        tokenizer.save(folder.path()).unwrap();
        for path in [
            folder.path().to_owned(),
            folder.path().join("tokenizer.json"),
        ] {
            let loaded = Tokenizer::load(&path).unwrap();
            assert_eq!(loaded.fingerprint(), tokenizer.fingerprint());
            assert_eq!(loaded.config, tokenizer.config);
            assert_eq!(loaded.bos_id(), Some(1));
            assert_eq!(loaded.eos_id(), Some(2));
            assert_eq!(loaded.pad_id(), 0);
            let source = loaded.chat_template().unwrap().source().to_owned();
            assert_eq!(source, tokenizer.chat_template().unwrap().source());
            for text in TEXTS {
                assert_eq!(loaded.encode(text), tokenizer.encode(text));
            }
        }
    }
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 2);
}

/// A template in a file of its own wins, and is in the configuration when written again.
#[test]
fn a_template_file_goes_before_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    trained(SpecialTokens::V1).save(folder.path()).unwrap();
    fs::write(folder.path().join("chat_template.jinja"), "{{ eos_token }}").unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    let again = tempfile::tempdir().unwrap();
    tokenizer.save(again.path()).unwrap();
    for tokenizer in [tokenizer, Tokenizer::load(again.path()).unwrap()] {
        let template = tokenizer.chat_template().unwrap();
        assert_eq!(
            template.render(&[], &RenderOptions::default()).unwrap(),
            "</s>"
        );
    }
}

/// The key must change with anything that changes a document's ids, and with nothing else.
#[test]
fn the_fingerprint_is_of_what_changes_ids() {
    let tokenizer = trained(SpecialTokens::V1);
    let same = changed(&tokenizer, |json| json["decoder"] = Value::Null);
    assert_eq!(same.fingerprint(), tokenizer.fingerprint());
    assert_eq!(tokenizer.fingerprint().len(), 64);
    let fewer_merges = changed(&tokenizer, |json| {
        json["model"]["merges"].as_array_mut().unwrap().pop();
    });
    assert_ne!(fewer_merges.fingerprint(), tokenizer.fingerprint());
    let other_split = changed(&tokenizer, |json| {
        json["pre_tokenizer"]["use_regex"] = json!(false);
    });
    assert_ne!(other_split.fingerprint(), tokenizer.fingerprint());
    let config = TokenizerConfig::from_fields(Map::new());
    let without_bos = Tokenizer::new(tokenizer.full.clone(), config, Path::new("")).unwrap();
    assert_ne!(without_bos.fingerprint(), tokenizer.fingerprint());
    assert_eq!(
        without_bos.encode_document("a"),
        without_bos.encode_ordinary("a")
    );
}

/// Every way in which a folder can be wrong says which file is, and what was expected.
#[test]
fn broken_folders_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = format!("{}/", folder.path().display());
    let load = || {
        let error = Tokenizer::load(folder.path()).unwrap_err();
        let cause = error
            .source()
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        format!("{error}{cause}").replace(&prefix, "")
    };
    assert!(load().starts_with("tokenizer.json: cannot be read: No such file"));
    fs::write(folder.path().join("tokenizer.json"), "{\"model\": 3}").unwrap();
    let wanted = "tokenizer.json: not a tokenizer that the `tokenizers` library reads: ";
    assert!(load().starts_with(wanted));
    trained(SpecialTokens::V1).save(folder.path()).unwrap();
    let config = folder.path().join("tokenizer_config.json");
    fs::write(&config, "{\"bos_token\": ").unwrap();
    let wanted = "tokenizer_config.json: not a valid tokenizer configuration: EOF while parsing";
    assert!(load().starts_with(wanted));
    fs::write(&config, r#"{"eos_token": {"content": "<end>"}}"#).unwrap();
    assert_eq!(
        load(),
        "tokenizer_config.json: eos_token is `<end>`, which is not in the vocabulary"
    );
    fs::write(&config, r#"{"chat_template": "{% for %}"}"#).unwrap();
    assert_eq!(
        load(),
        "tokenizer_config.json: the chat template is broken: the chat template does not parse"
    );
    fs::remove_file(&config).unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    assert_eq!(
        (tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()),
        (None, None, 0)
    );
    assert!(tokenizer.chat_template().is_none());
}

/// A word-level vocabulary without an unknown token has no ids for most texts: refused at once
/// rather than in the middle of a corpus.
#[test]
fn a_tokenizer_with_gaps_is_refused() {
    let json = json!({"version": "1.0", "added_tokens": [], "model":
        {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<unk>"}});
    let full = serde_json::from_value(json).unwrap();
    let error = Tokenizer::new(full, TokenizerConfig::default(), Path::new("t.json")).unwrap_err();
    assert_eq!(error.to_string(), "t.json: cannot encode every text");
}

/// A folder that cannot be written to is named, and nothing is left in it.
#[test]
fn an_unwritable_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = trained(SpecialTokens::V1)
        .save(&file.join("out"))
        .unwrap_err();
    assert!(error.to_string().ends_with("file/out: cannot be written"));
}
