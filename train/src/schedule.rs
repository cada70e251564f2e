//! Learning rate as a function of the optimizer step: warm-up, then cosine, linear, WSD or
//! constant.
//!
//! Source: cosine as MiniMind v1 has it (half a cosine down to a floor); WSD (warm-up, stable,
//! decay) as torchtitan's `linear_warmup_stable_decay`, whose decay begins one step after the
//! stable part.

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// Shape of the learning rate curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Half a cosine from the peak to the floor.
    Cosine,
    /// A straight line from the peak to the floor.
    Linear,
    /// Warm-up, a long stable part at the peak, and a decay over the last share of the run.
    Wsd,
    /// The peak from the end of the warm-up on.
    Constant,
}

/// Shape of the decay at the end of a WSD schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayShape {
    /// `1 - p`.
    Linear,
    /// `1 - sqrt(p)`.
    Sqrt,
    /// `(1 + cos(pi p)) / 2`.
    Cosine,
}

/// `[schedule]`: how the learning rate moves over the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Shape of the learning rate curve: "cosine", "linear", "wsd" (warm-up, stable, decay) or
    /// "constant".
    pub kind: ScheduleKind,
    /// Share of the run over which the learning rate climbs from 0 to its peak, from 0 to 1.
    pub warmup_ratio: f64,
    /// Warm-up in optimizer steps; above 0 it replaces warmup_ratio (not with a length in minutes).
    pub warmup_steps: usize,
    /// Learning rate at the end as a share of the peak, from 0 to 1; not used by "constant".
    pub min_lr_ratio: f64,
    /// Share of the run over which "wsd" decays at its end, from 0 to 1; not used by the other
    /// kinds.
    pub decay_ratio: f64,
    /// Shape of the decay of "wsd": "linear", "sqrt" or "cosine".
    pub decay_shape: DecayShape,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Cosine,
            warmup_ratio: 0.02,
            warmup_steps: 0,
            min_lr_ratio: 0.1,
            decay_ratio: 0.2,
            decay_shape: DecayShape::Sqrt,
        }
    }
}

impl ScheduleConfig {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_share("schedule.warmup_ratio", self.warmup_ratio)?;
        ConfigError::check_share("schedule.min_lr_ratio", self.min_lr_ratio)?;
        ConfigError::check_share("schedule.decay_ratio", self.decay_ratio)?;
        if self.kind == ScheduleKind::Wsd
            && self.warmup_steps == 0
            && self.warmup_ratio + self.decay_ratio > 1.0
        {
            return Err(ConfigError::field(
                "schedule.decay_ratio",
                self.decay_ratio,
                format!(
                    "at most 1 - schedule.warmup_ratio = {}",
                    1.0 - self.warmup_ratio
                ),
            ));
        }
        Ok(())
    }
}

/// Learning rate over one run, resolved to the run's length.
///
/// A position is the number of the optimizer step, from 1 (position 0 is the point before the first
/// step). For a run whose length is given in minutes it is the time trained so far, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    kind: ScheduleKind,
    decay_shape: DecayShape,
    peak_lr: f64,
    min_lr_ratio: f64,
    total: f64,
    warmup: f64,
    decay: f64,
    // torchtitan starts the decay one step late; a run measured in seconds has no such step.
    granule: f64,
}

impl Schedule {
    /// Schedule of a run of `total_steps` optimizer steps.
    pub fn over_steps(config: &ScheduleConfig, peak_lr: f64, total_steps: usize) -> Self {
        let total = total_steps as f64;
        let warmup = if config.warmup_steps > 0 {
            config.warmup_steps as f64
        } else {
            (config.warmup_ratio * total).round()
        };
        let decay = (config.decay_ratio * total).round();
        Self::new(config, peak_lr, total, warmup, decay, 1.0)
    }

    /// Schedule of a run of `total_secs` seconds; positions are seconds trained so far.
    pub fn over_seconds(config: &ScheduleConfig, peak_lr: f64, total_secs: f64) -> Self {
        let warmup = config.warmup_ratio * total_secs;
        let decay = config.decay_ratio * total_secs;
        Self::new(config, peak_lr, total_secs, warmup, decay, 0.0)
    }

