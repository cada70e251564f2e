//! The four ways of training that APT offers, as stages of ours with their data.

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
    /// Field of the config that names files.
    pub(super) files_field: &'static str,
    /// Prepared files that it reads.
    pub(super) files: &'static [&'static str],
    /// Flag of `kindling data prepare` that makes them.
    pub(super) flag: &'static str,
}

const SFT: Step = Step {
    command: "full_sft",
    config: "configs/3-full_sft.toml",
    files_field: "data.files",
    files: &["coig-cqia_train.jsonl"],
    flag: "--sft",
};

pub(super) const MODES: [Mode; 1] = [Mode {
    name: "standard",
    title: "standard (标准对齐): SFT",
    steps: &[SFT],
}];
