//! Decoding speed: the real generation on random prompts.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::prelude::*;
use model::CausalLm;
use model::generate::{GenerateConfig, Prompt, generate};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::DecodeArgs;
use super::measurement::{Measurement, median, peak_mib};

const SEED: u64 = 0;
const REPETITIONS: usize = 3;

/// Tokens per second after the prompt, and of the prompt itself.
pub(super) fn measure(args: &DecodeArgs, device: &Device) -> Result<Measurement> {
    ensure!(args.batch > 0, "--batch: found 0, expected at least 1");
    ensure!(args.prompt > 0, "--prompt: found 0, expected at least 1");
    ensure!(
        args.new > 1,
        "--new: found {}, expected at least 2",
        args.new
    );
    let config = args.model.shape()?;
    let longest = config.max_position_embeddings;
    ensure!(
        args.prompt + args.new <= longest,
        "--prompt and --new: found {}, expected at most max_position_embeddings = {longest}",
        args.prompt + args.new
    );

    let model = CausalLm::new(&config, SEED, device).packed(args.weights);
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let vocab_size = config.vocab_size as u32;
    let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        let prompts: Vec<Prompt> = (0..args.batch)
            .map(|row| Prompt {
                input_ids: (0..args.prompt)
                    .map(|_| rng.random_range(0..vocab_size))
                    .collect(),
                seed: row as u64,
            })
            .collect();
        let start = Instant::now();
        let mut first = None;
        let mut num_tokens = 0;
        generate(
            &model,
            &prompts,
            &GenerateConfig::greedy(args.new),
            |_, _| {
                num_tokens += 1;
                if num_tokens == args.batch {
                    first = Some(start.elapsed().as_secs_f64());
                }
                ControlFlow::Continue(())
            },
        )?;
        let all = start.elapsed().as_secs_f64();
        let prefill = first.expect("every row writes a token");
        prefills.push((args.batch * args.prompt) as f64 / prefill);
        decodes.push((num_tokens - args.batch) as f64 / (all - prefill));
    }
    Ok(Measurement {
        peer: "kindling".to_owned(),
        params: config.num_params(),
        dtype: args.weights.to_string(),
        tok_s_median: median(&decodes),
        tok_s_best: decodes.iter().copied().fold(0.0, f64::max),
        prefill_tok_s: Some(median(&prefills)),
        peak_mib: peak_mib(&args.model),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        gflop_s: None,
        roof_gflop_s: None,
    })
}
