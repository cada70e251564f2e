//! Perplexity and bits per byte from the command line.

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::Result;
use clap::Args;
use dataset::journal::Journal;
use dataset::source::{Documents, SourceConfig, TextFormat};
use eval::fingerprint::{data_fingerprint, model_fingerprint};
use eval::perplexity::{TextLoss, WindowConfig, text_loss};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{GOES_ON, ModelArgs, interrupted, progress_bar, write_json};
use crate::interrupt::stop_on_signal;
use crate::stdout::out;

/// Documents that are scored and written down together.
const GROUP: usize = 64;

/// Which text, and how it is cut.
#[derive(Debug, Clone, Args)]
pub(super) struct PerplexityArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Text files (.txt, .jsonl, .json, .csv) or patterns of them, each a source of its own
    #[arg(long, value_name = "PATH", required = true)]
    data: Vec<String>,
    /// Field of a row that holds the text
    #[arg(long, default_value = "text")]
    field: String,
    /// Tokens that the model reads at once [default: its max_position_embeddings, at most 1024]
    #[arg(long, value_name = "TOKENS")]
    window: Option<usize>,
    /// Tokens that a window adds to the one before [default: half a window]
    #[arg(long, value_name = "TOKENS")]
    stride: Option<usize>,
    /// Documents read of each source at most; 0 reads all
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_documents: usize,
}

/// Scores of a group of documents.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct GroupLoss {
    /// Position of the source.
    source: usize,
    #[serde(flatten)]
    loss: TextLoss,
}

pub(super) fn run(args: &PerplexityArgs) -> Result<ExitCode> {
    let engine = args.model.load()?;
    let context = engine.model.config().max_position_embeddings;
    let window = args.window.unwrap_or(context.min(1024));
    let stride = args.stride.unwrap_or(window.div_ceil(2));
    let config = WindowConfig { window, stride };
    config.validate(&engine.model)?;
    let groups = groups(args)?;
    let settings = json!({
        "kindling": env!("CARGO_PKG_VERSION"),
        "data": args.data,
        "field": args.field,
        "window": window,
        "stride": stride,
        "max_documents": args.max_documents,
        "model_fingerprint": model_fingerprint(&args.model.model)?,
        "data_fingerprint": data_fingerprint(&groups),
    });
    let out = args.model.out_dir("perplexity")?;
    let mut journal: Journal<GroupLoss> =
        Journal::open(&out.join("groups.jsonl"), &settings, |found| found)?;
    let stop = stop_on_signal()?;
    let bar = progress_bar("perplexity", groups.len(), journal.records().len());
    for (source, texts) in groups.iter().skip(journal.records().len()) {
        if stop.load(Ordering::SeqCst) {
            return Ok(interrupted(&bar, GOES_ON));
        }
        let mut loss = text_loss(&engine.model, &engine.tokenizer, texts, config)?;
        // Short in the file, and the same when read back.
        loss.nll = (loss.nll * 1e6).round() / 1e6;
        let source = *source;
        journal.append(vec![GroupLoss { source, loss }])?;
        bar.inc(1);
    }
    bar.finish_and_clear();

    let mut losses = vec![TextLoss::default(); args.data.len()];
    let mut whole = TextLoss::default();
    for group in journal.records() {
        losses[group.source].add(&group.loss);
        whole.add(&group.loss);
    }
    out!(
        "{:>12} {:>10} {:>12}  source",
        "bits/byte",
        "loss",
        "perplexity"
    )?;
    let mut rows = Vec::new();
    let names = args.data.iter().map(String::as_str).chain(["all"]);
    for (name, loss) in names.zip(losses.iter().chain([&whole])) {
        let (bits, mean, perplexity) = (loss.bits_per_byte(), loss.loss(), loss.perplexity());
        out!("{bits:>12.4} {mean:>10.4} {perplexity:>12.2}  {name}")?;
        rows.push(json!({
            "source": name,
            "documents": loss.num_documents,
            "tokens": loss.num_tokens,
            "bytes": loss.num_bytes,
            "bits_per_byte": bits,
            "loss": mean,
            "perplexity": perplexity,
        }));
    }
    write_json(
        &out.join("perplexity.json"),
        &json!({ "settings": settings, "sources": rows }),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The documents in groups, each with the position of its source.
fn groups(args: &PerplexityArgs) -> Result<Vec<(usize, Vec<String>)>> {
    let mut groups: Vec<(usize, Vec<String>)> = Vec::new();
    for (source, path) in args.data.iter().enumerate() {
        let config = SourceConfig {
            path: path.clone(),
            field: args.field.clone(),
            weight: 1.0,
            format: TextFormat::Auto,
            document_separator: String::new(),
        };
        let most = match args.max_documents {
            0 => usize::MAX,
            most => most,
        };
        for document in Documents::open(&[config])?.take(most) {
            let text = document?.text;
            match groups.last_mut() {
                Some((last, texts)) if *last == source && texts.len() < GROUP => texts.push(text),
                _ => groups.push((source, vec![text])),
            }
        }
    }
    Ok(groups)
}
