//! Exams from folder to card, with a model that knows nothing.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use dataset::journal::Journal;
use dataset::tokenizer::Tokenizer;
use eval::engine::Engine;
use eval::exam::ceval::SUBJECTS;
use eval::exam::files::write_results;
use eval::exam::folder::{Exam, ExamKind, Split, read_exam};
use eval::exam::method::Method;
use eval::exam::prompt::{Prompter, Style, Wording};
use eval::exam::question::{Question, Subject};
use eval::exam::sit::{Reply, SitConfig, sit, whole_groups};
use eval::exam::summary::ExamSummary;
use serde_json::json;

use crate::scripted::{byte_tokenizer, random_model, write_byte_tokenizer};

const CONFIG: SitConfig = SitConfig {
    style: Style::Minimind,
    num_shots: 0,
    permute: true,
    options: true,
    max_written_tokens: 4,
};

fn engine() -> Engine {
    Engine::new(random_model(), byte_tokenizer())
}

/// Two subjects of 70 and 3 questions, so that one has two groups.
fn write_exam(dir: &Path) {
    fs::create_dir_all(dir.join("val")).unwrap();
    for (subject, len) in [("art", 70), ("law", 3)] {
        let mut text = "id,question,A,B,C,D,answer\n".to_owned();
        for id in 0..len {
            let answer = ["A", "B", "C", "D"][id % 4];
            let _ = writeln!(text, "{id},q{id},a{id},bb,c,dd{id},{answer}");
        }
        fs::write(dir.join(format!("val/{subject}_val.csv")), text).unwrap();
    }
}

fn exam() -> Exam {
    let dir = tempfile::tempdir().unwrap();
    write_exam(dir.path());
    read_exam(ExamKind::Folder, dir.path(), Split::Val, &[]).unwrap()
}

fn sit_all(exam: &Exam, config: &SitConfig) -> Vec<Reply> {
    let mut replies = Vec::new();
    let stop = AtomicBool::new(false);
    assert!(sit(&engine(), exam, config, &mut replies, &stop, |_| {}).unwrap());
    replies
}

/// Stopped after the first group and gone on with from the file: the same replies to the bit.
#[test]
fn an_interrupted_exam_ends_as_one_that_was_not() {
    let exam = exam();
    let whole = sit_all(&exam, &CONFIG);
    assert_eq!(whole.len(), 73);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("answers.jsonl");
    let settings = json!({});
    let open = || -> Journal<Reply> {
        Journal::open(&path, &settings, |found| whole_groups(&exam, found)).unwrap()
    };
    let stop = AtomicBool::new(false);
    let mut progress = Vec::new();
    let mut journal = open();
    let is_complete = sit(&engine(), &exam, &CONFIG, &mut journal, &stop, |done| {
        progress.push(done);
        stop.store(true, Ordering::SeqCst);
    });
    assert!(!is_complete.unwrap());
    drop(journal);
    let mut journal = open();
    assert_eq!(journal.records().len(), 64);
    stop.store(false, Ordering::SeqCst);
    let engine = engine();
    let is_complete = sit(&engine, &exam, &CONFIG, &mut journal, &stop, |done| {
        progress.push(done);
    });
    assert!(is_complete.unwrap());
    assert_eq!(progress, [64, 70, 73]);
    assert_eq!(journal.records(), whole);
    assert_eq!(
        open().records(),
        whole,
        "what is read back is what was written"
    );
    assert_eq!(whole_groups(&exam, 72), 70);
}

/// MiniMind's script, chat template and all: a byte is a token, so the ids spell the prompt.
#[test]
fn minimind_prompts_are_those_of_its_script() {
    let engine = engine();
    let exam = exam();
    let subject = &exam.subjects[1];
    let prompter = Prompter::new(&engine, Style::Minimind, Wording::Ceval, 0).unwrap();
    let request = prompter.letters(subject, &subject.questions[1]).unwrap();
    let text = engine.tokenizer.decode(&request.prompt, false);
    assert_eq!(
        text,
        "开始回答问题<s>user\nq1。选择 A: a1, B: bb, C: c, D: dd1</s>\n<s>assistant\n"
    );
    let letters: Vec<String> = request
        .continuations
        .iter()
        .map(|ids| engine.tokenizer.decode(ids, false))
        .collect();
    assert_eq!(letters, ["A", "B", "C", "D"]);
}

