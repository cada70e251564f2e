//! The command line of the terminal chat.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use eval::engine::AnswerConfig;
use model::packed::WeightType;

use crate::engine::set;
use crate::identity::WhoAsks;

/// How to talk to a model, and which.
#[derive(Debug, Clone, Args)]
pub struct ChatArgs {
    /// Folder of the model, or its name at --url [default: the newest 3-full_sft*/final, else the
    /// newest 1-pretrain*/final, of out/ and the folders in it]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Talk to a server instead, kindling's or any other that speaks OpenAI's chat completions
    #[arg(long, value_name = "URL",
        conflicts_with_all = ["adapters", "chat_template", "weights", "mode", "device"])]
    pub url: Option<String>,
    /// Environment variable that holds the server's key
    #[arg(long, value_name = "ENV", requires = "url")]
    pub api_key: Option<String>,
    /// Answer this text and end; `-` reads it from stdin
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// System prompt of a chat model
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Who asks, for a model of 7-loyalty [default: public]
    #[arg(long, value_enum)]
    pub identity: Option<WhoAsks>,
    /// Folder of adapters in PEFT's layout, such as out/4-lora_sft/adapter; may be repeated
    #[arg(long = "adapter", value_name = "DIR")]
    pub adapters: Vec<PathBuf>,
    /// Jinja file used in the place of the model's chat template
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
    /// Earlier questions, with their answers, that a chat model is reminded of; 0 is off
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub history: usize,
    /// Most tokens of an answer, the prompt not counted [default: generation_config.json of the
    /// folder, else 512]
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Spread of the choice, 0 takes the likeliest token [default: generation_config.json, else
    /// MiniMind's 0.85]
    #[arg(long, value_name = "X")]
    pub temperature: Option<f64>,
    /// Choose from this many likeliest tokens only, 0 is off [default: generation_config.json, else
    /// MiniMind's 50]
    #[arg(long, value_name = "N")]
    pub top_k: Option<usize>,
    /// Choose from the smallest set with this probability, 1 is off [default:
    /// generation_config.json, else MiniMind's 0.85]
    #[arg(long, value_name = "X")]
    pub top_p: Option<f64>,
    /// Drop tokens below this share of the likeliest one, 0 is off [default:
    /// generation_config.json, else 0]
    #[arg(long, value_name = "X")]
    pub min_p: Option<f64>,
    /// Above 1 makes tokens of the prompt and the answer less likely [default:
    /// generation_config.json, else 1]
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f64>,
    /// Above 0 makes tokens of the answer less likely [default: generation_config.json, else 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub presence_penalty: Option<f64>,
    /// Seed of the first answer; every later one takes the next number
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Where to run: auto, cpu, cuda:N or wgpu:N
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Whether the text is a question or the beginning of a text
    #[arg(long, value_enum, default_value_t = ModeChoice::Auto)]
    pub mode: ModeChoice,
    /// Text that ends an answer and is no part of it; may be repeated
    #[arg(long = "stop", value_name = "TEXT")]
    pub stop_strings: Vec<String>,
    /// How weights are held: f32, bf16 or int8; fewer bits decode faster on the CPU
    #[arg(long, value_name = "TYPE", default_value_t)]
    pub weights: WeightType,
    /// Print tokens per second to stderr after every answer
    #[arg(long)]
    pub show_speed: bool,
}

/// What `--mode` accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeChoice {
    /// What the folder says: training.json of kindling, else whether there is a chat template
    Auto,
    /// The text is a question in the tokenizer's chat template
    Chat,
    /// The text is continued as it is
    Continue,
}

impl ChatArgs {
    /// The model's own settings with those of the command line over them.
    pub fn answer_config(&self, defaults: &AnswerConfig) -> AnswerConfig {
        let mut config = defaults.clone();
        let generate = &mut config.generate;
        set(&mut generate.max_new_tokens, self.max_new_tokens);
        set(&mut generate.temperature, self.temperature);
        set(&mut generate.top_k, self.top_k);
        set(&mut generate.top_p, self.top_p);
        set(&mut generate.min_p, self.min_p);
        set(&mut generate.repetition_penalty, self.repetition_penalty);
        set(&mut generate.presence_penalty, self.presence_penalty);
        if self.temperature.is_some() {
            // Whoever asks for a temperature wants it used, whatever the folder says.
            generate.do_sample = true;
        }
        config
            .stop_strings
            .extend(self.stop_strings.iter().cloned());
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use model::generate::GenerateConfig;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        chat: ChatArgs,
    }

    fn config_for(flags: &[&str]) -> AnswerConfig {
        let cli = Cli::try_parse_from(["chat"].iter().chain(flags)).unwrap();
        let generate = GenerateConfig {
            min_p: 0.1,
            ..GenerateConfig::greedy(512)
        };
        let defaults = AnswerConfig {
            generate,
            stop_strings: vec!["###".to_owned()],
        };
        cli.chat.answer_config(&defaults)
    }

    /// Without a flag the folder's settings stand.
    #[test]
    fn flags_go_over_the_settings_of_the_folder() {
        let config = config_for(&["--top-k", "5", "--presence-penalty", "-0.5", "--stop", "\n"]);
        let expected = GenerateConfig {
            top_k: 5,
            presence_penalty: -0.5,
            min_p: 0.1,
            ..GenerateConfig::greedy(512)
        };
        assert_eq!(config.generate, expected);
        assert_eq!(config.stop_strings, ["###", "\n"]);
    }

    /// A folder may say `do_sample: false`, as this test's does.
    #[test]
    fn a_temperature_turns_sampling_on() {
        assert!(!config_for(&[]).generate.do_sample);
        let generate = config_for(&["--temperature", "0.5"]).generate;
        assert!(generate.do_sample);
        assert_eq!(generate.temperature.to_bits(), 0.5_f64.to_bits());
    }
}
