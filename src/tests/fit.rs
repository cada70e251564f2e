//! `train.micro_batch_size = "auto"`.

use std::fs;

use crate::fixture::{Fixture, fails, succeeds};

/// The whole step of a tiny model fits anywhere, and a run that goes on keeps what it began with.
#[test]
fn the_size_of_micro_batches_is_chosen_and_kept() {
    let fixture = Fixture::new();
    let auto = [
        "train.micro_batch_size=auto",
        "train.grad_accumulation_steps=8",
    ];
    succeeds(fixture.pretrain("auto", &auto));
    let config = fs::read_to_string(fixture.path("auto/config.toml")).unwrap();
    assert!(config.contains("\nmicro_batch_size = 8\n"), "{config}");
    assert!(
        config.contains("\ngrad_accumulation_steps = 1\n"),
        "{config}"
    );
    let chosen = [
        "train.micro_batch_size=8",
        "train.grad_accumulation_steps=1",
    ];
    succeeds(fixture.pretrain("chosen", &chosen));
    assert_eq!(fixture.weights_hash("auto"), fixture.weights_hash("chosen"));

    let begun = [
        "train.micro_batch_size=2",
        "train.grad_accumulation_steps=4",
    ];
    succeeds(fixture.pretrain("begun", &begun));
    let mut resumed = fixture.pretrain("begun", &auto);
    resumed.arg("--resume");
    succeeds(resumed);
}

#[test]
fn a_step_without_a_number_of_sequences_is_refused() {
    let fixture = Fixture::new();
    let message = fails(fixture.pretrain(
        "run",
        &[
            "train.micro_batch_size=auto",
            "train.grad_accumulation_steps=0",
        ],
    ));
    let expected = "train.grad_accumulation_steps: found 0, expected the number of sequences";
    assert!(message.contains(expected), "{message}");
    let message = fails(fixture.pretrain("run", &["train.micro_batch_size=some"]));
    assert!(message.contains("train.micro_batch_size=some"), "{message}");
}
