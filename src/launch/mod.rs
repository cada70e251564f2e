//! `kindling launch`: asks what to do, prints the commands that do it, and runs them if told to.

mod menu;
mod modes;

use std::env;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::config::toml_path;

use menu::Dialogue;
use modes::{MODES, Mode, Step};

/// What can be prepared, with the flags of `kindling data prepare`.
const SETS: [(&str, &[&str]); 6] = [
    ("instructions (COIG-CQIA)", &["--sft"]),
    ("thoughts (s1K-1.1, s1K)", &["--cot"]),
    ("preferences (HH-RLHF, UltraFeedback)", &["--dpo"]),
    ("riddles (ruozhiba)", &["--ruozhiba"]),
    ("loyalty template", &["--loyalty-template"]),
    ("everything", &["--all", "--ruozhiba", "--loyalty-template"]),
];

/// Where prepared files, a model to start from and results lie.
#[derive(Debug, Clone, Args)]
pub struct LaunchArgs {
    /// Folder of prepared files
    #[arg(long, value_name = "DIR", default_value = "out/apt")]
    data: PathBuf,
    /// Model that training starts from
    #[arg(long, value_name = "DIR", default_value = "out/1-pretrain/final")]
    model: PathBuf,
    /// Folder of the results
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
}

/// Asks on the terminal.
///
/// # Errors
///
/// An input that ends before the last answer, or a command that cannot be started.
pub fn run(args: &LaunchArgs) -> Result<ExitCode> {
    let commands = ask(args, &mut io::stdin().lock(), &mut io::stdout().lock())?;
    for command in commands {
        let program = env::current_exe().context("the own program is not to be found")?;
        let status = Command::new(program).args(&command).status()?;
        if !status.success() {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(1)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The commands that are wanted, printed in any case; none if they are not to be run.
fn ask(
    args: &LaunchArgs,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<Vec<Vec<String>>> {
    let mut dialogue = Dialogue { input, output };
    let operations = [
        "prepare data (准备数据集)",
        "train (开始训练)",
        "view prepared data (查看数据集信息)",
    ];
    let commands = match dialogue.choose("What to do?", &operations)? {
        0 => vec![args.prepare(dialogue.choose("Which data?", &SETS.map(|(name, _)| name))?)],
        1 => {
            let mode = dialogue.choose("How to train?", &MODES.map(|mode| mode.title))?;
            args.train(&MODES[mode])
        }
        _ => vec![args.view()],
    };
    writeln!(dialogue.output)?;
    for command in &commands {
        writeln!(dialogue.output, "kindling {}", shell_line(command))?;
    }
    if dialogue.confirm("Run it?")? {
        return Ok(commands);
    }
    Ok(Vec::new())
}

impl LaunchArgs {
    fn prepare(&self, set: usize) -> Vec<String> {
        let (_, flags) = SETS[set];
        self.prepared_with(flags)
    }

    fn prepared_with(&self, flags: &[&str]) -> Vec<String> {
        let data = self.data.display().to_string();
        let words = ["data", "prepare"].iter().chain(flags);
        let words = words
            .chain(&["--output-dir"])
            .map(|word| (*word).to_owned());
        words.chain([data]).collect()
    }

    /// First what is not prepared yet, then a stage after the other, each from what the one before
    /// leaves.
    fn train(&self, mode: &Mode) -> Vec<Vec<String>> {
        let mut commands = Vec::new();
        let mut missing: Vec<&str> = Vec::new();
        for step in mode.steps {
            let is_there = step.files.iter().all(|file| self.data.join(file).exists());
            if !is_there && !missing.contains(&step.flag) {
                missing.push(step.flag);
            }
        }
        if !missing.is_empty() {
            commands.push(self.prepared_with(&missing));
        }
        let mut model = self.model.clone();
        for step in mode.steps {
            let out = self.out.join(format!("{}.{}", mode.name, step.command));
            commands.push(self.stage(step, &model, &out));
            model = out.join("final");
        }
        commands
    }

    fn stage(&self, step: &Step, model: &Path, out: &Path) -> Vec<String> {
        let files = step
            .files
            .iter()
            .map(|file| toml_path(&self.data.join(file)).to_string());
        let files = files.collect::<Vec<_>>().join(", ");
        let words = [
            step.command,
            "--config",
            step.config,
            "--set",
            &format!("model.from={}", toml_path(model)),
            "--set",
            &format!("tokenizer.path={}", toml_path(model)),
            "--set",
            &format!("data.files=[{files}]"),
            "--out",
            &out.display().to_string(),
        ];
        words.map(str::to_owned).to_vec()
    }

    fn view(&self) -> Vec<String> {
        let pattern = self.data.join("*.jsonl").display().to_string();
        vec!["data".to_owned(), "stats".to_owned(), pattern]
    }
}

/// Words as one types them into a shell.
fn shell_line(words: &[String]) -> String {
    let is_plain = |character: char| {
        character.is_alphanumeric() || matches!(character, '-' | '_' | '.' | '/' | '=' | ':' | ',')
    };
    let words = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(is_plain) {
            return word.clone();
        }
        format!("'{}'", word.replace('\'', r"'\''"))
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A quote within a quoted word is closed, written and opened again.
    #[test]
    fn shells_read_the_words_back() {
        let words = ["data", "stats", "out/apt/*.jsonl", "it's", ""].map(str::to_owned);
        assert_eq!(
            shell_line(&words),
            r"data stats 'out/apt/*.jsonl' 'it'\''s' ''"
        );
    }
}
