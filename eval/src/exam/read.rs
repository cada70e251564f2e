//! Questions of a CSV file: C-Eval's columns, CMMLU's, MMLU's without a header.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use csv::{ReaderBuilder, StringRecord};

use super::question::{LETTERS, Question};

/// Why a file of questions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QuestionFileError {
    /// The operating system refused to read it.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// File that was being read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are not text.
    #[error("{}: found a byte that is not UTF-8 at offset {offset}", path.display())]
    NotUtf8 {
        /// File that was being read.
        path: PathBuf,
        /// Offset of the first bad byte.
        offset: usize,
    },
    /// The file is no CSV.
    #[error("{}: not a valid CSV file", path.display())]
    Csv {
        /// File that was being read.
        path: PathBuf,
        /// What the library found.
        source: csv::Error,
    },
    /// The header lacks a column.
    #[error("{}:1: found no column `{column}` among {found}", path.display())]
    MissingColumn {
        /// File that was being read.
        path: PathBuf,
        /// Column that is needed.
        column: &'static str,
        /// Columns that are there.
        found: String,
    },
    /// A row of a file without header has the wrong number of columns, or one of a file with header
    /// has another number than the header.
    #[error("{}:{line}: found {found} columns, expected {expected}", path.display())]
    Columns {
        /// File that was being read.
        path: PathBuf,
        /// Line the row begins in, from 1.
        line: u64,
        /// Columns of the row.
        found: usize,
        /// Columns that make sense.
        expected: String,
    },
    /// An answer is no letter of an option.
    #[error("{}:{line}: answer: found `{found}`, expected A, B, C or D", path.display())]
    Letter {
        /// File that was being read.
        path: PathBuf,
        /// Line the row begins in, from 1.
        line: u64,
        /// What stands there.
        found: String,
    },
    /// A question or an option has no text.
    #[error("{}:{line}: {column} is empty, expected some text", path.display())]
    EmptyCell {
        /// File that was being read.
        path: PathBuf,
        /// Line the row begins in, from 1.
        line: u64,
        /// Column of the cell.
        column: &'static str,
    },
    /// The file has no question.
    #[error("{}: holds no question, expected at least one row", path.display())]
    Empty {
        /// File that was being read.
        path: PathBuf,
    },
}

/// Places of the columns.
struct Columns {
    id: Option<usize>,
    question: usize,
    options: [usize; 4],
    answer: Option<usize>,
    explanation: Option<usize>,
    /// Columns of each row.
    width: usize,
    has_header: bool,
}

const OPTION_COLUMNS: [&str; 4] = ["A", "B", "C", "D"];

/// Reads a file of questions.
///
/// With a header, its names say which column is which, in upper or lower case; an unnamed column is
/// the question's id. Without one, the columns are question, A, B, C, D and, if there are six,
/// answer. A byte order mark is passed over, and line ends inside quotes become line feeds.
///
/// # Errors
///
/// A file that cannot be read, a column that is missing, an answer that is no letter, an empty cell,
/// or no question at all; each names the file and the line.
pub fn read_questions(path: &Path) -> Result<Vec<Question>, QuestionFileError> {
    let owned = || path.to_owned();
    let bytes = fs::read(path).map_err(|source| QuestionFileError::Read {
        path: owned(),
        source,
    })?;
    let text = String::from_utf8(bytes).map_err(|error| QuestionFileError::NotUtf8 {
        path: owned(),
        offset: error.utf8_error().valid_up_to(),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut columns: Option<Columns> = None;
    let mut questions = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|source| QuestionFileError::Csv {
            path: owned(),
            source,
        })?;
        if let Some(columns) = &columns {
            questions.push(question_of(
                (path, text),
                &record,
                columns,
                questions.len(),
            )?);
        } else {
            let found = Columns::of(path, &record)?;
            if !found.has_header {
                questions.push(question_of((path, text), &record, &found, 0)?);
            }
            columns = Some(found);
        }
    }
    if questions.is_empty() {
        return Err(QuestionFileError::Empty { path: owned() });
    }
    Ok(questions)
}

impl Columns {
    fn of(path: &Path, first: &StringRecord) -> Result<Self, QuestionFileError> {
        let names: Vec<String> = first.iter().map(|name| name.trim().to_owned()).collect();
        let place = |wanted: &str| {
            let mut names = names.iter();
            names.position(|name| name.eq_ignore_ascii_case(wanted))
        };
        let num_columns = names.len();
        // Options may be letters, too, but hardly all four of them in capitals.
        let mut options = OPTION_COLUMNS.iter();
        let has_options = options.all(|column| names.iter().any(|name| name == column));
        if place("question").is_none() && !has_options {
            if !(5..=6).contains(&num_columns) {
                return Err(QuestionFileError::Columns {
                    path: path.to_owned(),
                    line: 1,
                    found: num_columns,
                    expected: "a header, or question, A, B, C, D and answer".to_owned(),
                });
            }
            return Ok(Self {
                id: None,
                question: 0,
                options: [1, 2, 3, 4],
                answer: (num_columns == 6).then_some(5),
                explanation: None,
                width: num_columns,
                has_header: false,
            });
        }
        let needed = |column: &'static str| {
            place(column).ok_or_else(|| QuestionFileError::MissingColumn {
                path: path.to_owned(),
                column,
                found: names.join(", "),
            })
        };
        let mut options = [0; 4];
        for (option, column) in options.iter_mut().zip(OPTION_COLUMNS) {
            *option = needed(column)?;
        }
        Ok(Self {
            id: place("id").or_else(|| place("")),
            question: needed("question")?,
            options,
            answer: place("answer"),
            explanation: place("explanation"),
            width: num_columns,
            has_header: true,
        })
    }
}

