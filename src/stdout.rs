//! Results, on standard output.

use std::fmt::Arguments;
use std::io::{self, Write};

use anyhow::{Context, Result};

/// Writes to standard output; that somebody has read enough is no error.
///
/// # Errors
///
/// A full disk, for one, where `println!` would panic.
pub(crate) fn print(text: Arguments<'_>) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output cannot be written"),
    }
}

/// Writes a line to standard output, or returns why it cannot.
macro_rules! out {
    ($($part:tt)*) => {
        $crate::stdout::print(format_args!("{}\n", format_args!($($part)*)))
    };
}

pub(crate) use out;