    fn new(
        config: &ScheduleConfig,
        peak_lr: f64,
        total: f64,
        warmup: f64,
        decay: f64,
        granule: f64,
    ) -> Self {
        Self {
            kind: config.kind,
            decay_shape: config.decay_shape,
            peak_lr,
            min_lr_ratio: config.min_lr_ratio,
            total,
            // A run of constant rate may go on after its end, as if it had been longer all along.
            warmup: match config.kind {
                ScheduleKind::Constant => warmup,
                _ => warmup.min(total),
            },
            decay,
            granule,
        }
    }

    /// Length of the warm-up, in optimizer steps or seconds.
    pub fn warmup(&self) -> f64 {
        self.warmup
    }

    /// Learning rate at a position.
    ///
    /// `peak * position / warmup` during the warm-up, then `peak * (floor + (1 - floor) * share)`,
    /// where `share` falls from 1 at the end of the warm-up to 0 at the end of the run.
    pub fn lr_at(&self, position: f64) -> f64 {
        if position < self.warmup {
            return self.peak_lr * position / self.warmup;
        }
        let share = match self.kind {
            ScheduleKind::Constant => return self.peak_lr,
            ScheduleKind::Cosine => half_cosine(self.progress_after_warmup(position)),
            ScheduleKind::Linear => 1.0 - self.progress_after_warmup(position),
            ScheduleKind::Wsd => {
                let p = self.decay_progress(position);
                match self.decay_shape {
                    DecayShape::Linear => 1.0 - p,
                    DecayShape::Sqrt => 1.0 - p.sqrt(),
                    DecayShape::Cosine => half_cosine(p),
                }
            }
        };
        self.peak_lr * (self.min_lr_ratio + (1.0 - self.min_lr_ratio) * share)
    }

    fn progress_after_warmup(&self, position: f64) -> f64 {
        share_of(position - self.warmup, self.total - self.warmup)
    }

    fn decay_progress(&self, position: f64) -> f64 {
        share_of(
            position - (self.total + self.granule - self.decay),
            self.decay,
        )
    }
}

/// `part / whole` kept within 0..=1; an empty whole is over as soon as it begins.
fn share_of(part: f64, whole: f64) -> f64 {
    if part <= 0.0 {
        0.0
    } else if part >= whole {
        1.0
    } else {
        part / whole
    }
}

