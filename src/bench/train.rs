//! Training speed: the real optimizer step on random tokens.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use ::train::config::{RouterSection, TrainSection};
use ::train::loss::to_device;
use ::train::loss_scale::LossScale;
use ::train::optimizer::{Optimizer, OptimizerConfig};
use ::train::routing::RouterTerms;
use ::train::stage::{Stage, StageError, SummedGradients, gradients_of_tokens};
use ::train::step::SummedStep;
use ::train::validate::HeldOutLoss;
use anyhow::{Context, Result, ensure};
use burn::prelude::*;
use dataset::batch::{IGNORE_INDEX, TokenBatch};
use model::CausalLm;
use model::workers::on_worker;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::TrainArgs;
use super::measurement::{Measurement, median, peak_mib};
use super::roof::best_product;

const SEED: u64 = 0;

/// Tokens per second of whole optimizer steps.
pub(super) fn measure(args: &TrainArgs, device: &Device) -> Result<Measurement> {
    ensure!(args.steps > 0, "--steps: found 0, expected at least 1");
    ensure!(args.batch > 0, "--batch: found 0, expected at least 1");
    let config = args.model.shape()?;
    let longest = config.max_position_embeddings;
    ensure!(
        (1..=longest).contains(&args.seq),
        "--seq: found {}, expected 1 to max_position_embeddings = {longest}",
        args.seq
    );

    let mut model = CausalLm::new(&config, SEED, &device.clone().autodiff());
    let mut optimizer = Optimizer::new(OptimizerConfig::default());
    let mut stage = RandomTokens {
        rng: ChaCha8Rng::seed_from_u64(SEED),
        batch_size: args.batch,
        seq_len: args.seq,
        vocab_size: config.vocab_size as u32,
        recomputes: args.activation_checkpointing,
    };
    let stop = AtomicBool::new(false);
    let train = TrainSection {
        precision: args.precision,
        ..TrainSection::default()
    };
    let mut loss_scale = LossScale::of(args.precision);
    let speeds = on_worker(|| -> Result<Vec<f64>> {
        let mut speeds = Vec::new();
        while speeds.len() < args.steps {
            let start = Instant::now();
            let scale = loss_scale.as_ref().map_or(1.0, |scaled| scaled.scale);
            model.training_pass().set_loss_scale(scale);
            let step = SummedStep::new(&mut stage, &[&model], &train, &stop, |_, _| {})?
                .context("a benchmark is never asked to stop")?;
            let reason = step.skip_reason();
            if let (Some(reason), Some(loss_scale)) = (reason, &mut loss_scale)
                && loss_scale.skipped(reason)
            {
                // Without an update it is no whole step.
                continue;
            }
            let tokens = step.tokens as f64;
            model = step.apply(model, &mut optimizer, 1e-4, 1.0);
            model.norm.weight.val().into_data();
            speeds.push(tokens / start.elapsed().as_secs_f64());
        }
        Ok(speeds)
    })?;
    let peak_mib = peak_mib(&args.model);

    let tok_s_median = median(&speeds[args.steps / 2..]);
    let flop = config.flops_per_token(args.seq) as f64;
    Ok(Measurement {
        peer: "kindling".to_owned(),
        params: config.num_params(),
        dtype: args.precision.to_string(),
        tok_s_median,
        tok_s_best: speeds.iter().copied().fold(0.0, f64::max),
        prefill_tok_s: None,
        peak_mib,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        gflop_s: Some(tok_s_median * flop / 1e9),
        roof_gflop_s: Some(best_product(args.precision, device)),
    })
}

/// Rows of one document of random tokens each.
struct RandomTokens {
    rng: ChaCha8Rng,
    batch_size: usize,
    seq_len: usize,
    vocab_size: u32,
    recomputes: bool,
}

impl Stage for RandomTokens {
    type Batch = TokenBatch;

    fn next_batch(&mut self) -> Result<TokenBatch, StageError> {
        let mut batch = TokenBatch {
            batch_size: self.batch_size,
            seq_len: self.seq_len,
            input_ids: Vec::new(),
            labels: Vec::new(),
            positions: Vec::new(),
            gaps: Vec::new(),
            document_ids: Vec::new(),
        };
        for row in 0..self.batch_size as u32 {
            let ids: Vec<u32> = (0..self.seq_len)
                .map(|_| self.rng.random_range(0..self.vocab_size))
                .collect();
            batch.labels.extend(ids[1..].iter().map(|&id| id as i32));
            batch.labels.push(IGNORE_INDEX);
            batch.input_ids.extend(ids);
            batch.positions.extend(0..self.seq_len as u32);
            batch.document_ids.extend(vec![row; self.seq_len]);
        }
        Ok(batch)
    }

    fn num_tokens(&self, batch: &TokenBatch) -> usize {
        batch.num_tokens()
    }

    fn num_supervised(&self, batch: &TokenBatch) -> usize {
        batch.num_supervised()
    }

    fn gradients(&self, model: &CausalLm, batch: TokenBatch) -> SummedGradients {
        let device = model.lm_head_weight().device();
        let mut tensors = to_device(&batch, &device);
        if model.config().experts.is_some() {
            tensors.router = Some(RouterTerms::new(&RouterSection::default(), &batch));
        }
        gradients_of_tokens(model, tensors, self.recomputes)
    }

    fn epoch(&self) -> f64 {
        0.0
    }

    fn cursor(&self) -> Value {
        Value::Null
    }

    fn seek(&mut self, _cursor: &Value) -> Result<(), StageError> {
        Ok(())
    }

    fn validate(&mut self, _model: &CausalLm) -> Result<Option<HeldOutLoss>, StageError> {
        Ok(None)
    }

    fn sample(&self, _model: &CausalLm, _prompt: &str) -> Result<String, StageError> {
        Ok(String::new())
    }
}
