//! Reports of runs from the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use eval::report::{Page, RunRecord, render_html, render_markdown};

use crate::stdout::out;

/// Which runs.
#[derive(Debug, Clone, Args)]
pub(super) struct ReportArgs {
    /// Folders of runs; several are shown side by side
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Folder for report.html and report.md [default: the run's own, or out/ for several]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &ReportArgs) -> Result<ExitCode> {
    let runs = args.runs.iter().map(|dir| RunRecord::read(dir));
    let runs: Vec<RunRecord> = runs.collect::<Result<_, _>>()?;
    let out = match (&args.out, args.runs.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [run]) => run.clone(),
        (None, _) => PathBuf::from("out"),
    };
    std::fs::create_dir_all(&out).with_context(|| format!("{}: cannot be made", out.display()))?;
    let page = Page::new(&runs);
    let files = [
        ("report.html", render_html(&page)?),
        ("report.md", render_markdown(&page)?),
    ];
    for (name, text) in files {
        let path = out.join(name);
        std::fs::write(&path, text)
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        out!("{}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