/// lm-eval 0.4.13, `ceval-valid_law` with one shot: its description, both delimiters and the blank
/// before the letter.
#[test]
fn harness_prompts_are_those_of_lm_eval() {
    let engine = engine();
    let mut subject = exam().subjects.remove(1);
    subject.info.title = "法学".to_owned();
    subject.shots = vec![subject.questions[2].clone()];
    let prompter = Prompter::new(&engine, Style::Harness, Wording::Ceval, 1).unwrap();
    let request = prompter.letters(&subject, &subject.questions[0]).unwrap();
    let expected = "以下是中国关于法学的单项选择题，请选出其中的正确答案。\n\n\
                    q2\nA. a2\nB. bb\nC. c\nD. dd2\n答案： C\n\n\
                    q0\nA. a0\nB. bb\nC. c\nD. dd0\n答案：";
    assert_eq!(engine.tokenizer.decode(&request.prompt, false), expected);
    let letter = engine.tokenizer.decode(&request.continuations[3], false);
    assert_eq!(letter, " D");
    let too_many = Prompter::new(&engine, Style::Harness, Wording::Ceval, 2).unwrap();
    let error = too_many.letters(&subject, &subject.questions[0]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "law: found 1 solved questions in dev, expected --shots 2"
    );
}

#[test]
fn a_style_that_needs_a_template_says_so() {
    let dir = tempfile::tempdir().unwrap();
    write_byte_tokenizer(dir.path());
    fs::write(dir.path().join("tokenizer_config.json"), "{}").unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    let engine = Engine::new(random_model(), tokenizer);
    let error = Prompter::new(&engine, Style::Minimind, Wording::Ceval, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the tokenizer has no chat template, which --style minimind needs \
         (--style harness does without)"
    );
    assert!(Prompter::new(&engine, Style::Harness, Wording::Ceval, 0).is_ok());
}

/// Replies that always name the same letter, to C-Eval's published answers.
fn constant_letter(place: usize) -> ExamSummary {
    let mut subjects = Vec::new();
    let mut replies = Vec::new();
    for published in &SUBJECTS {
        let answers = published.val_answers.into_iter().enumerate();
        let answers = answers.flat_map(|(answer, count)| std::iter::repeat_n(answer, count));
        let questions = answers.map(|answer| {
            let mut letters = [-9.0; 4];
            letters[place] = -0.5;
            replies.push(Reply {
                subject: published.name.to_owned(),
                id: String::new(),
                answer: Some(answer),
                letters: vec![letters],
                options: None,
                num_chars: [1; 4],
                written: None,
                num_cut: 0,
            });
            Question {
                id: String::new(),
                text: "q".to_owned(),
                options: ["a", "b", "c", "d"].map(str::to_owned),
                answer: Some(answer),
                explanation: None,
            }
        });
        subjects.push(Subject {
            questions: questions.collect(),
            info: published.info(),
            shots: Vec::new(),
        });
    }
    let exam = Exam {
        name: "C-Eval".to_owned(),
        kind: ExamKind::Ceval,
        split: Split::Val,
        subjects,
    };
    ExamSummary::new(&exam, &replies, json!({}))
}

/// 344 of 1,346 is what MiniMind published for its 26M model.
#[test]
fn always_c_scores_what_minimind_published_and_is_called_chance() {
    let summary = constant_letter(2);
    let score = &summary.methods[0];
    assert_eq!((score.rate.num_right, score.rate.num_total), (344, 1346));
    assert_eq!(score.chosen, [0, 0, 1346, 0]);
    assert_eq!(
        score.verdict,
        [
            "25.56 % is not distinguishable from chance (25 %).",
            "It is no better than always answering D, which scores 26.30 %.",
            "100.00 % of its answers are C."
        ]
    );
    let names: Vec<&str> = score
        .groups
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["STEM", "hard", "humanities", "other", "social science"]
    );
    let total: usize = score.groups.iter().map(|group| group.rate.num_total).sum();
    let hard = score.groups[1].rate.num_total;
    assert_eq!(total - hard, 1346, "each subject is in one field");
    assert_eq!(hard, 152, "questions of the eight hard subjects");
}

/// Who prefers a letter and not an option chooses all options over the four orders; an answer to
/// what is asked stays with its option.
#[test]
fn permutation_tells_letters_from_options() {
    let exam = exam();
    let mut replies = sit_all(&exam, &CONFIG);
    for reply in &mut replies {
        let answer = reply.answer.unwrap();
        // Sure of the right option under three letters, of letter A where another stands there.
        for (turn, letters) in reply.letters.iter_mut().enumerate() {
            *letters = [-2.0, -9.0, -9.0, -9.0];
            letters[(answer + 4 - turn) % 4] = -1.0;
        }
    }
    let summary = ExamSummary::new(&exam, &replies, json!({}));
    let permutation = summary.permutation.unwrap();
    assert_eq!(permutation.same_option.num_right, 73);
    assert_eq!(permutation.same_letter.num_right, 0);
    assert!(permutation.per_turn.iter().all(|rate| rate.num_right == 73));
    let methods: Vec<Method> = summary.methods.iter().map(|score| score.method).collect();
    let expected = [
        Method::Letters,
        Method::LettersPermuted,
        Method::Options,
        Method::OptionsPerChar,
        Method::Written,
    ];
    assert_eq!(methods, expected);
    assert_eq!(summary.methods[1].rate.num_right, 73);
}

