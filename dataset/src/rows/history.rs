//! Earlier questions and answers as MiniMind v1 writes them: a Python list in a table's cell, read
//! as data and never evaluated.

use std::iter::Peekable;
use std::str::Chars;

/// Why a history cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("found {found} at character {position}, expected {expected}")]
pub struct HistoryError {
    /// What stands there.
    found: String,
    /// Where, from 1.
    position: usize,
    /// What may stand there.
    expected: &'static str,
}

/// The pairs of question and answer in the text of a Python or JSON list of lists of strings.
pub(super) fn parse_history(text: &str) -> Result<Vec<[String; 2]>, HistoryError> {
    let mut parser = Parser {
        rest: text.trim().chars().peekable(),
        position: 1,
    };
    if parser.rest.peek().is_none() {
        return Ok(Vec::new());
    }
    let pairs = parser.list(|parser| {
        let mut texts = parser.list(Parser::string)?.into_iter();
        match (texts.next(), texts.next(), texts.next()) {
            (Some(question), Some(answer), None) => Ok([question, answer]),
            _ => Err(parser.error("pairs of a question and an answer")),
        }
    })?;
    parser.skip_blanks();
    match parser.rest.peek() {
        None => Ok(pairs),
        Some(_) => Err(parser.error("nothing after the list")),
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    position: usize,
}

impl Parser<'_> {
    fn error(&mut self, expected: &'static str) -> HistoryError {
        let found = match self.rest.peek() {
            Some(character) => format!("`{character}`"),
            None => "the end".to_owned(),
        };
        HistoryError {
            found,
            position: self.position,
            expected,
        }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.position += usize::from(next.is_some());
        next
    }

    fn skip_blanks(&mut self) {
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {
            self.position += 1;
        }
    }

    /// Items between brackets or parentheses, a comma after the last one allowed.
    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, HistoryError>,
    ) -> Result<Vec<T>, HistoryError> {
        self.skip_blanks();
        let end = match self.rest.peek() {
            Some('[') => ']',
            Some('(') => ')',
            _ => return Err(self.error("a list")),
        };
        self.next();
        let mut items = Vec::new();
        loop {
            self.skip_blanks();
            if self.rest.peek() == Some(&end) {
                self.next();
                return Ok(items);
            }
            items.push(item(self)?);
            self.skip_blanks();
            match self.rest.peek() {
                Some(',') => {
                    self.next();
                }
                Some(character) if *character == end => {}
                _ => return Err(self.error("`,` or the end of the list")),
            }
        }
    }

    fn string(&mut self) -> Result<String, HistoryError> {
        self.skip_blanks();
        let Some(&quote @ ('\'' | '"')) = self.rest.peek() else {
            return Err(self.error("a string"));
        };
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(self.error("the closing quote")),
                Some('\\') => text.extend(self.escaped()?),
                Some(character) if character == quote => return Ok(text),
                Some(character) => text.push(character),
            }
        }
    }

    /// The character that an escape stands for; a line end after the backslash is none.
    fn escaped(&mut self) -> Result<Option<char>, HistoryError> {
        let Some(kind) = self.rest.peek().copied() else {
            return Err(self.error("the rest of an escape"));
        };
        if kind.is_digit(8) {
            return self.code(8, 1, 3).map(Some);
        }
        self.next();
        Ok(Some(match kind {
            '\n' => return Ok(None),
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '/' => kind,
            'x' => self.code(16, 2, 2)?,
            'u' => self.code(16, 4, 4)?,
            'U' => self.code(16, 8, 8)?,
            _ => return Err(self.error("an escape that Python writes")),
        }))
    }

    fn code(&mut self, radix: u32, least: usize, most: usize) -> Result<char, HistoryError> {
        let mut code = 0_u32;
        let mut num_digits = 0;
        while num_digits < most {
            let Some(digit) = self.rest.peek().and_then(|digit| digit.to_digit(radix)) else {
                break;
            };
            code = code.wrapping_mul(radix).wrapping_add(digit);
            num_digits += 1;
            self.next();
        }
        if num_digits < least {
            return Err(self.error("more digits of a character's code"));
        }
        // Half of a surrogate pair is no character: it stands for none that could be learned.
        Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let pairs = parse_history(text).unwrap();
        pairs.into_iter().map(|[q, a]| (q, a)).collect()
    }

    /// Texts as Python's `repr` writes them: it takes the other quote when one is inside.
    #[test]
    fn python_lists_are_read() {
        assert_eq!(pairs("[]"), []);
        assert_eq!(pairs("  "), []);
        let expected = [
            ("it's".to_owned(), "a\n\"b\"\\".to_owned()),
            ("你好\u{3000}".to_owned(), "é\u{1F600}\0".to_owned()),
        ];
        assert_eq!(
            pairs("[[\"it's\", 'a\\n\"b\"\\\\'], ('你好\\u3000', '\\xe9\\U0001f600\\x00',),]"),
            expected
        );
        assert_eq!(
            pairs(r#"[["a\/b", "\u4f60"]]"#),
            [("a/b".into(), "你".into())]
        );
    }

    /// Python code is no data, whatever it would evaluate to.
    #[test]
    fn code_is_refused() {
        for (text, message) in [
            (
                "__import__('os').system('true')",
                "found `_` at character 1, expected a list",
            ),
            (
                "[['a', str(1)]]",
                "found `s` at character 8, expected a string",
            ),
            (
                "[['a']]",
                "found `]` at character 7, expected pairs of a question and an answer",
            ),
            (
                "[['a', 'b']] + []",
                "found `+` at character 14, expected nothing after the list",
            ),
            (
                "[['a', 'b",
                "found the end at character 10, expected the closing quote",
            ),
        ] {
            assert_eq!(parse_history(text).unwrap_err().to_string(), message);
        }
    }
}