/// `(1 + cos(pi p)) / 2`.
fn half_cosine(p: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * p).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kind: ScheduleKind, warmup_steps: usize) -> ScheduleConfig {
        ScheduleConfig {
            kind,
            warmup_ratio: 0.0,
            warmup_steps,
            ..ScheduleConfig::default()
        }
    }

    fn assert_lrs(schedule: &Schedule, expected: &[(f64, f64)]) {
        for &(position, lr) in expected {
            let found = schedule.lr_at(position);
            assert!(
                (found - lr).abs() < 1e-8,
                "position {position}: found {found}, expected {lr}"
            );
        }
    }

    /// Values computed from MiniMind v1's formula: lr 2e-4, 1000 steps, no warm-up, floor lr / 10.
    #[test]
    fn cosine_without_warmup_matches_minimind() {
        let schedule = Schedule::over_steps(&config(ScheduleKind::Cosine, 0), 2e-4, 1000);
        assert_lrs(
            &schedule,
            &[
                (0.0, 2e-4),
                (250.0, 1.736_396_103e-4),
                (500.0, 1.1e-4),
                (750.0, 4.636_038_969e-5),
                (1000.0, 2e-5),
                (1001.0, 2e-5),
            ],
        );
    }

    /// The same formula with a warm-up of 100 steps.
    #[test]
    fn cosine_with_warmup_reaches_the_peak_and_the_floor() {
        let schedule = Schedule::over_steps(&config(ScheduleKind::Cosine, 100), 2e-4, 1000);
        assert_lrs(
            &schedule,
            &[
                (0.0, 0.0),
                (50.0, 1e-4),
                (100.0, 2e-4),
                (550.0, 1.1e-4),
                (1000.0, 2e-5),
            ],
        );
    }

    /// MiniMind-3's values are the same curve at lr 5e-4; the peak is never exceeded.
    #[test]
    fn cosine_never_exceeds_the_peak() {
        let schedule = Schedule::over_steps(&config(ScheduleKind::Cosine, 0), 5e-4, 1000);
        assert_lrs(
            &schedule,
            &[(250.0, 4.340_990_258e-4), (750.0, 1.159_009_742e-4)],
        );
        assert!((0..=1000).all(|step| schedule.lr_at(f64::from(step)) <= 5e-4));
    }

    /// torchtitan's values for T 1000, w 100, decay 0.2, recorded for 0-based steps; ours count
    /// from 1.
    #[test]
    fn wsd_matches_torchtitan() {
        let table = [
            (DecayShape::Linear, [0.995, 0.5, 0.005]),
            (DecayShape::Sqrt, [0.929_289_32, 0.292_893_22, 0.002_503_13]),
            (DecayShape::Cosine, [0.999_938_32, 0.5, 6.168e-5]),
        ];
        for (decay_shape, [first, middle, last]) in table {
            let config = ScheduleConfig {
                min_lr_ratio: 0.0,
                decay_shape,
                ..config(ScheduleKind::Wsd, 100)
            };
            let schedule = Schedule::over_steps(&config, 1.0, 1000);
            assert_lrs(
                &schedule,
                &[
                    (1.0, 0.01),
                    (50.0, 0.5),
                    (100.0, 1.0),
                    (101.0, 1.0),
                    (801.0, 1.0),
                    (802.0, first),
                    (901.0, middle),
                    (1000.0, last),
                ],
            );
        }
    }

    /// By hand: half way between peak and floor 0.1 is 0.55.
    #[test]
    fn linear_is_a_straight_line_to_the_floor() {
        let schedule = Schedule::over_steps(&config(ScheduleKind::Linear, 10), 1.0, 110);
        assert_lrs(
            &schedule,
            &[
                (1.0, 0.1),
                (10.0, 1.0),
                (60.0, 0.55),
                (110.0, 0.1),
                (500.0, 0.1),
            ],
        );
    }

    /// By hand.
    #[test]
    fn constant_stays_at_the_peak_after_the_warmup() {
        let schedule = Schedule::over_steps(&config(ScheduleKind::Constant, 4), 1.0, 10);
        assert_lrs(&schedule, &[(1.0, 0.25), (4.0, 1.0), (10.0, 1.0)]);
    }

    /// By hand: a run of 100 s with 10 % warm-up is at half its peak after 5 s and at the floor at
    /// 100 s.
    #[test]
    fn a_run_in_minutes_moves_with_the_seconds_trained() {
        let config = ScheduleConfig {
            warmup_ratio: 0.1,
            ..ScheduleConfig::default()
        };
        let schedule = Schedule::over_seconds(&config, 1.0, 100.0);
        assert_lrs(
            &schedule,
            &[
                (5.0, 0.5),
                (10.0, 1.0),
                (55.0, 0.55),
                (100.0, 0.1),
                (130.0, 0.1),
            ],
        );
    }

    /// A warm-up as long as the run, and a run of one step, are no division by zero.
    #[test]
    fn a_run_shorter_than_its_warmup_stays_finite() {
        for kind in [
            ScheduleKind::Cosine,
            ScheduleKind::Linear,
            ScheduleKind::Wsd,
        ] {
            let schedule = Schedule::over_steps(&config(kind, 100), 1.0, 1);
            assert!(schedule.lr_at(1.0).is_finite(), "{kind:?}");
        }
    }

    /// The text names the field, what was found and what was expected.
    #[test]
    fn a_share_above_one_is_refused() {
        let config = ScheduleConfig {
            warmup_ratio: 1.5,
            ..ScheduleConfig::default()
        };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "schedule.warmup_ratio: found 1.5, expected a share from 0 to 1"
        );
    }
}
