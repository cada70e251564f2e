//! 40 questions of the playground's exam against transformers' log-probabilities.
//!
//! `tests/golden/world_exam.py` made the model, the tokenizer and the numbers.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::prelude::Device;
use eval::engine::Engine;
use eval::exam::folder::{ExamKind, Split, read_exam};
use eval::exam::prompt::Style;
use eval::exam::sit::{SitConfig, sit};
use serde::Deserialize;

/// f32 sums over at most a dozen tokens, each within a layer's 1e-6 or so.
const LOGPS: f64 = 5e-5;

#[derive(Deserialize)]
struct Expected {
    subject: String,
    id: String,
    letters: [f64; 4],
    options: [f64; 4],
}

#[test]
fn letters_and_options_have_the_log_probabilities_of_transformers() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/world_exam");
    let engine = Engine::load(&golden.join("model"), &Device::flex()).unwrap();
    let exam = read_exam(ExamKind::Folder, &golden, Split::Val, &[]).unwrap();
    let text = fs::read_to_string(golden.join("expected.json")).unwrap();
    let expected: Vec<Expected> = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 40);
    let config = SitConfig {
        style: Style::Harness,
        num_shots: 0,
        permute: false,
        options: true,
        max_written_tokens: 0,
    };
    let mut replies = Vec::new();
    let never = AtomicBool::new(false);
    sit(&engine, &exam, &config, &mut replies, &never, |_| {}).unwrap();
    assert_eq!(replies.len(), 40);
    for (reply, expected) in replies.iter().zip(&expected) {
        assert_eq!(
            (&reply.subject, &reply.id),
            (&expected.subject, &expected.id)
        );
        let options = reply.options.unwrap();
        let found = reply.letters[0].into_iter().chain(options);
        for (found, expected) in found.zip(expected.letters.iter().chain(&expected.options)) {
            assert!(
                (found - expected).abs() < LOGPS,
                "{}: {found} for {expected}",
                reply.id
            );
        }
    }
}
