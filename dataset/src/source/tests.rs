//! Tests of the document readers: a good file, an empty one and a broken row of each kind.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// Documents or the first error of one file, with the folder's name cut out of messages.
fn read_file(name: &str, bytes: impl AsRef<[u8]>) -> Result<Vec<String>, String> {
    read_with(name, bytes, |_| {})
}

fn read_with(
    name: &str,
    bytes: impl AsRef<[u8]>,
    change: impl Fn(&mut SourceConfig),
) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let mut config = SourceConfig::new(path.display().to_string());
    change(&mut config);
    let prefix = format!("{}/", folder.path().display());
    let message = |error: SourceError| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default()).replace(&prefix, "")
    };
    let documents = Documents::open(&[config]).map_err(message)?;
    documents
        .map(|document| Ok(document.map_err(message)?.text))
        .collect()
}

/// Blank lines, CRLF and a text of spaces are no documents; a list becomes lines.
#[test]
fn jsonl_texts_are_read() {
    let file = "{\"text\": \"一\\n二\"}\r\n\r\n{\"id\": 1, \"text\": [\"a\", \"b\"]}\n\"bare\"\n{\"text\": \" \"}";
    assert_eq!(
        read_file("a.jsonl", file).unwrap(),
        ["一\n二", "a\nb", "bare"]
    );
}

/// The line is the second, the column is serde's.
#[test]
fn a_broken_jsonl_line_is_named() {
    let error = read_file("a.jsonl", "{\"text\": \"ok\"}\n{\"text\": \"cut\n").unwrap_err();
    assert_eq!(
        error,
        "a.jsonl:2: not a valid row: EOF while parsing a string at line 1 column 13"
    );
}

/// Someone who sees which fields there are knows what to put into `field`.
#[test]
fn a_missing_field_lists_the_fields_that_are_there() {
    let error = read_file("a.jsonl", "{\"content\": \"x\", \"id\": 3}").unwrap_err();
    assert_eq!(error, "a.jsonl:1: no field `text`, found `content`, `id`");
}

/// A number is no text, neither is a list of numbers, nor a row that is a list.
#[test]
fn a_field_of_another_type_is_named() {
    let wanted = "expected a string or a list of strings";
    let error = read_file("a.jsonl", "{\"text\": 3}").unwrap_err();
    assert_eq!(
        error,
        format!("a.jsonl:1: field `text` is a number, {wanted}")
    );
    let error = read_file("a.jsonl", "{\"text\": [\"a\", null]}").unwrap_err();
    assert_eq!(
        error,
        format!("a.jsonl:1: an item of field `text` is null, {wanted}")
    );
    let error = read_file("a.jsonl", "[\"text\"]").unwrap_err();
    assert_eq!(error, format!("a.jsonl:1: the row is a list, {wanted}"));
}

/// Nothing in it, or nothing but white space: training on it cannot be meant.
#[test]
fn a_file_without_text_is_refused() {
    let wanted = "found no text, expected at least one document";
    for (name, bytes) in [
        ("a.jsonl", ""),
        ("a.jsonl", "\n\n"),
        ("a.json", "[]"),
        ("a.json", " "),
        ("a.csv", "text\n"),
        ("a.txt", ""),
        ("a.txt", " \n"),
    ] {
        assert_eq!(
            read_file(name, bytes).unwrap_err(),
            format!("{name}: {wanted}"),
            "{bytes:?}"
        );
    }
    let error = read_file("a.csv", "").unwrap_err();
    assert_eq!(error, "a.csv: the file is empty, expected at least one row");
}

/// An array over many lines, with brackets, quotes and escapes inside of strings.
#[test]
fn a_json_array_is_cut_into_its_items() {
    let file = "\u{feff}[\n {\"text\": \"a]}\\\"{[\"},\n {\n  \"text\": [\"床前\", \"明月\"]},\"s\\\\\" ]\n";
    assert_eq!(
        read_file("a.json", file).unwrap(),
        ["a]}\"{[", "床前\n明月", "s\\"]
    );
    let file = "{\"text\": \"1\"}\n{\"text\": \"2\"} {\"text\": \"3\"}";
    assert_eq!(read_file("a.json", file).unwrap(), ["1", "2", "3"]);
}

