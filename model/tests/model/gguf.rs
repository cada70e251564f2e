//! GGUF files, read back by a reader of the specification that knows nothing of the writer.

use std::collections::BTreeMap;
use std::fs;

use burn::prelude::*;
use model::CausalLm;
use model::gguf::{GgufType, Metadata, write_gguf};
use tempfile::TempDir;

use crate::fixture::{golden, golden_model, recorded};

/// A file that is read from front to back.
struct Reader {
    bytes: Vec<u8>,
    at: usize,
}

impl Reader {
    fn take(&mut self, len: usize) -> &[u8] {
        self.at += len;
        &self.bytes[self.at - len..self.at]
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take(8).try_into().unwrap()) as usize
    }

    fn text(&mut self) -> String {
        let len = self.u64();
        String::from_utf8(self.take(len).to_vec()).unwrap()
    }

    /// A value of a type as text.
    fn value(&mut self, kind: u32) -> String {
        match kind {
            4 => self.u32().to_string(),
            5 => (self.u32() as i32).to_string(),
            6 => f32::from_bits(self.u32()).to_string(),
            7 => self.take(1)[0].to_string(),
            8 => self.text(),
            9 => {
                let kind = self.u32();
                let values: Vec<String> = (0..self.u64()).map(|_| self.value(kind)).collect();
                values.join(",")
            }
            other => panic!("type {other}"),
        }
    }
}

/// A tensor's sizes and its type's number, and its first byte in the file.
type Info = (Vec<usize>, u32, usize);

fn read(bytes: Vec<u8>) -> (BTreeMap<String, String>, BTreeMap<String, Info>, Vec<u8>) {
    let mut reader = Reader { bytes, at: 0 };
    assert_eq!(reader.take(4), b"GGUF");
    assert_eq!(reader.u32(), 3);
    let (num_tensors, num_pairs) = (reader.u64(), reader.u64());
    let mut pairs = BTreeMap::new();
    for _ in 0..num_pairs {
        let (key, kind) = (reader.text(), reader.u32());
        let value = reader.value(kind);
        assert!(pairs.insert(key, value).is_none());
    }
    let mut tensors = BTreeMap::new();
    for _ in 0..num_tensors {
        let (name, num_dims) = (reader.text(), reader.u32());
        let dims = (0..num_dims).map(|_| reader.u64()).collect();
        let info = (dims, reader.u32(), reader.u64());
        assert!(info.2.is_multiple_of(32));
        tensors.insert(name, info);
    }
    let data = reader.at.next_multiple_of(32);
    for (_, _, offset) in tensors.values_mut() {
        *offset += data;
    }
    (pairs, tensors, reader.bytes)
}

fn written(
    name: &str,
    gguf_type: GgufType,
) -> (BTreeMap<String, String>, BTreeMap<String, Info>, Vec<u8>) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.gguf");
    let metadata = [
        ("some.text".to_owned(), Metadata::Text("中".to_owned())),
        (
            "some.list".to_owned(),
            Metadata::Texts(vec!["a".to_owned(), "bc".to_owned()]),
        ),
        ("some.bool".to_owned(), Metadata::Bool(true)),
        ("some.kinds".to_owned(), Metadata::I32s(vec![1, -3])),
    ];
    let model = golden_model(name, &Device::flex());
    write_gguf(&model, gguf_type, &metadata, &path).unwrap();
    read(fs::read(path).unwrap())
}

