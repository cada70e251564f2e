//! `kindling eval` as its user runs it: on a tiny model, from the command line to the files.

use std::fs;
use std::process::Command;

use crate::fixture::{Fixture, fails, succeeds};

/// A fixture with a model that took one step, and a small exam.
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    succeeds(fixture.pretrain("run", &["train.length=1 steps", "validation.every_steps=0"]));
    fs::create_dir_all(fixture.path("exam/val")).unwrap();
    write_exam(&fixture, "B");
    fixture
}

fn write_exam(fixture: &Fixture, second_answer: &str) {
    // A mark, CRLF and a quoted line end are what spreadsheets make of such files.
    fixture.write(
        "exam/val/people_val.csv",
        format!(
            "\u{feff}id,question,A,B,C,D,answer\r\n0,\"Who\nowns it?\",Mia,Leo,Ada,Tom,A\r\n\
             1,Who is it?,Ivy,Max,Zoe,Ben,{second_answer}\r\n"
        ),
    );
}

fn eval(fixture: &Fixture, what: &str, data: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
    command.args(["eval", what, "--device", "cpu", "--model"]);
    command.arg(fixture.path("run/final"));
    if !data.is_empty() {
        command.arg("--data").arg(fixture.path(data));
    }
    command
}

/// Without the folder that changes from test to test.
fn message(fixture: &Fixture, command: Command) -> String {
    let folder = format!("{}/", fixture.path("").display()).replace("//", "/");
    fails(command).replace(&folder, "")
}

/// All that an exam leaves; a stopped one, whose last reply is torn, ends in the same bits.
#[test]
fn an_exam_goes_on_where_it_was_stopped() {
    let fixture = fixture();
    let exam = || {
        let mut command = eval(&fixture, "choices", "exam");
        command.args([
            "--split",
            "val",
            "--style",
            "harness",
            "--permute",
            "--options",
        ]);
        command
    };
    let stdout = String::from_utf8(succeeds(exam()).stdout).unwrap();
    assert!(stdout.starts_with("exam val: 2 questions\n"), "{stdout}");
    assert!(stdout.contains("chance (25 %)"), "{stdout}");
    let out = fixture.path("run/eval/exam-val-harness-permuted-options");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let names = [
        "answers.jsonl",
        "summary.json",
        "card.md",
        "results/people_val_result.csv",
    ];
    let whole = names.map(read);
    assert_eq!(whole[0].lines().count(), 3, "settings and two replies");

    let torn = &whole[0][..whole[0].len() - 20];
    fs::write(out.join("answers.jsonl"), torn).unwrap();
    succeeds(exam());
    assert_eq!(names.map(read), whole);

    let mut other = exam();
    other.args(["--shots", "1"]);
    other.arg("--out").arg(&out);
    let message = message(&fixture, other);
    assert!(
        message.contains("answers.jsonl: holds results with shots = 0, expected 1"),
        "{message}"
    );
}

#[test]
fn broken_exams_are_named_with_file_and_line() {
    let fixture = fixture();
    let refused = || {
        let mut command = eval(&fixture, "choices", "exam");
        command.args(["--split", "val", "--style", "harness"]);
        message(&fixture, command)
    };
    write_exam(&fixture, "E");
    assert_eq!(
        refused(),
        "kindling: exam/val/people_val.csv:4: answer: found `E`, expected A, B, C or D\n"
    );
    fixture.write(
        "exam/val/people_val.csv",
        "id,question,A,B,C,answer\n0,q,a,b,c,A\n",
    );
    assert_eq!(
        refused(),
        "kindling: exam/val/people_val.csv:1: found no column `D` among id, question, A, B, C, \
         answer\n"
    );
    fixture.write("exam/val/people_val.csv", "id,question,A,B,C,D,answer\n");
    assert_eq!(
        refused(),
        "kindling: exam/val/people_val.csv: holds no question, expected at least one row\n"
    );
    let command = eval(&fixture, "ceval", "exam");
    assert_eq!(
        message(&fixture, command),
        "kindling: exam/val/people_val.csv: is no subject of C-Eval\n"
    );
}

/// A base model has been taught no template, whatever its tokenizer brings.
#[test]
fn a_model_without_a_chat_template_is_told_what_to_do() {
    let fixture = fixture();
    let path = fixture.path("run/final/tokenizer_config.json");
    fs::write(path, "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}").unwrap();
    let _ = fs::remove_file(fixture.path("run/final/chat_template.jinja"));
    let mut command = eval(&fixture, "choices", "exam");
    command.args(["--split", "val", "--style", "minimind"]);
    assert_eq!(
        message(&fixture, command),
        "kindling: the tokenizer has no chat template, which --style minimind needs (--style \
         harness does without)\n"
    );
}

