//! What the loop does between steps: look at the model, and save it.

use std::time::Instant;

use super::{LoopEnd, LoopError, Trainer, here};
use crate::checkpoint;
use crate::report::{SampleReport, ValidationReport};
use crate::stage::Stage;

impl<S: Stage> Trainer<S> {
    /// Validates, samples and saves where the present step is one to do so.
    pub(super) fn look_and_save(&mut self) -> Result<(), LoopError> {
        if self.is_over() {
            return Ok(());
        }
        let step = self.state.step;
        let every_secs = self.config.checkpoint.every_minutes * 60.0;
        let mut must_save = is_due(step, self.config.checkpoint.every_steps)
            || every_secs > 0.0 && self.last_saved.elapsed().as_secs_f64() >= every_secs;
        let looks = [
            self.config.validation.every_steps,
            self.config.samples.every_steps,
            self.config.exam.every_steps,
        ];
        if must_save || looks.into_iter().any(|every| is_due(step, every)) {
            self.read_steps()?;
        }
        if is_due(step, self.config.validation.every_steps) {
            must_save |= self.validate()? && self.config.checkpoint.keep_best;
            if self.has_stalled() {
                let text = "training ends early: the validation loss does not fall any more";
                self.reporter.note(step as u64, text);
                return Ok(());
            }
        }
        if is_due(step, self.config.samples.every_steps) {
            self.sample();
        }
        if is_due(step, self.config.exam.every_steps) {
            self.examine();
        }
        if must_save {
            self.save()?;
        }
        Ok(())
    }

    pub(super) fn look_at_the_end(&mut self) -> Result<(), LoopError> {
        self.read_steps()?;
        if self.validated_step != Some(self.state.step) {
            self.validate()?;
        }
        self.sample();
        self.examine();
        Ok(())
    }

    /// Scores the held-out split; returns whether it is the best score so far.
    fn validate(&mut self) -> Result<bool, LoopError> {
        let model = here(self.model.as_ref());
        let Some(held_out) = self.stage.validate(model)? else {
            return Ok(false);
        };
        self.reporter.record_validation(&ValidationReport {
            step: self.state.step as u64,
            loss: held_out.loss,
            bits_per_byte: held_out.bits_per_byte,
            metrics: held_out.metrics.clone(),
        });
        self.validated_step = Some(self.state.step);
        // A loss that is not finite is never the best: no later one would be lower than NaN.
        let is_lower = self.state.best_loss.is_none_or(|best| held_out.loss < best);
        let is_best = is_lower && held_out.loss.is_finite();
        if is_best {
            self.state.best_loss = Some(held_out.loss);
            self.state.best_step = Some(self.state.step);
            self.state.num_without_progress = 0;
        } else {
            self.state.num_without_progress += 1;
        }
        self.last_validation = Some(held_out);
        Ok(is_best)
    }

    fn sample(&mut self) {
        let step = self.state.step as u64;
        for prompt in &self.config.samples.prompts {
            match self.stage.sample(here(self.model.as_ref()), prompt) {
                Ok(text) => {
                    let prompt = prompt.clone();
                    self.reporter
                        .record_sample(&SampleReport { step, prompt, text });
                }
                // A sample is something to look at; training does not end for want of one.
                Err(error) => self.reporter.note(step, &format!("no sample: {error}")),
            }
        }
    }

    pub(super) fn save(&mut self) -> Result<(), LoopError> {
        self.state.elapsed_secs = self.elapsed_secs();
        let run = self.run.path();
        let model = here(self.model.as_ref());
        checkpoint::save(run, model, &self.optimizer, &self.state)?;
        if self.config.checkpoint.keep_best && self.state.best_step == Some(self.state.step) {
            checkpoint::mark_best(run, self.state.step)?;
        }
        checkpoint::prune(run, self.config.checkpoint.keep_last)?;
        self.reporter.sync();
        self.last_saved = Instant::now();
        Ok(())
    }

    pub(super) fn stop_here(&mut self) -> Result<LoopEnd, LoopError> {
        self.read_steps()?;
        self.save()?;
        let step = self.state.step;
        self.reporter.note(
            step as u64,
            &format!("stopped after step {step}, which is saved"),
        );
        Ok(LoopEnd::Stopped)
    }

    /// Puts the exam to the model, if there is one; like samples, it never ends the run.
    fn examine(&mut self) {
        if let Some((examiner, tokenizer)) = &self.examiner {
            let (model, step) = (here(self.model.as_ref()), self.state.step as u64);
            examiner.report_on(model, tokenizer, step, &mut self.reporter);
        }
    }
}

fn is_due(step: usize, every: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}
