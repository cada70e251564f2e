//! GGUF files, which llama.cpp and Ollama read: version 3, little-endian.
//!
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod block;
mod error;
mod metadata;
mod read;
mod tensors;

use std::io::{self, Write};
use std::path::Path;

use self::metadata::Header;
use self::tensors::GgufTensor;
use crate::causal_lm::CausalLm;
use crate::hf::write_atomically_with;

pub use self::block::GgufType;
pub use self::error::GgufError;
pub use self::metadata::Metadata;
pub use self::read::{GgufFile, GgufReadError, GgufTensorInfo};

/// Tensor data begin at multiples of this.
const ALIGNMENT: usize = 32;

/// Writes a model; `metadata` is what its folder says besides its shape: name, tokenizer, template.
///
/// Matrices are of the asked-for type where their rows are whole blocks of it, else f16; vectors
/// and routers are f32. The file appears whole or not at all.
///
/// # Errors
///
/// A file that cannot be written, a model with packed weights or adapters, or one with parts that
/// llama.cpp does not compute.
pub fn write_gguf(
    model: &CausalLm,
    gguf_type: GgufType,
    metadata: &[(String, Metadata)],
    path: &Path,
) -> Result<(), GgufError> {
    if model.is_packed() || model.has_adapters() {
        return Err(GgufError::NotPlain);
    }
    let config = model.config();
    metadata::refuse_what_it_cannot_hold(model)?;
    let mut pairs = metadata::shape_of(config, gguf_type);
    pairs.extend_from_slice(metadata);
    let tensors = tensors::tensors_of(model, gguf_type);

    let mut header = Header::new(tensors.len(), &pairs);
    let mut offset = 0;
    for tensor in &tensors {
        header.tensor(&tensor.name, &tensor.dims, tensor.gguf_type.code(), offset);
        offset += tensor.num_bytes().next_multiple_of(ALIGNMENT);
    }
    let header = header.into_bytes();
    let written = write_atomically_with(path, |out| {
        write_aligned(out, &header)?;
        for tensor in tensors {
            write_aligned(out, &GgufTensor::encode(tensor, config))?;
        }
        Ok(())
    });
    written.map_err(|source| GgufError::Write {
        path: path.to_owned(),
        source,
    })
}

fn write_aligned(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    let num_missing = bytes.len().next_multiple_of(ALIGNMENT) - bytes.len();
    out.write_all(&[0; ALIGNMENT][..num_missing])
}
