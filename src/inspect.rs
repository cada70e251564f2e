//! `kindling inspect`: the tensors of a weight file, with shapes, types and hashes.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use model::gguf::GgufFile;
use model::listing::list_tensors;
use sha2::{Digest, Sha256};

/// Digits of a tensor's hash that are shown.
const NUM_DIGITS: usize = 16;

/// What to look into.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// Model folder, or a file: .safetensors, .gguf, .pth or llama2.c's .bin
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

/// Prints a line per tensor and the sums; of a GGUF file its metadata first.
///
/// # Errors
///
/// A file that is not there, broken, or of another format.
pub fn run(args: &InspectArgs) -> Result<()> {
    ensure!(
        args.path.exists(),
        "{}: no such file or folder",
        args.path.display()
    );
    let mut text = String::new();
    if args.path.extension().is_some_and(|ending| ending == "gguf") {
        for (key, value) in &GgufFile::read(&args.path)?.metadata {
            let first_line = value.lines().next().unwrap_or_default();
            let more = if value.contains('\n') { " .." } else { "" };
            let _ = writeln!(text, "{key} = {first_line}{more}");
        }
        text.push('\n');
    }
    let (mut num_tensors, mut num_values, mut num_bytes) = (0, 0, 0);
    list_tensors(&args.path, |tensor| {
        num_tensors += 1;
        num_values += tensor.shape.iter().product::<usize>();
        num_bytes += tensor.bytes.len();
        let hash = Sha256::digest(&tensor.bytes)
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let _ = writeln!(
            text,
            "{:<52} {:<5} {:<18} {}",
            tensor.name,
            tensor.dtype,
            format!("{:?}", tensor.shape),
            &hash[..NUM_DIGITS]
        );
    })?;
    let _ = writeln!(
        text,
        "{num_tensors} tensors, {num_values} numbers, {num_bytes} bytes; the last column is SHA-256"
    );
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("stdout cannot be written"),
    }
}
