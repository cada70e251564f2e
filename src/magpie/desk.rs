//! The models and the folder that steps work with.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use burn::prelude::Device;
use dataset::Tokenizer;
use dataset::magpie::candidates::{self, Drawers};
use dataset::magpie::completer::Completer;
use dataset::magpie::http::Endpoint;
use dataset::magpie::record::read_records;
use dataset::magpie::reward::{Judge, Reward};
use dataset::magpie::tag::{self, Judges, Mission};
use dataset::magpie::work::{Progress, StepOutcome, Workplace};
use dataset::magpie::{dedup, filter, instruct, merge, prefer, respond};

use super::config::{EngineSection, MagpieConfig, RewardSource};
use super::likelihood::Likelihood;
use super::own::OwnModel;
use super::show::{self, StepBar};
use super::trained::Trained;
use crate::interrupt::stop_on_signal;

/// Tokens of a judge's grade at most.
const GRADE_TOKENS: usize = 64;

/// A step of making data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Generate,
    Respond,
    Tag,
    Dedup,
    Filter,
    Candidates,
    Prefer,
    Merge,
}

impl Step {
    /// Every step, in order.
    pub(super) const ALL: [Self; 8] = [
        Self::Generate,
        Self::Respond,
        Self::Tag,
        Self::Dedup,
        Self::Filter,
        Self::Candidates,
        Self::Prefer,
        Self::Merge,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Generate => instruct::STEP,
            Self::Respond => respond::STEP,
            Self::Tag => tag::STEP,
            Self::Dedup => dedup::STEP,
            Self::Filter => filter::STEP,
            Self::Candidates => candidates::STEP,
            Self::Prefer => prefer::STEP,
            Self::Merge => merge::STEP,
        }
    }

    /// Stem of the file that the step before left.
    fn reads(self) -> &'static str {
        match self {
            Self::Generate | Self::Respond => instruct::FILE,
            Self::Tag => respond::FILE,
            Self::Dedup => tag::FILE,
            Self::Filter => dedup::FILE,
            Self::Candidates | Self::Merge => filter::FILE,
            Self::Prefer => candidates::FILE,
        }
    }
}

/// Settings, folder and models of all steps; a model is loaded when the first step needs it.
pub(super) struct Desk {
    config: MagpieConfig,
    out: PathBuf,
    overwrite: bool,
    device: Device,
    engine: Option<Rc<dyn Completer>>,
    judge: Option<Rc<dyn Completer>>,
    reward: Option<Rc<dyn Reward>>,
}

impl Desk {
    pub(super) fn new(config: MagpieConfig, out: PathBuf, overwrite: bool, device: Device) -> Self {
        Self {
            config,
            out,
            overwrite,
            device,
            engine: None,
            judge: None,
            reward: None,
        }
    }

    /// Does a step on a file of the caller's, or on what the step before left.
    pub(super) fn run(&mut self, step: Step, input: Option<&Path>) -> Result<StepOutcome> {
        let stop = stop_on_signal()?;
        let mut bar = StepBar::default();
        let mut observe = |progress: &Progress<'_>| {
            bar.update(progress);
            if stop.load(Ordering::SeqCst) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let out = self.out.clone();
        let mut workplace = Workplace {
            dir: &out,
            overwrite: self.overwrite,
            ending: self.config.format.ending(),
            save_every: self.config.save_every,
            observe: &mut observe,
        };
        let left = workplace.file(step.reads());
        // Answers that are weighed already need no drawing.
        let is_weighed = match (step, input) {
            (Step::Candidates | Step::Prefer, Some(input)) => has_rewards(input)?,
            _ => false,
        };
        let input = match (step, input, is_weighed) {
            (Step::Candidates, Some(_), true) => {
                let entry = dataset::magpie::manifest::StepEntry::default();
                return Ok(StepOutcome::WasDone(entry));
            }
            (Step::Prefer, Some(_), false) | (_, None, _) => left,
            (_, Some(input), _) => input.to_owned(),
        };
        let outcome = self.step(step, &input, &mut workplace)?;
        show::outcome(step.name(), &outcome)?;
        Ok(outcome)
    }

