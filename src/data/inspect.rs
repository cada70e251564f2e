//! Conversations as their tokens, so that anyone can see what is trained.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use dataset::StreamDecoder;
use dataset::Tokenizer;
use dataset::cache::DocumentTokens;
use dataset::conversations::RowEncoder;
use dataset::rows::RowReader;
use dataset::source::matching_files;

use super::{Reading, ReadingArgs, unless_broken_pipe};

/// Which rows to show, and how.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// File of conversations (.jsonl, .json, .csv, .gz, .parquet), or a pattern such as
    /// data/*.jsonl
    #[arg(value_name = "FILE")]
    file: String,
    /// Rows to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    rows: usize,
    /// Rows to pass over first
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: usize,
    /// One line per token: place, id, whether it is trained, text
    #[arg(long)]
    table: bool,
    /// Colours, or brackets around what is trained
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    color: Color,
    #[command(flatten)]
    reading: ReadingArgs,
}

/// Whether to write colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never: what is trained stands between ⟦ and ⟧
    Never,
}

pub(super) fn run(args: &InspectArgs) -> Result<ExitCode> {
    let reading = Reading::new(&args.reading)?;
    let colored = match args.color {
        Color::Auto => io::stdout().is_terminal(),
        Color::Always => true,
        Color::Never => false,
    };
    let mut num_shown = 0;
    for path in matching_files(&args.file)? {
        let mut text = String::new();
        num_shown += show_file(&path, args, &reading, colored, &mut text)?;
        io::stdout()
            .write_all(text.as_bytes())
            .or_else(unless_broken_pipe)?;
    }
    if num_shown == 0 {
        bail!("{}: found no row to show", args.file);
    }
    Ok(ExitCode::SUCCESS)
}

fn show_file(
    path: &Path,
    args: &InspectArgs,
    reading: &Reading,
    colored: bool,
    text: &mut String,
) -> Result<usize> {
    let encoder = reading.encoder()?;
    let reader = RowReader::open(path, args.reading.format)?;
    let format = reader.format();
    let mut num_shown = 0;
    for (index, row) in reader.enumerate().skip(args.skip).take(args.rows) {
        let row = row?;
        let place = format!("{}:{}", path.display(), row.line);
        num_shown += 1;
        let document = match encoder.encode_row(row, index as u64) {
            Ok(document) => document,
            Err(fault) => {
                let _ = writeln!(text, "{place}: {}\n", fault.full_text());
                continue;
            }
        };
        let pieces = pieces(&reading.tokenizer, &document, reading.seq_len);
        let num_tokens = document.ids.len();
        let num_trained = pieces
            .iter()
            .filter(|piece| piece.fate == Fate::Trained)
            .map(|piece| piece.ids.len())
            .sum::<usize>();
        let _ = writeln!(
            text,
            "{place}: {format}, {num_tokens} tokens, {num_trained} of them trained"
        );
        if args.table {
            write_table(&pieces, text);
        } else {
            write_text(&pieces, colored, text);
        }
        text.push('\n');
    }
    Ok(num_shown)
}

/// What becomes of a token in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Read,
    Trained,
    Cut,
}

/// The fewest tokens that make whole characters.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    start: usize,
    ids: Vec<u32>,
    text: String,
    fate: Fate,
}

fn pieces(tokenizer: &Tokenizer, document: &DocumentTokens, seq_len: usize) -> Vec<Piece> {
    let fate = |place: usize| match &document.trained {
        _ if place >= seq_len => Fate::Cut,
        Some(trained) if !trained[place] => Fate::Read,
        _ => Fate::Trained,
    };
    let mut decoder = StreamDecoder::new(tokenizer, false);
    let mut pieces = Vec::new();
    let mut ids = Vec::new();
    for (place, &id) in document.ids.iter().enumerate() {
        ids.push(id);
        if let Some(text) = decoder.push(id) {
            pieces.push(Piece {
                start: place + 1 - ids.len(),
                ids: std::mem::take(&mut ids),
                text,
                fate: fate(place),
            });
        }
    }
    let rest = decoder.finish();
    if !ids.is_empty() {
        let start = document.ids.len() - ids.len();
        pieces.push(Piece {
            start,
            ids,
            text: rest,
            fate: fate(start),
        });
    }
    pieces
}

/// Tokens one after the other: shades of green are trained, grey is read, struck out is cut off;
/// two shades tell neighbours apart.
fn write_text(pieces: &[Piece], colored: bool, text: &mut String) {
    if colored {
        for (index, piece) in pieces.iter().enumerate() {
            let style = match (piece.fate, index % 2) {
                (Fate::Trained, 0) => "32",
                (Fate::Trained, _) => "92",
                (Fate::Read, 0) => "90",
                (Fate::Read, _) => "37",
                (Fate::Cut, _) => "9;90",
            };
            let _ = write!(text, "\u{1b}[{style}m{}\u{1b}[0m", piece.text);
        }
        text.push('\n');
        return;
    }
    for group in pieces.chunk_by(|a, b| a.fate == b.fate) {
        let (open, close) = match group[0].fate {
            Fate::Read => ("", ""),
            Fate::Trained => ("⟦", "⟧"),
            Fate::Cut => ("⟪", "⟫"),
        };
        text.push_str(open);
        for piece in group {
            text.push_str(&piece.text);
        }
        text.push_str(close);
    }
    text.push('\n');
}

fn write_table(pieces: &[Piece], text: &mut String) {
    for piece in pieces {
        let fate = match piece.fate {
            Fate::Read => "-",
            Fate::Trained => "trained",
            Fate::Cut => "cut",
        };
        let ids: Vec<String> = piece.ids.iter().map(u32::to_string).collect();
        let (start, ids, token) = (piece.start, ids.join(" "), &piece.text);
        let _ = writeln!(text, "{start:>6}  {ids:<14}  {fate:<8}{token:?}");
    }
}
