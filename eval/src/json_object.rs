//! Which bytes may come next in a JSON object: what keeps an answer parseable while it is written.
//!
//! Source of the grammar: RFC 8259. Deviations: the whole text is one object with nothing around
//! it, nesting ends at `MAX_DEPTH`, and white space comes in runs of at most `MAX_SPACES`, since
//! small models would indent forever.

/// Objects and lists within one another.
const MAX_DEPTH: u32 = 60;
/// White space in a row.
const MAX_SPACES: u8 = 24;

/// A place in the text of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonObject {
    place: Place,
    /// One bit per open object (1) or list (0), the innermost last.
    open: u64,
    depth: u32,
    spaces: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// Behind `{`.
    FirstKey,
    /// Behind the comma of an object.
    Key,
    Colon,
    /// Behind `[`.
    FirstItem,
    Value,
    Text(Text),
    /// What is left of `true`, `false` or `null`.
    Word(&'static [u8]),
    Number(Number),
    /// Behind a value.
    After,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Text {
    is_key: bool,
    escape: Escape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    /// Hexadecimal digits that are still to come.
    Digits(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Default for JsonObject {
    fn default() -> Self {
        Self {
            place: Place::Start,
            open: 0,
            depth: 0,
            spaces: 0,
        }
    }
}

impl JsonObject {
    /// The place behind these bytes; `None` if they cannot come here.
    #[must_use]
    pub fn after(self, bytes: &[u8]) -> Option<Self> {
        bytes.iter().try_fold(self, |place, &byte| place.next(byte))
    }

    /// Whether the object is closed.
    pub fn is_done(self) -> bool {
        self.place == Place::Done
    }

    fn next(mut self, byte: u8) -> Option<Self> {
        if let Place::Text(text) = self.place {
            return self.next_in_text(text, byte);
        }
        if let Place::Number(number) = self.place {
            if let Some(number) = number.next(byte) {
                return self.at(Place::Number(number));
            }
            if !number.may_end() {
                return None;
            }
            self.place = Place::After;
        }
        if let Place::Word(rest) = self.place {
            let (first, rest) = rest.split_first()?;
            let place = if rest.is_empty() {
                Place::After
            } else {
                Place::Word(rest)
            };
            return if *first == byte { self.at(place) } else { None };
        }
        let may_be_spaced = !matches!(self.place, Place::Start | Place::Done);
        if may_be_spaced && matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            self.spaces += 1;
            return (self.spaces <= MAX_SPACES).then_some(self);
        }
        let key = Place::Text(Text {
            is_key: true,
            escape: Escape::None,
        });
        let in_object = self.open & 1 == 1;
        match (self.place, byte) {
            (Place::Start, b'{') => self.opened(true),
            (Place::FirstKey | Place::Key, b'"') => self.at(key),
            (Place::FirstKey, b'}') | (Place::FirstItem, b']') => self.closed(),
            (Place::Colon, b':') => self.at(Place::Value),
            (Place::FirstItem | Place::Value, _) => self.value(byte),
            (Place::After, b',') => self.at(if in_object { Place::Key } else { Place::Value }),
            (Place::After, b'}') if in_object => self.closed(),
            (Place::After, b']') if !in_object => self.closed(),
            _ => None,
        }
    }

    fn value(self, byte: u8) -> Option<Self> {
        let text = Place::Text(Text {
            is_key: false,
            escape: Escape::None,
        });
        match byte {
            b'{' => self.opened(true),
            b'[' => self.opened(false),
            b'"' => self.at(text),
            b't' => self.at(Place::Word(b"rue")),
            b'f' => self.at(Place::Word(b"alse")),
            b'n' => self.at(Place::Word(b"ull")),
            b'-' => self.at(Place::Number(Number::Minus)),
            b'0' => self.at(Place::Number(Number::Zero)),
            b'1'..=b'9' => self.at(Place::Number(Number::Whole)),
            _ => None,
        }
    }

    fn next_in_text(self, text: Text, byte: u8) -> Option<Self> {
        let escaped = |escape| self.at(Place::Text(Text { escape, ..text }));
        match (text.escape, byte) {
            (Escape::None, b'"') => self.at(if text.is_key {
                Place::Colon
            } else {
                Place::After
            }),
            (Escape::None, b'\\') => escaped(Escape::Begun),
            (Escape::None, 0..0x20) => None,
            (Escape::Begun, b'u') => escaped(Escape::Digits(4)),
            (Escape::Digits(left), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                escaped(if left == 1 {
                    Escape::None
                } else {
                    Escape::Digits(left - 1)
                })
            }
            (Escape::None, _)
            | (Escape::Begun, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                escaped(Escape::None)
            }
            _ => None,
        }
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "what every step returns, of which this is one that is always possible"
    )]
    fn at(mut self, place: Place) -> Option<Self> {
        self.place = place;
        self.spaces = 0;
        Some(self)
    }

    fn opened(mut self, is_object: bool) -> Option<Self> {
        self.open = self.open << 1 | u64::from(is_object);
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.at(if is_object {
            Place::FirstKey
        } else {
            Place::FirstItem
        })
    }

    fn closed(mut self) -> Option<Self> {
        self.open >>= 1;
        self.depth -= 1;
        self.at(if self.depth == 0 {
            Place::Done
        } else {
            Place::After
        })
    }
}

impl Number {
    fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Some(Self::Whole),
            (Self::Zero | Self::Whole, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::ExponentSign),
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                Some(Self::ExponentDigits)
            }
            _ => None,
        }
    }

    fn may_end(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Whole | Self::Fraction | Self::ExponentDigits
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &str) -> bool {
        let end = JsonObject::default().after(text.as_bytes());
        end.is_some_and(JsonObject::is_done)
    }

    /// `serde_json` is the judge: what it parses as an object is accepted, and nothing else.
    #[test]
    fn objects_are_accepted_and_nothing_else() {
        let texts = [
            "{}",
            "{\n  \"a\": [1, -0.5e+10, 0, true, false, null, \"x\\u4e2d\\n\", {}, []]}",
            "{\"a\":{\"b\":[[{\"c\":\"中\"}]]}}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":.5}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":1e}",
            "{\"a\" 1}",
            "{a:1}",
            "[1]",
            "\"a\"",
            "{\"a\":[1}",
            "{\"a\":tru}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":[,]}",
            "{}}",
            "{\"a\"}",
            "{,}",
        ];
        for text in texts {
            let parsed = serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(text);
            assert_eq!(accepts(text), parsed.is_ok(), "{text}");
        }
    }

    /// The bounds of the deviations.
    #[test]
    fn nesting_and_white_space_have_an_end() {
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(!accepts(" {}") && !accepts("{} "));
        assert!(accepts(&nested(60)));
        assert!(!accepts(&nested(61)));
        assert!(accepts(&format!("{{{}}}", " ".repeat(24))));
        assert!(!accepts(&format!("{{{}}}", " ".repeat(25))));
    }
}