    fn step(
        &mut self,
        step: Step,
        input: &Path,
        workplace: &mut Workplace<'_>,
    ) -> Result<StepOutcome> {
        let config = self.config.clone();
        let seed = config.seed;
        Ok(match step {
            Step::Generate => {
                let engine = self.engine()?;
                instruct::generate(&config.generate, seed, &*engine, workplace)?
            }
            Step::Respond => {
                let (engine, sections) = (self.engine()?, (&config.respond, &config.generate));
                respond::respond(sections, seed, input, &*engine, workplace)?
            }
            Step::Tag => self.tag(input, workplace)?,
            Step::Dedup => dedup::dedup(&config.dedup, input, workplace)?,
            Step::Filter => filter::filter(&config.filter, seed, input, workplace)?,
            Step::Candidates => self.candidates(input, workplace)?,
            Step::Prefer => prefer::prefer(&config.prefer, seed, input, workplace)?,
            Step::Merge => merge::merge(&config.merge, seed, input.to_owned(), workplace)?,
        })
    }

    fn tag(&mut self, input: &Path, workplace: &mut Workplace<'_>) -> Result<StepOutcome> {
        let section = self.config.tag.clone();
        let judge = section.needs_judge().then(|| self.judge()).transpose()?;
        let weighs = section.missions.contains(&Mission::Reward);
        let reward = weighs.then(|| self.reward()).transpose()?;
        let judges = Judges {
            judge: judge.as_deref(),
            reward: reward.as_deref(),
        };
        Ok(tag::tag(
            &section,
            self.config.seed,
            input,
            &judges,
            workplace,
        )?)
    }

    fn candidates(&mut self, input: &Path, workplace: &mut Workplace<'_>) -> Result<StepOutcome> {
        let (engine, reward) = (self.engine()?, self.reward()?);
        let drawers = Drawers {
            completer: &*engine,
            reward: &*reward,
            thinking: self.config.respond.thinking,
            seed: self.config.seed,
        };
        Ok(candidates::candidates(
            &self.config.prefer,
            input,
            drawers,
            workplace,
        )?)
    }

    /// The model that asks and answers.
    fn engine(&mut self) -> Result<Rc<dyn Completer>> {
        if let Some(engine) = &self.engine {
            return Ok(Rc::clone(engine));
        }
        let engine = completer(&self.config.engine, &self.device)?;
        Ok(Rc::clone(self.engine.insert(engine)))
    }

    /// The model that judges: the one that answers where no other is named.
    fn judge(&mut self) -> Result<Rc<dyn Completer>> {
        if self.config.judge.is_empty() {
            return self.engine();
        }
        if let Some(judge) = &self.judge {
            return Ok(Rc::clone(judge));
        }
        let judge = completer(&self.config.judge, &self.device)?;
        Ok(Rc::clone(self.judge.insert(judge)))
    }

    /// Who gives rewards.
    fn reward(&mut self) -> Result<Rc<dyn Reward>> {
        if let Some(reward) = &self.reward {
            return Ok(Rc::clone(reward));
        }
        let reward: Rc<dyn Reward> = match self.config.reward.source {
            RewardSource::None => bail!(
                "reward.source is \"none\", expected \"likelihood\", \"model\" or \"judge\": answers \
                 must be weighed"
            ),
            RewardSource::Model => Rc::new(Trained::load(&self.config.reward.model, &self.device)?),
            RewardSource::Judge => {
                Rc::new(Judge::new(self.judge()?, self.config.seed, GRADE_TOKENS))
            }
            RewardSource::Likelihood => {
                Rc::new(Likelihood::load(self.config.reward_model(), &self.device)?)
            }
        };
        Ok(Rc::clone(self.reward.insert(reward)))
    }
}

/// Whether a file has weighed answers already.
fn has_rewards(path: &Path) -> Result<bool> {
    let records = read_records(path)?;
    Ok(records
        .iter()
        .any(|record| prefer::rewards(record).is_some()))
}

/// The model that a section names.
fn completer(section: &EngineSection, device: &Device) -> Result<Rc<dyn Completer>> {
    if section.endpoint.url.is_empty() {
        let model = OwnModel::load(&section.model, section.batch_size, device)?;
        return Ok(Rc::new(model));
    }
    let endpoint = Endpoint::new(&section.endpoint)?;
    if !section.endpoint.tokenizer.is_empty() {
        let tokenizer = Tokenizer::load(Path::new(&section.endpoint.tokenizer))?;
        endpoint.family().check(&tokenizer)?;
    }
    Ok(Rc::new(endpoint))
}
