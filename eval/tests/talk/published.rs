//! The published exams themselves; skipped where `KINDLING_CORPORA` is not set.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use dataset::tokenizer::Tokenizer;
use eval::engine::Engine;
use eval::exam::folder::{Exam, ExamKind, Split, read_exam};
use eval::exam::prompt::{Prompter, Style, Wording};
use sha2::{Digest, Sha256};

use crate::scripted::random_model;

fn corpora() -> Option<PathBuf> {
    let corpora = std::env::var_os("KINDLING_CORPORA");
    if corpora.is_none() {
        println!("skipped: KINDLING_CORPORA is not set");
    }
    corpora.map(PathBuf::from)
}

fn read(kind: ExamKind, folder: &Path, split: Split) -> Exam {
    read_exam(kind, folder, split, &[]).unwrap_or_else(|error| panic!("{error}"))
}

/// The prompts that `transformers` 5.23 makes with MiniMind v1's tokenizer and template from all of
/// C-Eval's val split: 151,565 ids, hashed as little-endian 32-bit numbers, file by file.
#[test]
fn minimind_prompts_have_the_ids_of_transformers() {
    let Some(corpora) = corpora() else { return };
    let tokenizer = Tokenizer::load(&corpora.join("tokenizer/minimind_v1")).unwrap();
    let engine = Engine::new(random_model(), tokenizer);
    let exam = read(ExamKind::Ceval, &corpora.join("ceval"), Split::Val);
    let prompter = Prompter::new(&engine, Style::Minimind, Wording::Ceval, 0).unwrap();
    let (mut hash, mut num_ids) = (Sha256::new(), 0);
    for subject in &exam.subjects {
        for question in &subject.questions {
            let request = prompter.letters(subject, question).unwrap();
            assert_eq!(request.continuations, [[35], [36], [37], [38]]);
            num_ids += request.prompt.len();
            for id in request.prompt {
                hash.update(id.to_le_bytes());
            }
        }
    }
    assert_eq!(num_ids, 151_565);
    let digest = hash.finalize();
    let mut digits = String::new();
    for byte in digest {
        let _ = write!(digits, "{byte:02x}");
    }
    assert_eq!(
        digits,
        "c4d81ca0890fddac2fec3ce833ad7da7df2b97be76d62b160bb75a9920b2b2d8"
    );
}

/// Every split of both exams is what its paper says; reading checks the files one by one.
#[test]
fn published_exams_are_read_whole() {
    let Some(corpora) = corpora() else { return };
    for (kind, folder, split, num_subjects, num_questions) in [
        (ExamKind::Ceval, "ceval", Split::Dev, 52, 260),
        (ExamKind::Ceval, "ceval", Split::Val, 52, 1346),
        (ExamKind::Ceval, "ceval", Split::Test, 52, 12_342),
        (ExamKind::Cmmlu, "cmmlu", Split::Dev, 67, 335),
        (ExamKind::Cmmlu, "cmmlu", Split::Test, 67, 11_582),
    ] {
        let exam = read(kind, &corpora.join(folder), split);
        assert_eq!(exam.subjects.len(), num_subjects, "{folder} {split:?}");
        assert_eq!(exam.num_questions(), num_questions, "{folder} {split:?}");
        let is_known = (kind, split) != (ExamKind::Ceval, Split::Test);
        assert_eq!(exam.has_answers(), is_known, "{folder} {split:?}");
    }
}
