//! The stage of pairs: an order of them, and an objective that judges both answers.

use burn::module::Module;
use burn::prelude::*;
use dataset::loader::LoaderCursor;
use dataset::preferences::{PairBatch, PairTokens};
use model::CausalLm;
use serde_json::Value;

use crate::config::{LoopConfig, RouterSection};
use crate::loss::{read_scalars, routed_hidden, to_device};
use crate::pair_data::PairData;
use crate::routing::RouterTerms;
use crate::sampler::Sampler;
use crate::stage::{Metrics, Stage, StageError, SummedGradients, add_metrics, gradients_of_hidden};
use crate::validate::HeldOutLoss;

/// What is learned of pairs.
pub(crate) trait PairObjective: Send {
    /// The pairs of some numbers as the model reads them.
    fn batch(&self, pairs: &[PairTokens], numbers: &[u32], pad_id: u32) -> PairBatch;

    /// Loss of each pair, `[P]`, from the hidden states after the final norm, `[B, T, D]`, and the
    /// labels, `[B * T]`; and what is measured, summed over the pairs.
    fn judge(
        &self,
        model: &CausalLm,
        batch: &PairBatch,
        hidden: Tensor<3>,
        labels: Tensor<1, Int>,
    ) -> (Tensor<1>, Metrics);
}

/// Pairs of answers, trained on by an objective.
pub(crate) struct PairStage<O> {
    data: PairData,
    objective: O,
    sampler: Sampler,
    recomputes: bool,
    router: RouterSection,
    batch_pairs: usize,
    max_validation_batches: usize,
}

impl<O: PairObjective> PairStage<O> {
    /// A stage at the beginning of its data.
    pub(crate) fn new(
        data: PairData,
        objective: O,
        sampler: Sampler,
        loop_config: &LoopConfig,
    ) -> Self {
        Self {
            data,
            objective,
            sampler,
            recomputes: loop_config.train.activation_checkpointing,
            router: loop_config.router.clone(),
            batch_pairs: loop_config.train.micro_batch_size,
            max_validation_batches: loop_config.validation.max_batches,
        }
    }

    fn batch(&self, numbers: &[u32]) -> PairBatch {
        let pad_id = self.sampler.tokenizer.pad_id();
        self.objective.batch(&self.data.pairs, numbers, pad_id)
    }

    /// A number for the present micro-batch that is the same in a resumed run.
    fn pass_number(&self) -> u64 {
        let LoaderCursor { epoch, row, .. } = self.data.loader.cursor();
        (epoch << 32) + row + 1
    }
}

impl<O: PairObjective> Stage for PairStage<O> {
    type Batch = PairBatch;

    fn next_batch(&mut self) -> Result<PairBatch, StageError> {
        let numbers = self.data.loader.next_numbers();
        Ok(self.batch(&numbers))
    }

    fn teaches_chat(&self) -> bool {
        true
    }

    fn num_tokens(&self, batch: &PairBatch) -> usize {
        batch.num_tokens
    }

    fn num_supervised(&self, batch: &PairBatch) -> usize {
        batch.num_pairs()
    }

    fn gradients(&self, model: &CausalLm, batch: PairBatch) -> SummedGradients {
        let device = model.embed_tokens.weight.device();
        let mut tensors = to_device(&batch.tokens, &device);
        if model.config().experts.is_some() {
            let terms = RouterTerms::new(&self.router, &batch.tokens);
            tensors.router = Some(terms.weighing(batch.num_pairs()));
        }
        let mut measured = Metrics::new();
        model.training_pass().begin(self.pass_number());
        let mut gradients =
            gradients_of_hidden(model, tensors, self.recomputes, |hidden, labels| {
                let (losses, metrics) = self.objective.judge(model, &batch, hidden, labels);
                measured = metrics;
                losses.sum() // [1]
            });
        model.training_pass().end();
        gradients.metrics = measured;
        gradients
    }

    fn epoch(&self) -> f64 {
        self.data.loader.epochs()
    }

    fn cursor(&self) -> Value {
        serde_json::to_value(self.data.loader.cursor()).expect("three integers are JSON")
    }

    fn seek(&mut self, cursor: &Value) -> Result<(), StageError> {
        let cursor: LoaderCursor =
            serde_json::from_value(cursor.clone()).map_err(StageError::CursorForm)?;
        self.data.loader.seek(cursor).map_err(StageError::Cursor)
    }

    fn validate(&mut self, model: &CausalLm) -> Result<Option<HeldOutLoss>, StageError> {
        let most = match self.max_validation_batches {
            0 => usize::MAX,
            batches => batches,
        };
        let model = model.valid();
        let device = model.embed_tokens.weight.device();
        let mut losses = Vec::new();
        let mut sums = Metrics::new();
        let mut num_pairs = 0;
        for numbers in self.data.held_out.chunks(self.batch_pairs).take(most) {
            let batch = self.batch(numbers);
            let tensors = to_device(&batch.tokens, &device);
            let labels = tensors.labels.clone(); // [B * T]
            let (hidden, _) = routed_hidden(&model, tensors); // [B, T, D]
            let (of_pairs, metrics) = self.objective.judge(&model, &batch, hidden, labels);
            losses.push(of_pairs.sum()); // [1]
            add_metrics(&mut sums, metrics);
            num_pairs += numbers.len();
        }
        if num_pairs == 0 {
            return Ok(None);
        }
        let mean = |sum: f64| sum / num_pairs as f64;
        Ok(Some(HeldOutLoss {
            loss: mean(read_scalars(losses)?.iter().sum()),
            bits_per_byte: None,
            metrics: sums
                .into_iter()
                .map(|(name, sum)| (name, mean(sum)))
                .collect(),
        }))
    }

    fn sample(&self, model: &CausalLm, prompt: &str) -> Result<String, StageError> {
        self.sampler.sample(model, prompt)
    }
}