/// The line is the one in the file, whatever the layout.
#[test]
fn a_broken_json_array_is_named_by_line() {
    let file = "[\n{\"text\": \"a\"}\n{\"text\": \"b\"}]";
    let error = read_file("a.json", file).unwrap_err();
    let wanted = "expected `,` or `]` after an item of the array";
    assert_eq!(error, format!("a.json:3: not a valid row: {wanted}"));
    let error = read_file("a.json", "[\n{\"text\": \"a\"},\n").unwrap_err();
    let wanted = "the file ends inside an array, expected `]`";
    assert_eq!(error, format!("a.json:3: not a valid row: {wanted}"));
    let error = read_file("a.json", "[\"a\"]\n[\"b\"]").unwrap_err();
    assert_eq!(
        error,
        "a.json:2: not a valid row: expected nothing after the array's `]`"
    );
    let error = read_file("a.json", "[{\"text\" \"a\"}]").unwrap_err();
    assert_eq!(
        error,
        "a.json:1: not a valid row: expected `:` at line 1 column 9"
    );
}

/// A SQuAD file is one object; its fields are told.
#[test]
fn a_json_object_without_the_field_is_told_by_its_fields() {
    let error = read_file("a.json", "{\"version\": \"v1\", \"data\": [{}]}").unwrap_err();
    assert_eq!(error, "a.json:1: no field `text`, found `version`, `data`");
}

/// Commas, doubled quotes and line ends inside of quotes belong to the text.
#[test]
fn csv_texts_are_read() {
    let file = "\u{feff}id,text\r\n1,\"a, \"\"b\"\"\nc\"\r\n2,二\r\n";
    assert_eq!(read_file("a.csv", file).unwrap(), ["a, \"b\"\nc", "二"]);
}

/// Row 2 of the table is line 4 of the file, because of a line end in a quoted value.
fn packed(text: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(text).unwrap();
    packer.finish().unwrap()
}

/// The name behind `.gz` says what is in it, and messages are of what was packed.
#[test]
fn packed_files_are_read() {
    let csv = b"text\nok\n\"a\nb\"\n";
    assert_eq!(read_file("a.csv.gz", packed(csv)).unwrap(), ["ok", "a\nb"]);
    let jsonl = packed(b"{\"text\": \"ok\"}\n");
    assert_eq!(read_file("a.JSONL.gz", jsonl).unwrap(), ["ok"]);
    let error = read_file("a.csv.gz", packed(b"text\nok\n\"b\nc\xffd\"\n")).unwrap_err();
    let expected = "a.csv.gz:4: found a byte that is not UTF-8 at offset 12 of the file";
    assert_eq!(error, expected);
    let mut cut = packed(csv);
    cut.truncate(cut.len() - 6);
    let error = read_file("a.csv.gz", cut).unwrap_err();
    assert!(!error.contains("quote"), "{error}");
}

#[test]
fn a_broken_csv_row_is_named_by_line() {
    let error = read_file("a.csv", "id,text\n1,\"a\nb\"\n2,x,y\n").unwrap_err();
    assert!(error.starts_with("a.csv:4: not a valid CSV row: CSV error: record 2 (line: 4"));
    let error = read_file("a.csv", "id,content\n1,a\n").unwrap_err();
    assert_eq!(error, "a.csv:1: no field `text`, found `id`, `content`");
    let error = read_file("a.csv", b"text\nok\n\"\"\"b\nc\xffd\"\n").unwrap_err();
    assert_eq!(
        error,
        "a.csv:4: found a byte that is not UTF-8 at offset 14 of the file"
    );
}

/// A quote that is never closed must not fill the memory.
#[test]
fn an_endless_csv_value_is_refused() {
    let mut file = b"text\nok\n\"".to_vec();
    file.resize(file.len() + crate::lines::MAX_LINE_BYTES + (3 << 20), b'x');
    let error = read_file("a.csv", file).unwrap_err();
    assert!(
        error.starts_with("a.csv:3: longer than the limit of 67108864 bytes"),
        "{error}"
    );
}

/// The rest of the file would be one value; quotes in the midst of a value are letters.
#[test]
fn a_quote_that_is_never_closed_is_refused() {
    assert_eq!(
        read_file("a.csv", "text\nhello\n\"unclosed\nx\n").unwrap_err(),
        "a.csv:3: the row has a quote that is never closed"
    );
    let texts = read_file("a.csv", "text\n5\" disk\n\"a\"\"b\nc\"\n").unwrap();
    assert_eq!(texts, ["5\" disk", "a\"b\nc"]);
}

