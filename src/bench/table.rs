//! Measurements as people read them.

use std::fmt::Write as _;

use super::measurement::{Measurement, median};

/// One measurement, a figure per line.
pub(super) fn one(measurement: &Measurement) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<16}{value}");
    };
    line("parameters", measurement.params.to_string());
    line("threads", measurement.threads.to_string());
    line("dtype", measurement.dtype.clone());
    if let Some(speed) = measurement.prefill_tok_s {
        line("prompt tokens/s", format!("{speed:.0}"));
    }
    line(
        "tokens/s",
        format!(
            "{:.0} (best {:.0})",
            measurement.tok_s_median, measurement.tok_s_best
        ),
    );
    if let Some(gflop_s) = measurement.gflop_s {
        line("GFLOP/s", format!("{gflop_s:.0}"));
        if let Some(roof) = measurement.roof_gflop_s {
            let share = 100.0 * gflop_s / roof;
            line("roof GFLOP/s", format!("{roof:.0} (reached {share:.0} %)"));
        }
    }
    if let Some(peak) = measurement.peak_mib {
        line("peak memory", format!("{peak:.0} MiB"));
    }
    text
}

/// Every side's medians over its rounds, and ours as a multiple of each.
pub(super) fn side_by_side(sides: &[Vec<Measurement>]) -> String {
    let of = |side: &[Measurement], figure: fn(&Measurement) -> Option<f64>| {
        let values: Option<Vec<f64>> = side.iter().map(figure).collect();
        values.map(|values| median(&values))
    };
    let speed = |m: &Measurement| Some(m.tok_s_median);
    let prefill = |m: &Measurement| m.prefill_tok_s;
    let peak = |m: &Measurement| m.peak_mib;
    let cell = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let mut text = format!(
        "{:<36}{:>10}{:>8}{:>12}{:>8}{:>10}{:>8}\n",
        "side", "tokens/s", "ours x", "prompt t/s", "ours x", "peak MiB", "ours x"
    );
    let ours = &sides[0];
    for side in sides {
        let mut row = format!("{:<36}", side[0].peer);
        for (figure, width, digits) in [
            (speed as fn(&Measurement) -> Option<f64>, 10, 0),
            (prefill, 12, 0),
            (peak, 10, 0),
        ] {
            let (mine, theirs) = (of(ours, figure), of(side, figure));
            let ratio = mine.zip(theirs).map(|(mine, theirs)| mine / theirs);
            let _ = write!(row, "{:>width$}{:>8}", cell(theirs, digits), cell(ratio, 2));
        }
        let _ = writeln!(text, "{row}");
    }
    if let Some((gflop_s, roof)) = of(ours, |m| m.gflop_s).zip(of(ours, |m| m.roof_gflop_s)) {
        let share = 100.0 * gflop_s / roof;
        let _ = writeln!(
            text,
            "ours: {gflop_s:.0} GFLOP/s of a roof of {roof:.0} GFLOP/s, {share:.0} %"
        );
    }
    text
}
