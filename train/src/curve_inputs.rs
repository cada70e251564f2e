//! The first batches of a run in a file, so that another program can learn from the very same ones.
//!
//! `tests/torch_curve.py` reads the file together with the initial weights and prints PyTorch's
//! losses; a run's own are in its `metrics.jsonl`.

use std::io;
use std::path::{Path, PathBuf};

use dataset::batch::TokenBatch;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Folder of the initial weights and the batches inside a run's folder.
pub(crate) const CURVE_INPUTS: &str = "curve_inputs";

/// Notes batches until enough steps are together, and then writes them.
///
/// Axis letters: `S` steps, `A` micro-batches of a step, `B` rows, `T` tokens per row.
#[derive(Debug)]
pub(crate) struct CurveInputs {
    path: PathBuf,
    lrs: Vec<f32>,
    num_micro_batches: usize,
    batches: Vec<TokenBatch>,
}

impl CurveInputs {
    /// Will write the batches of `lrs.len()` steps into `folder`.
    pub(crate) fn new(folder: &Path, lrs: Vec<f32>, num_micro_batches: usize) -> Self {
        let path = folder.join("batches.safetensors");
        Self {
            path,
            lrs,
            num_micro_batches,
            batches: Vec::new(),
        }
    }

    /// Notes a batch; returns whether it was the last one, and the file is written.
    pub(crate) fn note(&mut self, batch: &TokenBatch) -> io::Result<bool> {
        self.batches.push(batch.clone());
        let is_complete = self.batches.len() == self.lrs.len() * self.num_micro_batches;
        if is_complete {
            self.write()?;
        }
        Ok(is_complete)
    }

    fn write(&self) -> io::Result<()> {
        let first = &self.batches[0];
        let shape = vec![
            self.lrs.len(),
            self.num_micro_batches,
            first.batch_size,
            first.seq_len,
        ];
        let integers = |values: fn(&TokenBatch) -> Vec<i64>| -> Vec<u8> {
            self.batches
                .iter()
                .flat_map(values)
                .flat_map(i64::to_le_bytes)
                .collect()
        };
        let tensors = [
            ("input_ids", integers(|batch| as_i64(&batch.input_ids))),
            (
                "labels",
                integers(|batch| batch.labels.iter().map(|&id| id.into()).collect()),
            ),
            ("positions", integers(|batch| as_i64(&batch.positions))),
            (
                "document_ids",
                integers(|batch| as_i64(&batch.document_ids)),
            ),
        ];
        let lrs: Vec<u8> = self.lrs.iter().flat_map(|lr| lr.to_le_bytes()).collect();
        let mut views = Vec::new();
        for (name, bytes) in &tensors {
            views.push((*name, view(Dtype::I64, shape.clone(), bytes)?));
        }
        views.push(("lrs", view(Dtype::F32, vec![self.lrs.len()], &lrs)?));
        safetensors::serialize_to_file(views, None, &self.path).map_err(io::Error::other)
    }
}

fn as_i64(ids: &[u32]) -> Vec<i64> {
    ids.iter().map(|&id| id.into()).collect()
}

fn view(dtype: Dtype, shape: Vec<usize>, bytes: &[u8]) -> io::Result<TensorView<'_>> {
    TensorView::new(dtype, shape, bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two steps of one micro-batch of one row of two slots, read back as the script reads them.
    #[test]
    fn the_file_has_the_layout_of_the_script() {
        let folder = tempfile::tempdir().unwrap();
        let mut inputs = CurveInputs::new(folder.path(), vec![0.5, 0.25], 1);
        let batch = |id: u32| TokenBatch {
            batch_size: 1,
            seq_len: 2,
            input_ids: vec![id, id + 1],
            labels: vec![id as i32 + 1, -100],
            positions: vec![0, 1],
            gaps: Vec::new(),
            document_ids: vec![0, 0],
        };
        assert!(!inputs.note(&batch(5)).unwrap());
        assert!(inputs.note(&batch(8)).unwrap());

        let bytes = std::fs::read(folder.path().join("batches.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let labels = file.tensor("labels").unwrap();
        assert_eq!(
            (labels.dtype(), labels.shape()),
            (Dtype::I64, &[2, 1, 1, 2][..])
        );
        let labels: Vec<i64> = labels
            .data()
            .chunks_exact(8)
            .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(labels, [6, -100, 9, -100]);
        assert_eq!(
            file.tensor("lrs").unwrap().data(),
            [0, 0, 0, 63, 0, 0, 128, 62]
        );
    }
}
