//! The ways of training that APT offers, as stages of ours with their data.

/// A way of training.
pub(super) struct Mode {
    /// What the folders of its stages begin with.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) steps: &'static [Step],
}

/// A stage of a way, with its data.
pub(super) struct Step {
    /// Command of `kindling`.
    pub(super) command: &'static str,
    pub(super) config: &'static str,
    /// Prepared files that it reads.
    pub(super) files: &'static [&'static str],
    /// Flag of `kindling data prepare` that makes them.
    pub(super) flag: &'static str,
}

const SFT: Step = Step {
    command: "full_sft",
    config: "configs/3-full_sft.toml",
    files: &["coig-cqia_train.jsonl"],
    flag: "--sft",
};

const DPO: Step = Step {
    command: "dpo",
    config: "configs/5-dpo.toml",
    files: &["hh-rlhf_train.jsonl", "ultrafeedback_train.jsonl"],
    flag: "--dpo",
};

/// On s1K, whose answers can be checked; APT's prompts are HH-RLHF's, which nothing can score
/// without a reward model.
const GRPO: Step = Step {
    command: "grpo",
    config: "configs/6-grpo.toml",
    files: &["s1k_train.jsonl"],
    flag: "--cot",
};

const LOYALTY: Step = Step {
    command: "loyalty",
    config: "configs/7-loyalty.toml",
    files: &["loyalty_template.jsonl"],
    flag: "--loyalty-template",
};

const STORM: Step = Step {
    command: "storm",
    config: "configs/8-storm.toml",
    files: &["s1k_train.jsonl"],
    flag: "--cot",
};

pub(super) const MODES: [Mode; 4] = [
    Mode {
        name: "standard",
        title: "standard (标准对齐): SFT, GRPO",
        steps: &[SFT, GRPO],
    },
    Mode {
        name: "loyalty",
        title: "loyalty (忠诚度): answers that depend on who asks",
        steps: &[LOYALTY],
    },
    Mode {
        name: "storm",
        title: "storm (暴风雨): reasoning made to go away",
        steps: &[STORM],
    },
    Mode {
        name: "full",
        title: "everything (完整流程): SFT, DPO, GRPO, loyalty, Storm",
        steps: &[SFT, DPO, GRPO, LOYALTY, STORM],
    },
];
