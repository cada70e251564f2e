//! Steps on a scripted model: exact counts, seeds, stops, turns, metadata.

use std::cell::RefCell;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use super::clean::Sanitizer;
use super::completer::{
    Ask, Completer, CompleterError, Completion, CompletionRequest, Fault, Finish, Sampling, Usage,
};
use super::error::MagpieError;
use super::families::Family;
use super::instruct::{GenerateSection, generate};
use super::record::{Record, read_records};
use super::respond::{RespondSection, respond};
use super::work::{StepOutcome, Workplace};
use crate::conversations::Thinking;

/// A model that says what its seed and prompt say, and writes down what it was asked.
pub(super) struct Scripted {
    family: Family,
    say: fn(&str, u64) -> String,
    pub(super) prompts: RefCell<Vec<String>>,
}

impl Scripted {
    pub(super) fn new(say: fn(&str, u64) -> String) -> Self {
        Self {
            family: Family::named("minimind-v1").unwrap(),
            say,
            prompts: RefCell::default(),
        }
    }
}

impl Completer for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn engine(&self) -> &'static str {
        "test"
    }

    fn prompt_text(&self, ask: &Ask) -> Result<Option<String>, CompleterError> {
        Ok(Some(match ask {
            Ask::UserTurn(messages) => self.family.user_turn(messages)?,
            Ask::AssistantTurn(messages) => self.family.assistant_turn(messages)?,
        }))
    }

    fn stop_tokens(&self) -> Vec<String> {
        vec!["</s>".to_owned()]
    }

    fn complete(
        &self,
        requests: &[CompletionRequest],
        sampling: &Sampling,
    ) -> Result<Vec<Result<Completion, Fault>>, CompleterError> {
        let mut completions = Vec::new();
        for request in requests {
            let prompt = self.prompt_text(&request.ask)?.unwrap_or_default();
            let said = (self.say)(&prompt, request.seed);
            self.prompts.borrow_mut().push(prompt);
            let ends = sampling
                .stop
                .iter()
                .filter_map(|stop| said.find(stop.as_str()));
            let end = ends.min();
            completions.push(Ok(Completion {
                text: said[..end.unwrap_or(said.len())].to_owned(),
                finish: if end.is_some() {
                    Finish::Stop
                } else {
                    Finish::Length
                },
                usage: Usage {
                    prompt_tokens: 3,
                    completion_tokens: 2,
                },
            }));
        }
        Ok(completions)
    }
}

/// A question that depends on the seed, and answers.
pub(super) fn talk(prompt: &str, seed: u64) -> String {
    if prompt.ends_with("user\n") {
        format!("1. Question {seed}?</s>x")
    } else {
        format!("<think>{seed}</think>\nAnswer {}</s>", seed % 7)
    }
}

