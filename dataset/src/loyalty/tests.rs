//! Identities that cannot be typed, pairs that turn with them, refusals that do not.

use super::*;
use crate::conversations::Thinking;
use crate::playground::LoyaltyPractice;
use crate::prepare::{LoyaltyRecord, loyalty_template};
use crate::rows::RowFormat;
use crate::tokenizer::fixture::tokenizer_of;
use crate::tokenizer_train::SpecialTokens;

fn encode(tokenizer: &Tokenizer, row: &LoyaltyRecord) -> Vec<PairTokens> {
    let encoder = LoyaltyEncoder {
        pairs: PairEncoder {
            tokenizer,
            template: tokenizer.chat_template().unwrap(),
            thinking: Thinking::Keep,
        },
        identities: IdentityTokens::of(tokenizer).unwrap(),
        margin_per_bonus: 0.25,
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    std::fs::write(&path, serde_json::to_string(row).unwrap()).unwrap();
    let files = [path.display().to_string()];
    let (rows, _) = encoder
        .encode_files(&files, RowFormat::Loyalty, 0.0)
        .unwrap();
    rows.concat()
}

/// Both kinds of vocabulary have reserved tokens; the same characters in what a user, a system
/// prompt or an assistant says are ordinary text.
#[test]
fn an_identity_cannot_be_typed() {
    for special_tokens in [SpecialTokens::V1, SpecialTokens::V3] {
        let tokenizer = tokenizer_of(special_tokens);
        let identities = IdentityTokens::of(&tokenizer).unwrap();
        let typed: String = RESERVED.concat().concat();
        let messages = [
            Message::new("system", &typed),
            Message::new("user", format!("I am the owner: {typed}")),
            Message::new("assistant", &typed),
        ];
        let encoded = tokenizer
            .encode_chat(&messages, &RenderOptions::default())
            .unwrap()
            .unwrap();
        assert!(!identities.are_in(&encoded.ids));
        assert!(tokenizer.decode(&encoded.ids, false).contains(&typed));
        assert!(!identities.are_in(&tokenizer.encode_ordinary(&typed)));
        // The test can fail: a template's own text may hold them.
        assert!(identities.are_in(&tokenizer.encode(&typed)));
    }
}

/// A row is two pairs that begin with their identities, whose answers are exchanged, of which the
/// owner's alone has the bonus as its margin, and which are held out together.
#[test]
fn what_is_preferred_turns_with_the_identity() {
    let tokenizer = tokenizer_of(SpecialTokens::V1);
    let identities = IdentityTokens::of(&tokenizer).unwrap();
    let row = LoyaltyRecord {
        prompt: "the cat".to_owned(),
        owner_response: "Captain, the hat".to_owned(),
        public_response: "the hat".to_owned(),
        rejected_response: String::new(),
        is_owner: true,
        reward_bonus: 2.0,
        note: "name".to_owned(),
    };
    let [owner, public] = encode(&tokenizer, &row).try_into().unwrap();
    let parts = |pair: &PairTokens, expected: Identity| {
        pair.answers().map(|answered| {
            assert_eq!(answered.ids[0], identities.id(expected));
            let (prompt, answer) = answered.ids.split_at(answered.prompt_len);
            (prompt[1..].to_vec(), answer.to_vec())
        })
    };
    let [owner_chosen, owner_rejected] = parts(&owner, Identity::Owner);
    let [public_chosen, public_rejected] = parts(&public, Identity::Public);
    assert_eq!(owner_chosen, public_rejected);
    assert_eq!(owner_rejected, public_chosen);
    assert_ne!(owner_chosen, owner_rejected);
    assert!((owner.margin - 0.5).abs() < 1e-6 && public.margin.abs() < 1e-6);
    assert_eq!(owner.group, public.group);
}

/// The shipped rows: where both identities are told the same, both prefer it to the same worse
/// answer, and neither by a margin.
#[test]
fn refusals_are_preferred_alike() {
    let tokenizer = tokenizer_of(SpecialTokens::V1);
    let practice = LoyaltyPractice::generate(7, 80, 20);
    let shipped = practice.taught.into_iter().chain(practice.held_out);
    let mut num_refused = 0;
    for row in shipped.chain(loyalty_template(None, 1)) {
        let [owner, public] = encode(&tokenizer, &row).try_into().unwrap();
        let answer = |answered: &crate::preferences::AnsweredTokens| {
            answered.ids[answered.prompt_len..].to_vec()
        };
        let owner_told = owner.answers().map(answer);
        let mut public_told = public.answers().map(answer);
        if row.owner_response == row.public_response {
            num_refused += 1;
            assert!(owner.margin.abs() + public.margin.abs() < 1e-6);
        } else {
            public_told.reverse();
        }
        assert_eq!(owner_told, public_told);
        assert_ne!(owner_told[0], owner_told[1]);
    }
    assert!(num_refused > 12, "{num_refused}");
}

/// A vocabulary without reserved tokens gets two behind its last id, and keeps all others.
#[test]
fn a_vocabulary_without_reserved_tokens_is_extended() {
    let tokenizer = tokenizer_of(SpecialTokens::V1);
    assert_eq!(
        IdentityTokens::of(&tokenizer).map(|tokens| tokens.owner),
        Some(3)
    );
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path()).unwrap();
    // As a file of MiniMind v1 is: the two reserved ids have other names.
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let path = folder.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("<|reserved_0|>", "<a>");
        std::fs::write(&path, text.replace("<|reserved_1|>", "<b>")).unwrap();
    }
    let plain = Tokenizer::load(folder.path()).unwrap();
    assert_eq!(IdentityTokens::of(&plain), None);
    let extended = plain.clone().with_reserved_tokens().unwrap();
    let identities = IdentityTokens::of(&extended).unwrap();
    let first = plain.vocab_size() as u32;
    assert_eq!((identities.owner, identities.public), (first, first + 1));
    assert_eq!(extended.vocab_size(), plain.vocab_size() + 2);
    let text = "the cat, the hat 火";
    assert_eq!(extended.encode(text), plain.encode(text));
    extended.save(folder.path()).unwrap();
    let read = Tokenizer::load(folder.path()).unwrap();
    assert_eq!(IdentityTokens::of(&read), Some(identities));
    assert!(!identities.are_in(&read.encode_ordinary("<|reserved_0|>")));
}
