//! `tojson` as Python writes it: templates were made with Hugging Face's filter, which keeps
//! non-ASCII letters and puts a space after `,` and `:`.

use std::io::{self, Write};

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

/// The filter; `indent` is a number of spaces.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a filter takes its options by value"
)]
pub(super) fn python_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut json = Vec::new();
    let written = match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent);
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut json, formatter))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut json, PythonFormatter)),
    };
    written.map_err(|error| {
        Error::new(
            ErrorKind::InvalidOperation,
            "cannot write the value as JSON",
        )
        .with_source(error)
    })?;
    Ok(Value::from(
        String::from_utf8(json).expect("the JSON writer writes UTF-8"),
    ))
}

struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, context};

    use super::*;

    /// Expected text from Python's `json.dumps(value, ensure_ascii=False)`, with and without indent.
    #[test]
    fn json_is_written_as_python_writes_it() {
        let mut environment = Environment::new();
        environment.add_filter("tojson", python_json);
        let value =
            serde_json::json!({"b": [1, 2.5, null, true], "a": {"名": "<x> & 'y' \"\n"}, "e": []});
        let render = |template| environment.render_str(template, context!(value)).unwrap();
        assert_eq!(
            render("{{ value | tojson }}"),
            r#"{"b": [1, 2.5, null, true], "a": {"名": "<x> & 'y' \"\n"}, "e": []}"#
        );
        assert_eq!(
            render("{{ value.b | tojson(indent=1) }}"),
            "[\n 1,\n 2.5,\n null,\n true\n]"
        );
    }
}
