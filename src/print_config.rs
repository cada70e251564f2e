//! A resolved config as the TOML a user would write, with each field's sentence above it.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::Serialize;
use toml::{Table, Value};

/// Renders `config` with the sentence that `doc` has for each dotted path (`train.seed`) above it.
///
/// # Errors
///
/// The config holds what TOML cannot express.
pub fn render_config<T: Serialize>(
    config: &T,
    doc: impl Fn(&str) -> Option<&'static str>,
) -> Result<String> {
    let table = Table::try_from(config).context("the config cannot be written as TOML")?;
    let mut text = String::new();
    render_table(&mut text, &table, "", &doc);
    Ok(text.trim_start().to_owned())
}

fn render_table(
    text: &mut String,
    table: &Table,
    path: &str,
    doc: &impl Fn(&str) -> Option<&'static str>,
) {
    let full = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    let (sections, fields): (Vec<_>, Vec<_>) = table
        .iter()
        .partition(|(_, value)| matches!(value, Value::Table(_)));
    for (key, value) in fields {
        comment(text, doc(&full(key)));
        let _ = writeln!(text, "{key} = {value}");
    }
    for (key, value) in sections {
        let Value::Table(inner) = value else { continue };
        text.push('\n');
        comment(text, doc(&full(key)));
        let _ = writeln!(text, "[{}]", full(key));
        render_table(text, inner, &full(key), doc);
    }
}

fn comment(text: &mut String, doc: Option<&str>) {
    for line in doc.unwrap_or_default().lines() {
        let _ = writeln!(text, "# {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_stands_under_its_sentence() {
        let table: Table = "seed = 1\nfiles = [{ path = \"a\" }]\n[train]\nlr = 0.5\n"
            .parse()
            .unwrap();
        let doc = |path: &str| match path {
            "seed" => Some("Seed of the run."),
            "train" => Some("How it is trained."),
            "train.lr" => Some("Learning rate."),
            _ => None,
        };
        let text = render_config(&table, doc).unwrap();
        let expected = "files = [{ path = \"a\" }]\n# Seed of the run.\nseed = 1\n\n\
                        # How it is trained.\n[train]\n# Learning rate.\nlr = 0.5\n";
        assert_eq!(text, expected);
        assert_eq!(text.parse::<Table>().unwrap(), table);
    }
}
