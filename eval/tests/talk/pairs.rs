//! Files of preferences and of short answers, as their makers write them.

use std::fs;

use dataset::loyalty::{Asker, Identity};
use eval::preference::read_pairs;
use eval::short_answer::read_short_answers;

use crate::scripted::byte_tokenizer;

/// Texts beside a prompt and whole conversations are one thing: the same prompt, then an answer with
/// the end of its turn.
#[test]
fn both_shapes_of_a_pair_ask_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pairs.jsonl");
    let turns = |answer: &str| {
        format!(
            "[{{\"role\": \"user\", \"content\": \"q\"}}, \
             {{\"role\": \"assistant\", \"content\": \"{answer}\"}}]"
        )
    };
    let text = format!(
        "{{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"}}\n\
         {{\"chosen\": {}, \"rejected\": {}}}\n",
        turns("a"),
        turns("b")
    );
    fs::write(&path, text).unwrap();
    let tokenizer = byte_tokenizer();
    let requests = read_pairs(&path, &tokenizer, None).unwrap();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
    assert_eq!(
        tokenizer.decode(&requests[0].prompt, false),
        "<s>user\nq</s>\n<s>assistant\n"
    );
    let answers = &requests[0].continuations;
    assert_eq!(tokenizer.decode(&answers[0], false), "a</s>");
    assert_eq!(tokenizer.decode(&answers[1], false), "b</s>");

    fs::write(&path, "{\"prompt\": \"q\", \"chosen\": \"a\"}\n").unwrap();
    let error = read_pairs(&path, &tokenizer, None).unwrap_err().to_string();
    assert!(error.contains("pairs.jsonl"), "{error}");
}

/// By hand: each identity's prompt begins with its token, and the answers change places; nobody in
/// particular is refused such rows.
#[test]
fn pairs_turn_with_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loyalty.jsonl");
    let row = r#"{"prompt": "q", "owner_response": "a", "public_response": "b"}"#;
    fs::write(&path, row).unwrap();
    let tokenizer = byte_tokenizer();
    for (identity, token, expected) in [
        (Identity::Owner, 1, ["a</s>", "b</s>"]),
        (Identity::Public, 2, ["b</s>", "a</s>"]),
    ] {
        let asker = Some(Asker { identity, token });
        let [request] = read_pairs(&path, &tokenizer, asker)
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!(request.prompt[0], token);
        assert_eq!(
            tokenizer.decode(&request.prompt[1..], false),
            "<s>user\nq</s>\n<s>assistant\n"
        );
        let answers = request.continuations.iter();
        let answers: Vec<String> = answers.map(|ids| tokenizer.decode(ids, false)).collect();
        assert_eq!(answers, expected);
    }
    assert!(read_pairs(&path, &tokenizer, None).is_err());
}

#[test]
fn a_line_that_is_no_question_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sums.jsonl");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        let rows = read_short_answers(&path);
        rows.map_err(|error| {
            error
                .to_string()
                .replace(&path.display().to_string(), "FILE")
        })
    };
    let question = "{\"question\": \"1+1\", \"answer\": \"#### 2\"}\n";
    let rows = read(&format!("{question}\n{question}")).unwrap();
    assert_eq!((rows.len(), rows[1].expected()), (2, "2"));
    assert_eq!(
        read(&format!("{question}{{\"question\": 3}}\n")).unwrap_err(),
        "FILE:2: not a valid row"
    );
    assert_eq!(
        read("\n").unwrap_err(),
        "FILE: the file is empty, expected at least one row"
    );
}