/// The journal knows the text, not only where it was.
#[test]
fn edited_text_does_not_resume_the_scores_of_another() {
    let fixture = fixture();
    let scored = || {
        let mut command = eval(&fixture, "perplexity", "words.txt");
        command.args(["--window", "32"]);
        command
    };
    fixture.write("words.txt", "one two three");
    succeeds(scored());
    fixture.write("words.txt", "one two four");
    let message = message(&fixture, scored());
    assert!(
        message.contains("groups.jsonl: holds results with data_fingerprint = "),
        "{message}"
    );
}

/// Each of the other evaluations leaves its file, and the report shows what the run's model got.
#[test]
fn every_evaluation_leaves_its_results_where_the_report_finds_them() {
    let fixture = fixture();
    fixture.write(
        "sums.jsonl",
        "{\"question\": \"1+1=\", \"answer\": \"it is\\n#### 2\"}\n",
    );
    fixture.write(
        "pairs.jsonl",
        "{\"prompt\": \"hello\", \"chosen\": \"good day\", \"rejected\": \"zzz\"}\n",
    );
    let mut exam = eval(&fixture, "choices", "exam");
    exam.args(["--split", "val", "--style", "harness"]);
    let mut perplexity = eval(&fixture, "perplexity", "text.jsonl");
    perplexity.args(["--max-documents", "3", "--window", "64"]);
    let mut exact = eval(&fixture, "exact-match", "sums.jsonl");
    exact.args(["--max-new-tokens", "4", "--samples", "2", "--k", "1,2"]);
    let preference = eval(&fixture, "preference", "pairs.jsonl");
    let mut health = eval(&fixture, "health", "");
    health.args(["--max-new-tokens", "4"]);
    for command in [exam, perplexity, exact, preference, health] {
        succeeds(command);
    }
    for name in [
        "perplexity/perplexity.json",
        "exact-match-sums/exact_match.json",
        "preference-pairs/preference.json",
        "health/health.json",
    ] {
        assert!(fixture.path("run/eval").join(name).exists(), "{name}");
    }
    let mut report = Command::new(env!("CARGO_BIN_EXE_kindling"));
    report.args(["eval", "report"]).arg(fixture.path("run"));
    succeeds(report);
    let page = fs::read_to_string(fixture.path("run/report.md")).unwrap();
    for part in [
        "## Exams",
        "exam val harness, letter probability",
        "## Bits per byte",
        "text.jsonl",
        "1+1=",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(fixture.path("run/report.html").exists());
}

/// Asked at steps 5, 10 and at the end, the model learns the very same weights.
#[test]
fn an_exam_on_the_way_changes_nothing_but_the_reports() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("exam/val")).unwrap();
    write_exam(&fixture, "B");
    let folder = format!("exam.path={:?}", fixture.path("exam").to_str().unwrap());
    let settings = [
        folder.as_str(),
        "exam.every_steps=5",
        "exam.max_questions=1",
    ];
    succeeds(fixture.pretrain("examined", &settings));
    let metrics = fs::read_to_string(fixture.path("examined/metrics.jsonl")).unwrap();
    let rows = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let exams: Vec<serde_json::Value> = rows
        .filter(|row: &serde_json::Value| row["kind"] == "exam")
        .collect();
    let steps: Vec<u64> = exams
        .iter()
        .map(|row| row["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [5, 10, 12]);
    assert_eq!(
        (&exams[0]["exam"], &exams[0]["num_total"]),
        (&"exam".into(), &1.into())
    );

    succeeds(fixture.pretrain("plain", &[]));
    assert_eq!(
        fixture.weights_hash("examined"),
        fixture.weights_hash("plain")
    );

    // Of what nobody can mark nothing is counted.
    let without_answers = "id,question,A,B,C,D\n0,q,a,b,c,d\n";
    fixture.write("exam/val/things_val.csv", without_answers);
    succeeds(fixture.pretrain("half", &[&folder, "train.length=1 steps"]));
    let metrics = fs::read_to_string(fixture.path("half/metrics.jsonl")).unwrap();
    let last = metrics.lines().rfind(|line| line.contains("\"exam\""));
    assert!(last.unwrap().contains("\"num_total\":2,"), "{metrics}");
    fixture.write("exam/val/people_val.csv", without_answers);
    assert_eq!(
        message(&fixture, fixture.pretrain("run", &[&folder])),
        "1-pretrain: exam.path: found no answer in exam, expected some to score by\n"
    );

    let nowhere = format!("exam.path={:?}", fixture.path("nowhere").to_str().unwrap());
    let message = message(&fixture, fixture.pretrain("run", &[&nowhere]));
    assert_eq!(
        message,
        "1-pretrain: nowhere: cannot be listed: No such file or directory (os error 2)\n"
    );
    assert!(
        !fixture.path("run").exists(),
        "refused before the run begins"
    );
}