fn f32s(bytes: &[u8], (dims, kind, offset): &Info) -> Vec<f32> {
    assert_eq!(*kind, 0);
    let len = 4 * dims.iter().product::<usize>();
    bytes[*offset..*offset + len]
        .chunks_exact(4)
        .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

/// A Qwen3 model's tensors are those of its safetensors file, and sizes are the other way round.
#[test]
fn a_qwen3_model_is_written_as_it_is() {
    let (pairs, tensors, bytes) = written("hf_qwen3", GgufType::F32);
    assert_eq!(pairs["general.architecture"], "qwen3");
    assert_eq!(pairs["some.list"], "a,bc");
    assert_eq!(pairs["some.kinds"], "1,-3");
    let original = recorded(&golden("hf_qwen3").join("model.safetensors"));
    for (ours, theirs) in [
        ("token_embd.weight", "model.embed_tokens.weight"),
        (
            "blk.0.attn_q.weight",
            "model.layers.0.self_attn.q_proj.weight",
        ),
        (
            "blk.1.attn_k_norm.weight",
            "model.layers.1.self_attn.k_norm.weight",
        ),
        (
            "blk.1.ffn_down.weight",
            "model.layers.1.mlp.down_proj.weight",
        ),
        ("output_norm.weight", "model.norm.weight"),
    ] {
        let (found, expected) = (&tensors[ours], &original[theirs]);
        let reversed: Vec<usize> = expected.shape.iter().rev().copied().collect();
        assert_eq!(found.0, reversed, "{ours}");
        assert_eq!(f32s(&bytes, found), expected.values, "{ours}");
    }
}

/// llama.cpp rotates a `llama` model's neighbouring features, which is how MiniMind v1 stores them.
#[test]
fn a_llama_model_has_the_row_order_of_llama_cpp() {
    let (pairs, tensors, bytes) = written("v1_dense", GgufType::F32);
    assert_eq!(pairs["general.architecture"], "llama");
    let original = recorded(&golden("v1_dense").join("model.safetensors"));
    let found = f32s(&bytes, &tensors["blk.0.attn_q.weight"]);
    assert_eq!(found, original["layers.0.attention.wq.weight"].values);
    assert!(
        !tensors.contains_key("output.weight"),
        "a tied head is not repeated"
    );
}

/// Vectors stay f32, and nothing lies behind the last tensor.
#[test]
fn every_tensor_lies_where_the_file_says() {
    for (gguf_type, code, bits) in [
        (GgufType::F16, 1, 16),
        (GgufType::Bf16, 30, 16),
        (GgufType::Q8_0, 8, 34 * 8 / 32),
    ] {
        let (_, tensors, bytes) = written("hf_llama", gguf_type);
        assert_eq!(tensors["blk.0.attn_norm.weight"].1, 0);
        let (dims, kind, _) = &tensors["token_embd.weight"];
        let expected = if dims[0].is_multiple_of(32) || bits == 16 {
            code
        } else {
            1
        };
        assert_eq!(*kind, expected);
        let end = tensors.values().map(|(dims, kind, offset)| {
            let len: usize = dims.iter().product();
            let num_bytes = match kind {
                0 => 4 * len,
                8 => len / 32 * 34,
                _ => 2 * len,
            };
            (offset + num_bytes).next_multiple_of(32)
        });
        assert_eq!(end.max(), Some(bytes.len()));
    }
}

/// Experts lie one after another in one tensor, and routers stay f32.
#[test]
fn the_experts_of_a_layer_are_one_tensor() {
    let (pairs, tensors, bytes) = written("hf_qwen3_moe", GgufType::F32);
    assert_eq!(pairs["general.architecture"], "qwen3moe");
    let original = recorded(&golden("hf_qwen3_moe").join("model.safetensors"));
    let num_experts: usize = pairs["qwen3moe.expert_count"].parse().unwrap();
    let experts = (0..num_experts)
        .map(|expert| &original[&format!("model.layers.0.mlp.experts.{expert}.down_proj.weight")]);
    let values: Vec<f32> = experts
        .clone()
        .flat_map(|tensor| tensor.values.clone())
        .collect();
    let stacked = &tensors["blk.0.ffn_down_exps.weight"];
    assert_eq!(f32s(&bytes, stacked), values);
    let [outputs, inputs] = original["model.layers.0.mlp.experts.0.down_proj.weight"].shape[..]
    else {
        panic!("an expert's weight is a matrix");
    };
    assert_eq!(stacked.0, [inputs, outputs, num_experts]);

    let (_, halves, _) = written("hf_qwen3_moe", GgufType::F16);
    assert_eq!(halves["blk.0.ffn_gate_inp.weight"].1, 0);
    assert_eq!(halves["blk.0.ffn_down_exps.weight"].1, 1);
}

/// llama.cpp has no switch for a dense layer between sparse ones, and would compute another model.
#[test]
fn what_llama_cpp_cannot_hold_is_refused() {
    let model = golden_model("hf_qwen3_moe", &Device::flex());
    let mut config = model.config().clone();
    config.experts.as_mut().unwrap().norm_topk_prob = false;
    let model = CausalLm::new(&config, 1, &Device::flex());
    let path = TempDir::new().unwrap().path().join("model.gguf");
    let error = write_gguf(&model, GgufType::F32, &[], &path).unwrap_err();
    assert_eq!(
        error.to_string(),
        "llama.cpp has no qwen3moe model with expert weights that do not sum to one"
    );
    let judge = golden_model("hf_qwen3", &Device::flex()).with_score_head();
    let error = write_gguf(&judge, GgufType::F32, &[], &path).unwrap_err();
    assert_eq!(
        error.to_string(),
        "llama.cpp has no qwen3 model with the score head of a reward model"
    );
}
