//! Number formats of GGUF tensors.
//!
//! Source: `quantize_row_q4_0_ref` and `quantize_row_q8_0_ref` of ggml: blocks of 32 numbers with one
//! f16 scale.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};

/// Numbers with one scale.
const BLOCK: usize = 32;

/// How a GGUF file holds matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufType {
    /// 32 bits.
    F32,
    /// 16 bits.
    F16,
    /// 16 bits, the upper half of an f32.
    Bf16,
    /// 8 bits and a scale per 32 numbers.
    Q8_0,
    /// 4 bits and a scale per 32 numbers.
    Q4_0,
}

impl fmt::Display for GgufType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        })
    }
}

impl FromStr for GgufType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0]
            .into_iter()
            .find(|known| known.to_string() == text)
            .ok_or_else(|| "expected f32, f16, bf16, q8_0 or q4_0".to_owned())
    }
}

impl GgufType {
    /// ggml's number of the tensor type.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
        }
    }

    /// llama.cpp's number of a file that is mostly of this type.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Bf16 => 32,
        }
    }

    /// Numbers that are stored together.
    pub(super) fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 => BLOCK,
        }
    }

    pub(super) fn num_bytes(self, num_values: usize) -> usize {
        match self {
            Self::F32 => 4 * num_values,
            Self::F16 | Self::Bf16 => 2 * num_values,
            Self::Q8_0 => num_values / BLOCK * (2 + BLOCK),
            Self::Q4_0 => num_values / BLOCK * (2 + BLOCK / 2),
        }
    }

    pub(super) fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16 => values
                .iter()
                .flat_map(|&x| f16::from_f32(x).to_le_bytes())
                .collect(),
            Self::Bf16 => values
                .iter()
                .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
                .collect(),
            Self::Q8_0 => values.chunks_exact(BLOCK).flat_map(q8_0).collect(),
            Self::Q4_0 => values.chunks_exact(BLOCK).flat_map(q4_0).collect(),
        }
    }
}

fn q8_0(block: &[f32]) -> Vec<u8> {
    let largest = block.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut bytes = f16::from_f32(scale).to_le_bytes().to_vec();
    bytes.extend(
        block
            .iter()
            .map(|x| ((x * inverse).round() as i8).cast_unsigned()),
    );
    bytes
}

fn q4_0(block: &[f32]) -> Vec<u8> {
    // The number that is largest in magnitude becomes -8, which has no positive counterpart.
    let extreme = block.iter().fold(
        0.0_f32,
        |most, &x| if x.abs() > most.abs() { x } else { most },
    );
    let scale = extreme / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let nibble = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    let mut bytes = f16::from_f32(scale).to_le_bytes().to_vec();
    let (low, high) = block.split_at(BLOCK / 2);
    bytes.extend(
        low.iter()
            .zip(high)
            .map(|(&low, &high)| nibble(low) | nibble(high) << 4),
    );
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: scale 1, so the numbers stand as they are.
    #[test]
    fn eight_bits_are_whole_numbers_times_the_scale() {
        let mut block = [0.0; 32];
        (block[0], block[1], block[31]) = (127.0, -3.4, 2.6);
        let bytes = GgufType::Q8_0.encode(&block);
        assert_eq!(bytes.len(), GgufType::Q8_0.num_bytes(32));
        assert_eq!(bytes[..2], f16::from_f32(1.0).to_le_bytes());
        assert_eq!((bytes[2], bytes[3].cast_signed(), bytes[33]), (127, -3, 3));
    }

    /// By hand: -8 is the extreme and the scale 1; nibbles are the numbers plus 8, the second half
    /// of the block in the upper ones.
    #[test]
    fn four_bits_are_counted_from_minus_eight() {
        let mut block = [0.0; 32];
        (block[0], block[1], block[16]) = (-8.0, 7.0, 3.0);
        let bytes = GgufType::Q4_0.encode(&block);
        assert_eq!(bytes.len(), GgufType::Q4_0.num_bytes(32));
        assert_eq!(bytes[..2], f16::from_f32(1.0).to_le_bytes());
        assert_eq!(bytes[2..5], [11 << 4, 8 << 4 | 15, 8 << 4 | 8]);
        assert_eq!(GgufType::Q4_0.encode(&[0.0; 32])[..2], [0, 0x80]);
    }

    /// Recorded from `gguf.quants.quantize` of the `gguf` package 0.19, which is llama.cpp's own.
    #[test]
    fn bytes_are_those_of_llama_cpp() {
        let block: Vec<f32> = (0..32_u8)
            .map(|i| {
                let value = (f32::from(u16::from(i) * 37 % 64) - 31.0) / 8.0;
                value * (1.0 + f32::from(i % 3) * 0.3)
            })
            .collect();
        let q8_0 = [
            216, 41, 171, 21, 164, 44, 217, 114, 253, 156, 39, 207, 68, 221, 79, 7, 147, 33, 203,
            96, 242, 114, 22, 196, 53, 203, 68, 249, 129, 22, 188, 79, 231, 100,
        ];
        assert_eq!(GgufType::Q8_0.encode(&block), q8_0);
        let q4_0 = [
            205, 57, 83, 233, 114, 251, 150, 79, 184, 82, 202, 133, 12, 150, 77, 216, 97, 234,
        ];
        assert_eq!(GgufType::Q4_0.encode(&block), q4_0);
        assert_eq!(
            GgufType::Bf16.encode(&block[..3]),
            [120, 192, 122, 63, 134, 192]
        );
    }
}