/// In all readers the offset counts from the start of the file: byte 10 here, byte 12 there.
#[test]
fn bytes_that_are_not_utf8_are_named_by_offset() {
    let wanted = "found a byte that is not UTF-8 at offset";
    let error = read_file("a.jsonl", b"{\"text\": \"\xff\"}").unwrap_err();
    assert_eq!(error, format!("a.jsonl:1: {wanted} 10 of the file"));
    let error = read_file("a.json", b"[\n{\"text\":\n\"\xff\"}]").unwrap_err();
    assert_eq!(error, format!("a.json:3: {wanted} 12 of the file"));
}

/// A separator on a line of its own parts documents; anywhere else it is text.
#[test]
fn a_separator_line_parts_plain_text() {
    let file = "a\n\nb <sep> b\n<sep>\n\nc\n <sep> \n<sep>\nd";
    let texts = read_with("a.txt", file, |config| {
        config.document_separator = "<sep>".into();
    });
    assert_eq!(texts.unwrap(), ["a\n\nb <sep> b", "c", "d"]);
}

/// Paragraphs are gathered up to the first blank line after 4,000 characters, not bytes.
#[test]
fn paragraphs_are_gathered_into_documents() {
    let paragraph = "字".repeat(1499);
    let file = format!("{paragraph}\n\n").repeat(4);
    let texts = read_file("a.txt", &file).unwrap();
    assert_eq!(texts, [[&*paragraph; 3].join("\n\n"), paragraph]);
    assert_eq!(texts.join("\n\n") + "\n\n", file);
}

/// Text without any blank line still comes in pieces, cut at line ends.
#[test]
fn text_without_blank_lines_is_cut_at_line_ends() {
    let line = "x".repeat(999);
    let file = format!("{line}\n").repeat(20);
    let texts = read_file("a.txt", &file).unwrap();
    let lengths: Vec<usize> = texts.iter().map(String::len).collect();
    assert_eq!(lengths, [15_999, 3_999]);
}

/// Names decide the order, sources the number; each document tells its source.
#[test]
fn globs_and_several_sources_are_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("b.jsonl", "\"2\""),
        ("a.jsonl", "\"1\""),
        ("x[1].txt", "3"),
        ("c.log", "no"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let path = |name: &str| folder.path().join(name).display().to_string();
    let sources = [
        SourceConfig::new(path("x[1].txt")),
        SourceConfig::new(path("*.jsonl")),
    ];
    let documents = Documents::open(&sources).unwrap();
    assert_eq!(documents.total_bytes(), 7);
    let found: Vec<_> = documents.map(|document| document.unwrap()).collect();
    let found: Vec<_> = found
        .iter()
        .map(|found| (found.source, found.text.as_str()))
        .collect();
    assert_eq!(found, [(0, "3"), (1, "1"), (1, "2")]);

    let fails = |source: SourceConfig| {
        let error = Documents::open(&[source]).err().unwrap().to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    };
    assert_eq!(
        fails(SourceConfig::new(path("*.csv"))),
        "*.csv: no file matches, expected a file or a glob such as data/*.jsonl"
    );
    assert_eq!(
        fails(SourceConfig::new(path("c.log"))),
        "c.log: unknown kind of file, expected .jsonl, .json, .csv or .txt, each also with .gz, or set \
         `format`"
    );
    assert_eq!(
        fails(SourceConfig::new("a***")),
        "a***: not a valid glob pattern"
    );
    assert_eq!(
        fails(SourceConfig {
            weight: 0.0,
            ..SourceConfig::new("a")
        }),
        "a: weight is 0, expected a number above 0"
    );
    assert_eq!(
        Documents::open(&[]).err().unwrap().to_string(),
        "no source of text is given, expected at least one path"
    );
}

/// A reader that has met an error gives nothing more: half a corpus is no corpus.
#[test]
fn reading_ends_after_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.jsonl"), "{\n\"b\"\n").unwrap();
    fs::write(folder.path().join("b.jsonl"), "\"c\"\n").unwrap();
    let source = SourceConfig::new(folder.path().join("*.jsonl").display().to_string());
    let mut documents = Documents::open(&[source]).unwrap();
    assert!(documents.next().unwrap().is_err());
    assert!(documents.next().is_none());
}