/// Everything that a folder of results holds, with MiniMind's columns in its tables.
#[test]
fn results_are_tables_a_summary_and_a_card() {
    let exam = exam();
    let replies = sit_all(&exam, &CONFIG);
    let summary = ExamSummary::new(&exam, &replies, json!({ "style": "minimind" }));
    let dir = tempfile::tempdir().unwrap();
    write_results(dir.path(), &exam, &replies, &summary).unwrap();
    let table = fs::read_to_string(dir.path().join("results/law_val_result.csv")).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "question,A,B,C,D,answer,llm_answer,is_right");
    assert_eq!(lines.len(), 4);
    let choice = Method::Letters.choose(&replies[70]).unwrap().place.unwrap();
    let letter = ["A", "B", "C", "D"][choice];
    let is_right = if choice == 0 { "True" } else { "False" };
    assert_eq!(lines[1], format!("q0,a0,bb,c,dd0,A,{letter},{is_right}"));
    let read: ExamSummary =
        serde_json::from_str(&fs::read_to_string(dir.path().join("summary.json")).unwrap())
            .unwrap();
    assert_eq!(read.num_questions, 73);
    let card = fs::read_to_string(dir.path().join("card.md")).unwrap();
    for part in [
        "# ",
        "chance (25 %)",
        "always this letter scores",
        "| law law | 3 |",
    ] {
        assert!(card.contains(part), "{part}: {card}");
    }
    assert!(!dir.path().join("submission.json").exists());
}

/// Without answers there is no score, but a letter for each id of each subject.
#[test]
fn a_split_without_answers_leaves_a_submission() {
    let mut exam = exam();
    for subject in &mut exam.subjects {
        for question in &mut subject.questions {
            question.answer = None;
        }
    }
    let config = SitConfig {
        permute: false,
        options: false,
        max_written_tokens: 0,
        ..CONFIG
    };
    let replies = sit_all(&exam, &config);
    let summary = ExamSummary::new(&exam, &replies, json!({}));
    let dir = tempfile::tempdir().unwrap();
    write_results(dir.path(), &exam, &replies, &summary).unwrap();
    let text = fs::read_to_string(dir.path().join("submission.json")).unwrap();
    let submission: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(submission["art"].as_object().unwrap().len(), 70);
    let place = Method::Letters.choose(&replies[72]).unwrap().place.unwrap();
    assert_eq!(submission["law"]["2"], ["A", "B", "C", "D"][place]);
}

/// A folder that says it is C-Eval and is not.
#[test]
fn published_exams_are_checked_file_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let val = dir.path().join("val");
    fs::create_dir_all(&val).unwrap();
    let read = |only: &[&str]| {
        let only: Vec<String> = only.iter().map(ToString::to_string).collect();
        let error = read_exam(ExamKind::Ceval, dir.path(), Split::Val, &only).unwrap_err();
        error
            .to_string()
            .replace(&format!("{}/", dir.path().display()), "")
    };
    assert_eq!(
        read(&["law"]),
        "val/law_val.csv: is missing, expected a file for each of C-Eval's 52 subjects"
    );
    let rows = "0,q,a,b,c,d,A\n".repeat(24);
    fs::write(
        val.join("law_val.csv"),
        format!("id,question,A,B,C,D,answer\n{rows}"),
    )
    .unwrap();
    let law = SUBJECTS
        .iter()
        .find(|subject| subject.name == "law")
        .unwrap();
    let [a, b, c, d] = law.val_answers;
    assert_eq!(
        read(&["law"]),
        format!(
            "val/law_val.csv: found 24 questions (answers A 24, B 0, C 0, D 0), expected 24 \
             questions (answers A {a}, B {b}, C {c}, D {d}) as in the published C-Eval"
        )
    );
    assert!(read(&["lwa"]).starts_with("--subjects lwa: no such subject, expected some of acc"));
    fs::write(val.join("magic_val.csv"), "q,a,b,c,d,A\n").unwrap();
    assert_eq!(read(&["law"]), "val/magic_val.csv: is no subject of C-Eval");
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let error = read_exam(ExamKind::Folder, &empty, Split::Val, &[]).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("empty: holds no CSV file, expected one per subject")
    );
}
