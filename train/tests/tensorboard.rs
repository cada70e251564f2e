//! TensorBoard's own reader opens what a run wrote; skipped where Python has no `tensorboard`.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use train::report::{ReportConfig, Reporter, SampleReport, StepReport, ValidationReport};

/// Takes the steps of the range, with a loss that tells the first run from the resumed one.
fn run(dir: &Path, steps: std::ops::RangeInclusive<u64>, resume_from: Option<u64>, loss: f64) {
    let config = ReportConfig {
        log_every: 1,
        quiet: true,
        ..ReportConfig::default()
    };
    let mut reporter = Reporter::new(dir, &config, resume_from).expect("the folder is new");
    let last = *steps.end();
    for step in steps {
        reporter.record_step(&StepReport {
            step,
            total_steps: Some(6),
            epoch: 0.5,
            loss,
            lr: 0.5,
            grad_norm: 0.25,
            tokens: 800,
            supervised: 790,
            total_tokens: 800 * step,
            secs: 2.0,
            data_wait_secs: 0.5,
            skipped: 0,
            metrics: vec![("rewards/margins", 0.25)],
        });
    }
    reporter.record_validation(&ValidationReport {
        step: last,
        loss,
        bits_per_byte: Some(1.5),
        metrics: Vec::new(),
    });
    reporter.record_sample(&SampleReport {
        step: last,
        prompt: "天气".into(),
        text: "很好\n**not bold**".into(),
    });
    reporter.finish();
}

fn read_with_tensorboard(events: &Path) -> Option<Value> {
    let has_tensorboard = Command::new("python3")
        .args(["-c", "import tensorboard"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_tensorboard {
        println!("skipped: python3 has no tensorboard (pip install tensorboard)");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_events.py");
    let output = Command::new("python3")
        .arg(script)
        .arg(events)
        .output()
        .expect("python3 ran a moment ago");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(serde_json::from_slice(&output.stdout).expect("the script prints JSON"))
}

/// Steps 1 to 4 with loss 3, a checkpoint at 2, then steps 3 to 6 with loss 2: each step once.
#[test]
fn tensorboard_reads_a_resumed_run_with_each_step_once() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), 1..=4, None, 3.0);
    run(dir.path(), 3..=6, Some(2), 2.0);

    let Some(series) = read_with_tensorboard(&dir.path().join("events")) else {
        return;
    };
    let points = |tag: &str| series[tag]["points"].clone();
    assert_eq!(
        points("train/loss"),
        json!([[1, 3.0], [2, 3.0], [3, 2.0], [4, 2.0], [5, 2.0], [6, 2.0]])
    );
    assert_eq!(points("train/lr")[0], json!([1, 0.5]));
    assert_eq!(points("train/grad_norm")[0], json!([1, 0.25]));
    assert_eq!(points("train/tokens_per_sec")[0], json!([1, 400.0]));
    assert_eq!(points("train/data_wait")[0], json!([1, 0.25]));
    assert_eq!(points("validation/loss"), json!([[6, 2.0]]));
    assert_eq!(points("validation/bits_per_byte"), json!([[6, 1.5]]));
    assert_eq!(
        points("samples/天气"),
        json!([[6, "    天气很好\n    **not bold**\n"]])
    );
    assert_eq!(series["samples/天气"]["plugin"], "text");
    assert_eq!(series["train/loss"]["plugin"], "scalars");
}
