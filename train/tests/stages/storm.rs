//! Reasoning that goes away, from files to an exported model, on a tiny decoder.

use std::fs;

use train::config::{Length, StormConfig};
use train::run_folder::IfExists;
use train::storm;

use crate::world::{World, final_weights, metrics, summary};

fn config(world: &World) -> StormConfig {
    let rows: Vec<String> = (0..20)
        .map(|n| {
            let said = format!("<think>\n{n}+1={}\n</think>\n{}", n + 1, n + 1);
            serde_json::json!({"conversations": [
                {"role": "user", "content": format!("{n} and one?")},
                {"role": "assistant", "content": said},
            ]})
            .to_string()
        })
        .collect();
    fs::write(world.path("reasoned.jsonl"), rows.join("\n")).unwrap();
    let mut config = StormConfig::default();
    config.model.config = world.path("model.json");
    config.tokenizer.path = world.path("tokenizer");
    config.data.files = vec![world.path("reasoned.jsonl").to_str().unwrap().to_owned()];
    config.data.seq_len = 64;
    config.data.validation_fraction = 0.2;
    config.train.length = Length::Steps(6);
    config.train.micro_batch_size = 4;
    config.storm.fade_ratio = 0.5;
    config.storm.max_new_tokens = 4;
    config.validation.every_steps = 0;
    config.checkpoint.every_steps = 1;
    config.checkpoint.keep_last = 9;
    config.report.quiet = true;
    config.report.tensorboard = false;
    config.report.plot = false;
    config
}

/// All of the reasoning in the first step, none after half of the run; what is lost of a run is
/// trained again to the same bytes, the noise included.
#[test]
fn reasoning_goes_away_and_a_lost_end_comes_back() {
    let world = World::new();
    let config = config(&world);
    let run = |if_exists| {
        let options = world.options("run", if_exists, false);
        summary(storm::run(&config, options).unwrap())
    };
    let held_out = run(IfExists::Refuse).held_out.unwrap();
    let names: Vec<&str> = held_out.metrics.iter().map(|(name, _)| *name).collect();
    let expected = [
        "right/at_once",
        "tokens/at_once",
        "right/reasoned",
        "tokens/reasoned",
    ];
    assert_eq!(names, expected);
    let folder = world.path("run");
    let steps: Vec<(f64, f64)> = metrics(&folder)
        .iter()
        .filter(|row| row["kind"] == "step")
        .map(|row| {
            let number = |name: &str| row[name].as_f64().unwrap();
            (number("explicit"), number("reasoning_tokens"))
        })
        .collect();
    assert_eq!(steps.len(), 6);
    assert!(steps[0].0 > 0.999 && steps[0].1 > 4.0, "{steps:?}");
    let is_gone = |(explicit, tokens): &(f64, f64)| explicit.abs() < 1e-12 && tokens.abs() < 1e-12;
    assert!(steps[3..].iter().all(is_gone), "{steps:?}");

    let whole = final_weights(&folder);
    for lost in [3, 4, 5, 6] {
        fs::remove_dir_all(folder.join(format!("step_00000{lost}"))).unwrap();
    }
    fs::remove_dir_all(folder.join("final")).unwrap();
    assert_eq!(run(IfExists::Resume).steps, 6);
    assert_eq!(final_weights(&folder), whole);
}

/// A schedule over steps needs to know how many there are.
#[test]
fn a_length_in_minutes_is_refused() {
    let world = World::new();
    let mut config = config(&world);
    config.train.length = Length::Minutes(1.0);
    assert_eq!(
        storm::plan(&config).unwrap_err().to_string(),
        "train.length: found 1 minutes, expected a length in epochs, steps or tokens: reasoning \
         goes away step by step"
    );
}
