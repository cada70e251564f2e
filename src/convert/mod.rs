//! A model in another format: Hugging Face's, MiniMind v1's, GGUF for llama.cpp, or Ollama's.

mod gguf_tokenizer;
mod ollama;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use dataset::say;
use eval::engine::Engine;
use model::CausalLm;
use model::gguf::{GgufType, write_gguf};
use model::hf::{FloatType, save_minimind_v1, save_model_as};

/// What to convert, and into what.
#[derive(Debug, Clone, Args)]
pub struct ConvertArgs {
    /// Folder of the model, with Hugging Face's or MiniMind v1's names, or a weight file: MiniMind's
    /// .pth or llama2.c's .bin
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,
    /// Tokenizer of a weight file: its folder, tokenizer.json or llama2.c's tokenizer.bin
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// Field of config.json that a weight file does not say, such as num_attention_heads=8; may be
    /// repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Folder of adapters in PEFT's layout, added to the weights; may be repeated
    #[arg(long = "adapter", value_name = "DIR")]
    pub adapters: Vec<PathBuf>,
    /// Format to write
    #[arg(long, value_enum, default_value_t = Format::Hf)]
    pub to: Format,
    /// How numbers are held: f32, f16 or bf16, in GGUF also q8_0 or q4_0 [default: f32, in GGUF f16]
    #[arg(long = "type", value_name = "TYPE")]
    pub number_type: Option<GgufType>,
    /// Folder to write, or the file for GGUF; must not exist
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
}

/// Formats that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A folder that transformers loads
    Hf,
    /// A folder with MiniMind v1's names, f32
    MinimindV1,
    /// One file that llama.cpp loads
    Gguf,
    /// A folder for `ollama create`: GGUF and a Modelfile
    Ollama,
}

/// Converts a model.
///
/// # Errors
///
/// A model that is not there or broken, one that the format cannot hold, or an output that exists
/// or cannot be written.
pub fn run(args: &ConvertArgs) -> Result<()> {
    let out = &args.out;
    ensure!(!out.exists(), "--out {}: exists already", out.display());
    ensure!(
        args.model.exists(),
        "--model {}: no such file or folder",
        args.model.display()
    );
    let engine = source::load(args)?;
    let partial = partial_of(out);
    remove(&partial)?;
    let written = write(args, &engine, &partial).and_then(|()| {
        fs::rename(&partial, out).with_context(|| format!("{}: cannot be made", out.display()))
    });
    if let Err(error) = written {
        // What it says counts, not what could not be tidied up.
        let _ = remove(&partial);
        return Err(error);
    }
    let num_bytes = size_of(out).with_context(|| format!("{}: cannot be read", out.display()))?;
    say!("{}: {:.1} MB", out.display(), num_bytes as f64 / 1e6);
    Ok(())
}

/// Where the output is written until it is whole.
fn partial_of(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    out.with_file_name(name)
}

/// Removes a file or a folder, if there is one.
fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else if path.exists() {
        fs::remove_file(path)
    } else {
        Ok(())
    };
    removed.with_context(|| format!("{}: cannot be removed", path.display()))
}

/// Writes the file or the folder.
fn write(args: &ConvertArgs, engine: &Engine, out: &Path) -> Result<()> {
    let gguf_type = args.number_type.unwrap_or(GgufType::F16);
    match args.to {
        Format::Gguf => save_gguf(args, engine, gguf_type, out)?,
        Format::Ollama => {
            let modelfile = ollama::modelfile(&engine.tokenizer, engine.model.config())?;
            create_dir(out)?;
            save_gguf(args, engine, gguf_type, &out.join(ollama::GGUF_FILE))?;
            let path = out.join(ollama::MODELFILE);
            fs::write(&path, modelfile)
                .with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        Format::Hf | Format::MinimindV1 => {
            save_weights(args, &engine.model, out)?;
            engine.tokenizer.save(out)?;
            if let Some(record) = &engine.record {
                record.save(out)?;
            }
        }
    }
    Ok(())
}

fn save_weights(args: &ConvertArgs, model: &CausalLm, out: &Path) -> Result<()> {
    let number_type = args.number_type.unwrap_or(GgufType::F32);
    let float_type = match number_type {
        GgufType::F32 => FloatType::F32,
        GgufType::F16 => FloatType::F16,
        GgufType::Bf16 => FloatType::Bf16,
        GgufType::Q8_0 | GgufType::Q4_0 => {
            bail!("--type {number_type}: expected f32, f16 or bf16 outside GGUF")
        }
    };
    if args.to == Format::Hf {
        save_model_as(model, out, float_type)?;
    } else {
        ensure!(
            float_type == FloatType::F32,
            "--type {number_type}: expected f32 for MiniMind v1"
        );
        save_minimind_v1(model, out)?;
    }
    Ok(())
}

fn save_gguf(args: &ConvertArgs, engine: &Engine, gguf_type: GgufType, path: &Path) -> Result<()> {
    let name = name_of(&args.model);
    let metadata = gguf_tokenizer::metadata(&name, &engine.tokenizer, engine.model.config())?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        create_dir(dir)?;
    }
    write_gguf(&engine.model, gguf_type, &metadata, path)?;
    Ok(())
}

fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("{}: cannot be written", dir.display()))
}

/// What the model is called: its folder's name, `final` being that of every run's.
fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let run = path.parent().and_then(Path::file_name);
    match run {
        Some(run) if stem == "final" => run.to_string_lossy().into_owned(),
        _ => stem.into_owned(),
    }
}

fn size_of(path: &Path) -> Result<u64> {
    if !path.is_dir() {
        return Ok(fs::metadata(path)?.len());
    }
    let mut num_bytes = 0;
    for entry in fs::read_dir(path)? {
        num_bytes += entry?.metadata()?.len();
    }
    Ok(num_bytes)
}
