//! A report of two small runs: what is in it, and that a browser draws its curves.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use eval::report::{Page, RunRecord, render_html, render_markdown};
use serde_json::json;

/// A falling loss over 60 steps, two validations, a sample and a broken number.
fn write_run(dir: &Path, first_loss: f64) {
    fs::create_dir_all(dir).unwrap();
    let mut lines = String::new();
    for step in 1..=60 {
        let loss = if step == 30 {
            json!(null)
        } else {
            json!(first_loss / f64::from(step).sqrt())
        };
        let record = json!({"kind": "step", "step": step, "loss": loss, "lr": 1e-3, "tokens": 100,
            "grad_norm": 1.0, "total_tokens": 100 * step, "secs": 0.5, "skipped": 0});
        let _ = writeln!(lines, "{record}");
        let experts = json!({"kind": "experts", "step": step, "dropped": 0, "layers": [
            {"layer": 0, "loads": [25, 75]}, {"layer": 1, "loads": [50, 50]}]});
        let _ = writeln!(lines, "{experts}");
    }
    for step in [30, 60] {
        let record =
            json!({"kind": "validation", "step": step, "loss": 2.5, "bits_per_byte": 1.25});
        let _ = writeln!(lines, "{record}");
        let exam = json!({"kind": "exam", "step": step, "exam": "C-Eval", "num_right": step / 30,
            "num_total": 4, "accuracy": f64::from(step) / 120.0, "low": 0.0, "high": 0.9});
        let _ = writeln!(lines, "{exam}");
    }
    let sample = json!({"kind": "sample", "step": 60, "prompt": "1+1=", "text": "<b>2 & 3</b>"});
    let note = json!({"kind": "note", "step": 60, "text": "done"});
    let _ = write!(
        lines,
        "{sample}\n{note}\n{{\"kind\": \"sample\", \"text\": \""
    );
    // The line that is being written ends within a character.
    fs::write(
        dir.join("metrics.jsonl"),
        [lines.as_bytes(), b"\xe4\xbd"].concat(),
    )
    .unwrap();
    fs::write(dir.join("config.toml"), "seed = 42\n").unwrap();
    let results = dir.join("eval/perplexity");
    fs::create_dir_all(&results).unwrap();
    // A text of one token has nothing to predict, and no number that JSON can hold.
    let sources = json!({"sources": [{"source": "books.txt", "bits_per_byte": 1.5},
        {"source": "dot.txt", "bits_per_byte": null}]});
    fs::write(results.join("perplexity.json"), sources.to_string()).unwrap();
}

fn report(dir: &Path) -> (String, String) {
    let runs = [("first", 8.0), ("second", 6.0)].map(|(name, loss)| {
        let run = dir.join(name);
        write_run(&run, loss);
        RunRecord::read(&run).unwrap()
    });
    let page = Page::new(&runs);
    (render_html(&page).unwrap(), render_markdown(&page).unwrap())
}

/// By hand: 6,000 tokens in 30 seconds, and the last loss of the first run is `8 / sqrt(60)`.
#[test]
fn a_report_shows_two_runs_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let (html, markdown) = report(dir.path());
    for part in [
        "| tokens/s | 200 | 200 |",
        "| training loss of the last step | 1.0328 | 0.7746 |",
        "| bits per byte at the end | 1.2500 | 1.2500 |",
        "| books.txt | 1.5000 | 1.5000 |",
        "| dot.txt |  |  |",
        "- second, step 60: <b>2 & 3</b>",
        "seed = 42",
    ] {
        assert!(markdown.contains(part), "{part}: {markdown}");
    }
    assert!(
        html.contains("&lt;b&gt;2 &amp; 3&lt;"),
        "texts are escaped: {html}"
    );
    for chart in [
        "training loss",
        "held-out bits per byte",
        "learning rate",
        "expert loads of first, share of the tokens",
        "C-Eval, share of right answers",
    ] {
        assert!(html.contains(chart), "{chart}");
    }
    for reference in ["http://", "https://", "<script", "src="] {
        assert!(!html.contains(reference), "self-contained: {reference}");
    }
}

#[test]
fn a_folder_without_a_run_is_named() {
    let error = RunRecord::read(Path::new("no/run")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no/run/metrics.jsonl: cannot be read, expected the folder of a training run"
    );
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("metrics.jsonl"), "{\"kind\": \"step\"}\n").unwrap();
    let error = RunRecord::read(dir.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("metrics.jsonl:1: not a record of a run"),
        "{error}"
    );
}

fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let path = std::env::var_os("PATH")?;
    let mut files = std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
    files.find(|file| file.is_file())
}

/// The first two colours of the page, as a screenshot of a light page has them.
const COLORS: [[u8; 3]; 2] = [[0x25, 0x63, 0xeb], [0xea, 0x58, 0x0c]];
/// Pixels of a colour that a handful of curves, four wide, have at least; the legend has 300.
const MIN_PIXELS: usize = 3000;

/// A screenshot by a headless browser has the curves of both runs in their colours.
#[test]
fn a_browser_draws_the_curves() {
    let Some(browser) = browser() else {
        eprintln!("skipped: there is no Chromium to look at the page with");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (html, _) = report(dir.path());
    let (page, picture) = (dir.path().join("report.html"), dir.path().join("page.png"));
    fs::write(&page, html).unwrap();
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            // Lines of one or two pixels are all edge and have no pixel of their own colour.
            "--force-device-scale-factor=2",
        ])
        .arg("--window-size=1400,1800")
        .arg(format!(
            "--user-data-dir={}",
            dir.path().join("profile").display()
        ))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(
        picture.exists(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(&picture).unwrap()))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let num_channels = info.color_type.samples();
    for color in COLORS {
        let is_color = |pixel: &&[u8]| pixel[..3] == color;
        let found = pixels.chunks(num_channels).filter(is_color).count();
        assert!(found >= MIN_PIXELS, "{found} pixels of {color:?}");
    }
}
