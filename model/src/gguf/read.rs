//! What a GGUF file holds: its metadata and tensors, checked against its length.

use std::io;
use std::path::{Path, PathBuf};

/// Deeper lists of lists than any file has.
const MAX_DEPTH: usize = 4;
/// Elements of a list that are shown.
const NUM_SHOWN: usize = 4;
/// ggml's tensor types: number, name, numbers in a block, bytes of a block.
const TYPES: [(u32, &str, usize, usize); 13] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (30, "BF16", 1, 2),
];

/// A file's contents.
#[derive(Debug)]
pub struct GgufFile {
    /// Keys with their values as text, long lists cut short.
    pub metadata: Vec<(String, String)>,
    /// Tensors in the order of the file.
    pub tensors: Vec<GgufTensorInfo>,
    bytes: Vec<u8>,
}

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensorInfo {
    /// Its name.
    pub name: String,
    /// Its sizes, the one that runs fastest last.
    pub shape: Vec<usize>,
    /// ggml's name of its type.
    pub type_name: &'static str,
    start: usize,
    end: usize,
}

/// Why a GGUF file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum GgufReadError {
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// File that was being read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged or something else.
    #[error("{}: byte {offset}: {problem}", path.display())]
    Malformed {
        /// File that was being read.
        path: PathBuf,
        /// Where in the file.
        offset: usize,
        /// What is wrong there.
        problem: &'static str,
    },
}

impl GgufFile {
    /// Reads a file of version 2 or 3.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, is cut off, or whose sizes do not fit its length.
    pub fn read(path: &Path) -> Result<Self, GgufReadError> {
        let bytes = std::fs::read(path).map_err(|source| GgufReadError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut cursor = Cursor {
            bytes: &bytes,
            at: 0,
        };
        let parsed = parse(&mut cursor).map_err(|problem| GgufReadError::Malformed {
            path: path.to_owned(),
            offset: cursor.at,
            problem,
        });
        let (metadata, tensors) = parsed?;
        Ok(Self {
            metadata,
            tensors,
            bytes,
        })
    }

    /// A tensor's bytes.
    pub fn bytes_of(&self, tensor: &GgufTensorInfo) -> &[u8] {
        &self.bytes[tensor.start..tensor.end]
    }
}

type Parsed = (Vec<(String, String)>, Vec<GgufTensorInfo>);

fn parse(cursor: &mut Cursor<'_>) -> Result<Parsed, &'static str> {
    if cursor.take(4)? != b"GGUF" {
        return Err("not a GGUF file");
    }
    if !matches!(cursor.code()?, 2 | 3) {
        return Err("found another version, expected 2 or 3");
    }
    let (num_tensors, num_pairs) = (cursor.count()?, cursor.count()?);
    let mut metadata = Vec::new();
    let mut alignment = super::ALIGNMENT;
    for _ in 0..num_pairs {
        let (key, kind) = (cursor.text()?, cursor.code()?);
        let value = cursor.value(kind, 0)?;
        if key == "general.alignment" {
            alignment = value
                .parse()
                .ok()
                .filter(|n: &usize| n.is_power_of_two() && *n <= 1 << 20)
                .ok_or("the alignment is no power of two")?;
        }
        metadata.push((key, value));
    }
    let mut tensors = Vec::new();
    for _ in 0..num_tensors {
        tensors.push(cursor.tensor()?);
    }
    let data = cursor.at.next_multiple_of(alignment);
    for tensor in &mut tensors {
        let place = |offset: usize| data.checked_add(offset);
        let (Some(start), Some(end)) = (place(tensor.start), place(tensor.end)) else {
            return Err("a tensor lies beyond the end");
        };
        if end > cursor.bytes.len() {
            return Err("a tensor lies beyond the end");
        }
        (tensor.start, tensor.end) = (start, end);
    }
    Ok((metadata, tensors))
}

/// A file that is read from front to back.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let end = self
            .at
            .checked_add(len)
            .filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("the file is cut off")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("as many as were taken"))
    }

    fn code(&mut self) -> Result<u32, &'static str> {
        self.array().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Result<usize, &'static str> {
        let long = u64::from_le_bytes(self.array()?);
        usize::try_from(long).map_err(|_| "a number is too large")
    }

    /// How many of something that takes at least a byte each follow.
    fn count(&mut self) -> Result<usize, &'static str> {
        let count = self.long()?;
        if count > self.bytes.len() {
            return Err("found more entries than the file has bytes");
        }
        Ok(count)
    }

    fn text(&mut self) -> Result<String, &'static str> {
        let len = self.count()?;
        let text = std::str::from_utf8(self.take(len)?);
        text.map(str::to_owned).map_err(|_| "a text is not UTF-8")
    }

    /// A value of a type, as text.
    fn value(&mut self, kind: u32, depth: usize) -> Result<String, &'static str> {
        Ok(match kind {
            0 => self.array::<1>()?[0].to_string(),
            1 => i8::from_le_bytes(self.array()?).to_string(),
            2 => u16::from_le_bytes(self.array()?).to_string(),
            3 => i16::from_le_bytes(self.array()?).to_string(),
            4 => self.code()?.to_string(),
            5 => i32::from_le_bytes(self.array()?).to_string(),
            6 => f32::from_le_bytes(self.array()?).to_string(),
            7 => (self.array::<1>()?[0] != 0).to_string(),
            8 => self.text()?,
            9 if depth < MAX_DEPTH => {
                let (kind, len) = (self.code()?, self.count()?);
                let mut shown = Vec::new();
                for index in 0..len {
                    let value = self.value(kind, depth + 1)?;
                    if index < NUM_SHOWN {
                        shown.push(value);
                    }
                }
                let more = if len > NUM_SHOWN { ", .." } else { "" };
                format!("[{}{more}] ({len})", shown.join(", "))
            }
            10 => u64::from_le_bytes(self.array()?).to_string(),
            11 => i64::from_le_bytes(self.array()?).to_string(),
            12 => f64::from_le_bytes(self.array()?).to_string(),
            _ => return Err("a value is of no known type"),
        })
    }

    /// A tensor, its place counted from the first one's.
    fn tensor(&mut self) -> Result<GgufTensorInfo, &'static str> {
        let name = self.text()?;
        let num_dims = self.code()?;
        if num_dims > 4 {
            return Err("a tensor has more than four sizes");
        }
        let mut shape = Vec::new();
        for _ in 0..num_dims {
            shape.push(self.long()?);
        }
        let code = self.code()?;
        let known = TYPES.into_iter().find(|(number, ..)| *number == code);
        let (_, type_name, block_len, block_bytes) = known.ok_or("a tensor is of no known type")?;
        let row = shape.first().copied().unwrap_or(1);
        if !row.is_multiple_of(block_len) {
            return Err("a tensor's rows are no whole blocks");
        }
        let len = shape
            .iter()
            .try_fold(1_usize, |len, dim| len.checked_mul(*dim));
        let num_bytes = len.and_then(|len| (len / block_len).checked_mul(block_bytes));
        let start = self.long()?;
        let end = num_bytes.and_then(|num_bytes| start.checked_add(num_bytes));
        shape.reverse();
        Ok(GgufTensorInfo {
            name,
            shape,
            type_name,
            start,
            end: end.ok_or("a tensor is larger than any memory")?,
        })
    }
}