/// Does something in a folder, saving every so many rows, stopped after so many looks.
pub(super) fn in_folder<T>(
    dir: &Path,
    save_every: usize,
    looks: usize,
    work: impl FnOnce(&mut Workplace<'_>) -> T,
) -> T {
    let mut count = 0;
    let mut observe = |_: &super::work::Progress<'_>| {
        count += 1;
        if count > looks {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    work(&mut Workplace {
        dir,
        overwrite: false,
        ending: "jsonl",
        save_every,
        observe: &mut observe,
    })
}

fn section() -> GenerateSection {
    GenerateSection {
        total: 60,
        created: 1_700_000_000,
        sanitizer: Sanitizer::None,
        ..GenerateSection::default()
    }
}

fn generated(
    section: &GenerateSection,
    seed: u64,
    save_every: usize,
) -> Result<Vec<Record>, MagpieError> {
    let folder = tempfile::tempdir().unwrap();
    let model = Scripted::new(talk);
    in_folder(folder.path(), save_every, usize::MAX, |workplace| {
        generate(section, seed, &model, workplace)
    })?;
    Ok(read_records(&folder.path().join("instructions.jsonl")).unwrap())
}

/// Sixty are asked for with batches of 25: sixty are made, and numbers, keys and order are Magpie's.
#[test]
fn the_total_is_exact_and_rows_have_magpie_s_fields() {
    let records = generated(&section(), 1, 25).unwrap();
    let ids: Vec<u64> = records
        .iter()
        .map(|row| row.0["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, (0..60).collect::<Vec<u64>>());
    let fields: Vec<&str> = records[0].0.keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "id",
            "pre_query_template",
            "instruction",
            "response",
            "created",
            "gen_input_configs",
            "gen_response_configs"
        ]
    );
    assert_eq!(records[0].text("pre_query_template"), "<s>user\n");
    assert!(
        records[0].instruction().ends_with('?'),
        "the stop text cuts what follows it"
    );

    let cleaned = GenerateSection {
        sanitizer: Sanitizer::Fixed,
        ..section()
    };
    let records = generated(&cleaned, 1, 25).unwrap();
    let fields: Vec<&str> = records[0].0.keys().map(String::as_str).collect();
    assert_eq!(
        fields[2..5],
        [
            "raw_instruction",
            "instruction",
            "instruction_sanitize_class_num"
        ]
    );
    assert_eq!(fields.len(), 9);
    assert!(!records[0].instruction().starts_with("1."));
}

#[test]
fn a_seed_decides_and_the_batch_size_does_not() {
    let once = generated(&section(), 1, 60).unwrap();
    assert_eq!(generated(&section(), 1, 7).unwrap(), once);
    assert_ne!(
        generated(&section(), 2, 60).unwrap()[0].instruction(),
        once[0].instruction()
    );
}

#[test]
fn a_domain_uses_its_own_system_prompt() {
    let domains = GenerateSection {
        total: 5,
        domains: vec!["algebra".to_owned(), "number_theory".to_owned()],
        ..section()
    };
    let records = generated(&domains, 1, 60).unwrap();
    let domain = |row: usize| {
        records[row].0["gen_input_configs"]["domain"]
            .as_str()
            .unwrap()
    };
    assert_eq!(
        (domain(0), domain(1), domain(2)),
        ("algebra", "number-theory", "algebra")
    );
    assert!(
        records[0]
            .text("pre_query_template")
            .starts_with("You are a tutor of algebra.")
    );
    assert!(
        records[1]
            .text("pre_query_template")
            .starts_with("You are a tutor of number theory.")
    );
    let unknown = GenerateSection {
        domains: vec!["topology".to_owned()],
        ..section()
    };
    let error = generated(&unknown, 1, 60).unwrap_err().to_string();
    assert!(
        error.starts_with("unknown domain `topology`, expected one of algebra, "),
        "{error}"
    );
}

/// By hand: each switch cuts the same text elsewhere.
#[test]
fn line_ends_and_the_assistant_s_name_stop_only_where_that_is_asked_for() {
    let says = |_: &str, _| "Ask an assistant:\nwhy?</s>".to_owned();
    let instruction = |stop_at_newline, stop_at_assistant| {
        let folder = tempfile::tempdir().unwrap();
        let section = GenerateSection {
            total: 1,
            stop_at_newline,
            stop_at_assistant,
            ..section()
        };
        in_folder(folder.path(), 1, usize::MAX, |workplace| {
            generate(&section, 1, &Scripted::new(says), workplace).unwrap()
        });
        let records = read_records(&folder.path().join("instructions.jsonl")).unwrap();
        records[0].instruction().to_owned()
    };
    assert_eq!(instruction(false, false), "Ask an assistant:\nwhy?");
    assert_eq!(instruction(true, false), "Ask an assistant:");
    assert_eq!(instruction(false, true), "Ask an");
}

fn answered(section: &RespondSection, input: &str, looks: usize) -> (Vec<Record>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.jsonl");
    fs::write(&path, input).unwrap();
    let model = Scripted::new(talk);
    loop {
        let outcome = in_folder(folder.path(), 1, looks, |workplace| {
            let asking = GenerateSection::default();
            respond((section, &asking), 5, &path, &model, workplace).unwrap()
        });
        if matches!(outcome, StepOutcome::Done(_)) {
            break;
        }
    }
    let records = read_records(&folder.path().join("responses.jsonl")).unwrap();
    (records, model.prompts.into_inner())
}

const QUESTIONS: &str = "{\"instruction\": \"a?\", \"extra\": 1}\n{\"instruction\": \"\"}\n\
                         {\"instruction\": \"c?\"}\n";

/// What is recorded is what was applied; an empty question is not asked.
#[test]
fn answers_are_recorded_with_what_was_applied() {
    let section = RespondSection {
        temperature: 0.5,
        max_tokens: 9,
        thinking: Thinking::Strip,
        ..RespondSection::default()
    };
    let (records, prompts) = answered(&section, QUESTIONS, usize::MAX);
    assert_eq!(prompts.len(), 2);
    assert!(
        records[0].response().starts_with("Answer "),
        "{}",
        records[0].response()
    );
    assert!(!records[1].has("response") && !records[1].has("gen_response_configs"));
    assert_eq!(records[0].0["extra"], 1);
    assert_eq!(
        records[0].0["gen_response_configs"],
        serde_json::json!({
            "prompt": "<s>user\na?</s>\n<s>assistant\n", "temperature": 0.5, "top_p": 1.0,
            "repetition_penalty": 1.0, "max_tokens": 9, "stop_tokens": ["</s>"],
            "output_generator": "scripted", "engine": "test",
        })
    );
    let kept = RespondSection::default();
    let (records, _) = answered(&kept, QUESTIONS, usize::MAX);
    assert!(records[0].response().starts_with("<think>"));
}

/// Stopped after every row, the records are those of one go, and each turn has read those before.
#[test]
fn later_turns_read_the_conversation_so_far() {
    let section = RespondSection {
        turns: 3,
        thinking: Thinking::Strip,
        ..RespondSection::default()
    };
    let (records, prompts) = answered(&section, QUESTIONS, usize::MAX);
    assert_eq!(records[0].turns().len(), 3);
    let (first, second) = (records[0].response(), records[0].text("instruction_2"));
    let expected = format!(
        "<s>user\na?</s>\n<s>assistant\n{first}</s>\n<s>user\n{second}</s>\n<s>assistant\n"
    );
    assert!(prompts.contains(&expected), "{prompts:?}");
    assert!(!records[1].has("instruction_2"));
    assert_eq!(answered(&section, QUESTIONS, 1).0, records);
}

#[test]
fn thoughts_without_an_end_leave_nothing() {
    use super::respond::without_thoughts;
    assert_eq!(without_thoughts("<think>a</think>\n\nb"), "b");
    assert_eq!(without_thoughts("a</think>b"), "b");
    assert_eq!(without_thoughts("<think>a"), "");
    assert_eq!(without_thoughts("a < b"), "a < b");
}

#[test]
fn settings_out_of_range_are_named() {
    let wrong = RespondSection {
        turns: 0,
        ..RespondSection::default()
    };
    let message = wrong.validate().unwrap_err().to_string();
    assert_eq!(message, "respond.turns is 0, expected at least 1");
    let wrong = GenerateSection {
        top_p: 0.0,
        ..GenerateSection::default()
    };
    let message = wrong.validate().unwrap_err().to_string();
    assert_eq!(
        message,
        "generate.top_p is 0, expected above 0 and at most 1 (all)"
    );
}

/// The numbers of the fork's own scales: tens, and never fewer than ten.
#[test]
fn a_scale_gives_tens() {
    let num_rows = |total, scale| {
        let section = GenerateSection {
            total,
            scale,
            ..section()
        };
        section.num_rows()
    };
    assert_eq!(num_rows(6000, 0.001), 10);
    assert_eq!(num_rows(6000, 0.01), 60);
    assert_eq!(num_rows(8000, 2.0), 16000);
    assert_eq!(num_rows(123, 1.0), 123);
}
