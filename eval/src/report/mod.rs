//! A run, or several side by side, as one self-contained page: HTML for people, Markdown for
//! repositories.

mod chart;
mod curves;
mod page;
mod record;

use std::io;
use std::path::PathBuf;

pub use page::{Page, render_html, render_markdown};
pub use record::RunRecord;

/// Why a report cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file of the run cannot be read.
    #[error("{}: cannot be read, expected the folder of a training run", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of the metrics or a result is not what a run or an evaluation writes.
    #[error("{}:{line}: not a record of a run", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What was expected.
        source: serde_json::Error,
    },
    /// The page cannot be put together.
    #[error("the report's template cannot be rendered")]
    Template(#[from] minijinja::Error),
}