fn question_of(
    (path, text): (&Path, &str),
    record: &StringRecord,
    columns: &Columns,
    row: usize,
) -> Result<Question, QuestionFileError> {
    let line = || line_of(text, record);
    if record.len() != columns.width {
        return Err(QuestionFileError::Columns {
            path: path.to_owned(),
            line: line(),
            found: record.len(),
            expected: columns.width.to_string(),
        });
    }
    let cell = |place: usize| record[place].replace("\r\n", "\n");
    let filled = |place: usize, column: &'static str| {
        let text = cell(place);
        if text.trim().is_empty() {
            return Err(QuestionFileError::EmptyCell {
                path: path.to_owned(),
                line: line(),
                column,
            });
        }
        Ok(text)
    };
    let mut options = [const { String::new() }; 4];
    for (index, option) in options.iter_mut().enumerate() {
        *option = filled(columns.options[index], OPTION_COLUMNS[index])?;
    }
    let answer = columns.answer.map(|place| {
        let found = record[place].trim();
        let is_letter = |letter: &char| found.chars().eq([*letter]);
        LETTERS
            .iter()
            .position(is_letter)
            .ok_or_else(|| QuestionFileError::Letter {
                path: path.to_owned(),
                line: line(),
                found: found.to_owned(),
            })
    });
    let id = columns.id.map(&cell).filter(|id| !id.trim().is_empty());
    let explanation = columns.explanation.map(&cell);
    Ok(Question {
        id: id.unwrap_or_else(|| row.to_string()),
        text: filled(columns.question, "question")?,
        options,
        answer: answer.transpose()?,
        explanation: explanation.filter(|text| !text.trim().is_empty()),
    })
}

/// Line of a record's first character, from 1.
///
/// The library's own number is one too low after a carriage return: it stands before the line feed.
fn line_of(text: &str, record: &StringRecord) -> u64 {
    let start = record.position().map_or(0, csv::Position::byte) as usize;
    let rest = text[start..].trim_start_matches(['\r', '\n']);
    let before = &text[..text.len() - rest.len()];
    1 + before.matches('\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: impl AsRef<[u8]>) -> Result<Vec<Question>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("law_val.csv");
        fs::write(&path, content).unwrap();
        let prefix = format!("{}/", dir.path().display());
        read_questions(&path).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    fn question(id: &str, text: &str, answer: Option<usize>) -> Question {
        Question {
            id: id.to_owned(),
            text: text.to_owned(),
            options: ["a", "b", "c", "d"].map(str::to_owned),
            answer,
            explanation: None,
        }
    }

    /// C-Eval, CMMLU with its unnamed column, MMLU without header, and a split without answers.
    #[test]
    fn all_four_layouts_are_read() {
        let ceval = "id,question,A,B,C,D,answer,explanation\n7,q,a,b,c,d,C,why\n";
        let explained = Question {
            explanation: Some("why".to_owned()),
            ..question("7", "q", Some(2))
        };
        assert_eq!(read(ceval).unwrap(), [explained]);
        let cmmlu = ",Question,A,B,C,D,Answer\n3,q,a,b,c,d,A\n";
        assert_eq!(read(cmmlu).unwrap(), [question("3", "q", Some(0))]);
        let mmlu = "q,a,b,c,d,D\np,a,b,c,d,B\n";
        let rows = [question("0", "q", Some(3)), question("1", "p", Some(1))];
        assert_eq!(read(mmlu).unwrap(), rows);
        let test = "id,question,A,B,C,D\n0,q,a,b,c,d\n";
        assert_eq!(read(test).unwrap(), [question("0", "q", None)]);
    }

    /// How spreadsheets save: a mark at the beginning, CRLF, and line ends inside a cell.
    #[test]
    fn a_mark_crlf_and_quoted_line_ends_are_no_content() {
        let text = "\u{feff}id,question,A,B,C,D,answer\r\n0,\"one\r\ntwo \"\"x\"\"\",a,b,c,d,B\r\n";
        let expected = [question("0", "one\ntwo \"x\"", Some(1))];
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let cases: [(&[u8], &str); 9] = [
            (
                b"id,A,B,C,D,answer\n0,a,b,c,d,A\n",
                "law_val.csv:1: found no column `question` among id, A, B, C, D, answer",
            ),
            (
                b"",
                "law_val.csv: holds no question, expected at least one row",
            ),
            (
                b"id,question,A,B,C,D,answer\n",
                "law_val.csv: holds no question, expected at least one row",
            ),
            (
                b"id,question,A,B,C,answer\n0,q,a,b,c,A\n",
                "law_val.csv:1: found no column `D` among id, question, A, B, C, answer",
            ),
            (
                b"id,question,A,B,C,D,answer\n0,q,a,b,c,d,A\n1,\"q\nr\",a,b,c,d,E\n",
                "law_val.csv:3: answer: found `E`, expected A, B, C or D",
            ),
            (
                b"id,question,A,B,C,D,answer\n0,q,a,b,c,d\n",
                "law_val.csv:2: found 6 columns, expected 7",
            ),
            (
                b"q,a,b\n",
                "law_val.csv:1: found 3 columns, expected a header, or question, A, B, C, D and answer",
            ),
            (
                b"id,question,A,B,C,D,answer\n0,q,a, ,c,d,A\n",
                "law_val.csv:2: B is empty, expected some text",
            ),
            (
                b"id,question,A,B,C,D,answer\n0,\xff,a,b,c,d,A\n",
                "law_val.csv: found a byte that is not UTF-8 at offset 29",
            ),
        ];
        for (content, expected) in cases {
            assert_eq!(read(content).unwrap_err(), expected);
        }
        let error = read_questions(Path::new("no/law_val.csv")).unwrap_err();
        assert_eq!(error.to_string(), "no/law_val.csv: cannot be read");
    }
}
