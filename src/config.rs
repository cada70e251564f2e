//! Config flow, first half: a TOML file and `--set` overrides become one checked struct.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Reads a stage's config from a TOML file and applies `--set key=value` overrides in order.
///
/// # Errors
///
/// An unreadable file, TOML that does not parse, an unknown key (with the nearest known one), a
/// missing key or a value of the wrong type; each names the file and line or the override.
pub fn load_config<T: DeserializeOwned>(path: &Path, overrides: &[String]) -> Result<T> {
    parse_config(&read(path)?, &path.display().to_string(), overrides)
}

/// [`load_config`] on a text; `name` stands for the file in messages.
///
/// # Errors
///
/// As [`load_config`].
pub fn parse_config<T: DeserializeOwned>(
    text: &str,
    name: &str,
    overrides: &[String],
) -> Result<T> {
    let table = overridden(text, name, overrides)?;
    let Err(error) = T::deserialize(Value::Table(table.clone())) else {
        return T::deserialize(Value::Table(table)).map_err(Into::into);
    };
    // A value knows no line. Reading the text itself does, and is wrong in the same way unless an
    // override brought the mistake or mended a missing key.
    match toml::from_str::<T>(text) {
        Err(located) if located.message() == error.message() => {
            bail!("{name}:{}", describe(&located, text))
        }
        _ => bail!(
            "{}: {}",
            culprit::<T>(text, overrides),
            with_suggestion(error.message())
        ),
    }
}

/// The value of one field, such as `train.seed`, before its type is looked at.
///
/// # Errors
///
/// An unreadable file, or TOML that does not parse.
pub(crate) fn value_of(path: &Path, overrides: &[String], key: &str) -> Result<Option<Value>> {
    let text = read(path)?;
    let table = overridden(&text, &path.display().to_string(), overrides)?;
    let mut value = Value::Table(table);
    for part in key.split('.') {
        let Some(inner) = value.get(part) else {
            return Ok(None);
        };
        value = inner.clone();
    }
    Ok(Some(value))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("config {} cannot be read", path.display()))
}

/// What a text says, with the overrides applied.
fn overridden(text: &str, name: &str, overrides: &[String]) -> Result<Table> {
    let mut table: Table = text
        .parse()
        .map_err(|error| anyhow!("{name}:{}", describe(&error, text)))?;
    for setting in overrides {
        apply_override(&mut table, setting)?;
    }
    Ok(table)
}

/// A path as a TOML string, whatever characters it has.
pub(crate) fn toml_path(path: &Path) -> Value {
    Value::String(path.display().to_string())
}

/// The override after which the config no longer reads as `T`.
fn culprit<T: DeserializeOwned>(text: &str, overrides: &[String]) -> String {
    let mut table: Table = text.parse().unwrap_or_default();
    let was_good = T::deserialize(Value::Table(table.clone())).is_ok();
    for setting in overrides {
        let known = apply_override(&mut table, setting).is_ok();
        if was_good && known && T::deserialize(Value::Table(table.clone())).is_err() {
            return format!("--set {setting}");
        }
    }
    "config".to_owned()
}

fn apply_override(table: &mut Table, setting: &str) -> Result<()> {
    let (key, value) = parse_setting(setting)?;
    let mut path: Vec<&str> = key.split('.').collect();
    let last = path.pop().filter(|last| !last.is_empty());
    let last = last.with_context(|| format!("--set {setting}: the key is empty"))?;
    let mut inner = table;
    for part in path {
        let entry = inner
            .entry(part)
            .or_insert_with(|| Value::Table(Table::new()));
        inner = entry
            .as_table_mut()
            .with_context(|| format!("--set {setting}: `{part}` is a value, not a section"))?;
    }
    inner.insert(last.to_owned(), value);
    Ok(())
}

/// The two sides of `key=value`.
pub(crate) fn parse_setting(setting: &str) -> Result<(String, Value)> {
    let (key, value) = setting
        .split_once('=')
        .with_context(|| format!("--set {setting}: expected KEY=VALUE"))?;
    Ok((key.trim().to_owned(), parse_value(value.trim())))
}

/// A value as TOML would read it; what TOML cannot read is taken as the text itself, so that
/// `--set model.from=out/1-pretrain/final` needs no quotes.
fn parse_value(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>();
    let value = parsed.ok().and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// `line:column: message (did you mean ..)` of an error in `text`.
fn describe(error: &toml::de::Error, text: &str) -> String {
    let message = with_suggestion(error.message());
    let Some(span) = error.span() else {
        return message;
    };
    let before = text.get(..span.start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    format!("{line}:{column}: {message}")
}

/// Adds the nearest known key to serde's `unknown field` message.
fn with_suggestion(message: &str) -> String {
    let message = message.trim_end();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let nearest = message
        .starts_with("unknown field")
        .then(|| quoted.next())
        .flatten();
    let nearest = nearest.and_then(|unknown| {
        let scored = quoted.map(|known| (strsim::damerau_levenshtein(unknown, known), known));
        let (distance, known) = scored.min_by_key(|&(distance, _)| distance)?;
        (distance <= 1 + unknown.len() / 3).then_some(known)
    });
    match nearest {
        Some(known) => format!("{message}; did you mean `{known}`?"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Stage {
        out: String,
        train: Section,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Section {
        seed: u64,
        lr: f64,
    }

    const TEXT: &str = "out = \"a\"\n[train]\nseed = 1\nlr = 0.1\n";

    fn parse(text: &str, overrides: &[&str]) -> Result<Stage> {
        let overrides: Vec<String> = overrides.iter().map(|&s| s.to_owned()).collect();
        parse_config(text, "c.toml", &overrides)
    }

    #[test]
    fn overrides_win_over_the_file_and_need_no_quotes() {
        let stage = parse(TEXT, &["train.seed=7", "out=out/run 1", "train.lr=3e-4"]).unwrap();
        let train = Section { seed: 7, lr: 3e-4 };
        assert_eq!(
            stage,
            Stage {
                out: "out/run 1".to_owned(),
                train
            }
        );
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_known_one() {
        let error = parse(&TEXT.replace("seed", "sede"), &[])
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "c.toml:3:1: unknown field `sede`, expected `seed` or `lr`; did you mean `seed`?"
        );
    }

    #[test]
    fn an_unknown_override_is_named() {
        let error = parse(TEXT, &["train.seed=2", "train.lrr=1"])
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "--set train.lrr=1: unknown field `lrr`, expected `seed` or `lr`; did you mean `lr`?"
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_line() {
        let error = parse(&TEXT.replace("= 1", "= \"one\""), &[])
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "c.toml:3:8: invalid type: string \"one\", expected u64"
        );
    }

    #[test]
    fn a_missing_key_is_named_and_an_override_can_bring_it() {
        let text = "out = \"a\"\n[train]\nseed = 1\n";
        let error = parse(text, &[]).unwrap_err().to_string();
        assert!(error.contains("missing field `lr`"), "{error}");
        assert!(parse(text, &["train.lr=1.0"]).is_ok());
    }

    #[test]
    fn an_override_without_a_value_says_the_form() {
        let error = parse(TEXT, &["train.seed"]).unwrap_err().to_string();
        assert_eq!(error, "--set train.seed: expected KEY=VALUE");
    }

    #[test]
    fn broken_toml_names_its_line() {
        let error = parse("out = \n", &[]).unwrap_err().to_string();
        assert!(error.starts_with("c.toml:1:"), "{error}");
    }
}
