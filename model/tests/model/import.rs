//! Weight files of other programs, against the same weights in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use burn::prelude::Device;
use model::CausalLm;
use model::hf::load_model;
use model::import::ForeignModel;
use model::params::named_params;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::{golden, golden_json, recorded};

fn pth(name: &str) -> PathBuf {
    golden("pth").join(format!("{name}.pth"))
}

fn imported(path: &Path, settings: &[(&str, Value)]) -> Result<CausalLm, String> {
    let settings: Vec<(String, Value)> = settings
        .iter()
        .map(|(field, value)| ((*field).to_owned(), value.clone()))
        .collect();
    let model =
        ForeignModel::read(path).and_then(|file| file.into_model(&settings, &Device::flex()));
    model.map_err(|error| error.to_string())
}

/// The three namings in three types, with `_orig_mod.`, a mask and a repeated head among them,
/// against the folders that `golden/pth.py` wrote of the same weights.
#[test]
fn a_pytorch_file_is_the_model_it_was_saved_from() {
    let heads = [("num_attention_heads", json!(2))];
    for (name, settings) in [("v1", &[][..]), ("head", &[]), ("third", &heads)] {
        let model = imported(&pth(name), settings).unwrap();
        let expected = load_model(&golden("pth").join(name), &Device::flex()).unwrap();
        assert_eq!(named_params(&model), named_params(&expected), "{name}");
        let mut config = expected.config().clone();
        if let Some(experts) = &mut config.experts {
            // Neither says anything about the loss of training.
            experts.router_aux_loss_coef = 0.001;
        }
        assert_eq!(*model.config(), config, "{name}");
    }
}

/// The file with `self_attention` names says no number of heads, and its program is not known.
#[test]
fn what_the_tensors_do_not_say_is_asked_for() {
    let path = pth("third");
    assert_eq!(
        imported(&path, &[]).unwrap_err(),
        format!(
            "{}: num_attention_heads is not known, say it with --set num_attention_heads=N (the \
             width of all heads together is 8)",
            path.display()
        )
    );
    let heads = ("num_attention_heads", json!(2));
    assert_eq!(
        imported(&path, &[heads.clone(), ("n_heads", json!(2))]).unwrap_err(),
        "--set n_heads: a llama model has no such field"
    );
    assert_eq!(
        imported(&path, &[("hidden_size", json!(9))]).unwrap_err(),
        "--set hidden_size: the tensors say it"
    );
    let theta = imported(&path, &[heads, ("rope_theta", json!(1e4))]).unwrap();
    assert_eq!(theta.config().rope_theta.to_bits(), 1e4_f64.to_bits());
}

/// Files of llama2.c written by hand from the golden of MiniMind v1, whose names and row order are
/// llama2.c's.
fn llama2c(version: u32, own_head: bool) -> Vec<u8> {
    let tensors = recorded(&golden("v1_dense").join("model.safetensors"));
    let config = golden_json("v1_dense", "config.json");
    let size = |field: &str| i32::try_from(config[field].as_i64().unwrap()).unwrap();
    let hidden_dim = tensors["layers.0.feed_forward.w1.weight"].shape[0] as i32;
    let sign = if own_head && version == 0 { -1 } else { 1 };
    let sizes = [
        size("dim"),
        hidden_dim,
        size("n_layers"),
        size("n_heads"),
        size("n_kv_heads"),
        sign * size("vocab_size"),
        size("max_seq_len"),
    ];
    let mut bytes = Vec::new();
    if version > 0 {
        bytes.extend(b"24ka");
        bytes.extend(version.to_le_bytes());
    }
    bytes.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
    if version > 0 {
        bytes.push(u8::from(!own_head));
        bytes.resize(256, 0);
    }
    let layers = |names: &[&str]| {
        let layers = names
            .iter()
            .flat_map(|name| (0..2).map(move |layer| format!("layers.{layer}.{name}.weight")));
        layers.collect::<Vec<String>>()
    };
    let attention = [
        "attention.wq",
        "attention.wk",
        "attention.wv",
        "attention.wo",
    ];
    let network = ["feed_forward.w1", "feed_forward.w2", "feed_forward.w3"];
    let ends = |name: &str| vec![format!("{name}.weight")];
    let order = if version == 0 {
        [
            ends("tok_embeddings"),
            layers(&["attention_norm"]),
            layers(&attention),
            layers(&["ffn_norm"]),
            layers(&network),
            ends("norm"),
        ]
    } else {
        [
            layers(&["attention_norm", "ffn_norm"]),
            ends("norm"),
            ends("tok_embeddings"),
            layers(&attention),
            layers(&network),
            Vec::new(),
        ]
    };
    let mut put =
        |values: &[f32]| bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    for name in order.concat() {
        put(&tensors[&name].values);
    }
    if version == 0 {
        let len = (sizes[6] * sizes[0] / sizes[3]) as usize;
        put(&vec![7.0; len]);
    }
    if own_head {
        let head: Vec<f32> = tensors["tok_embeddings.weight"]
            .values
            .iter()
            .map(|x| -x)
            .collect();
        put(&head);
    }
    bytes
}

fn import_bytes(name: &str, bytes: &[u8]) -> Result<CausalLm, String> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    imported(&path, &[]).map_err(|error| error.replace(path.to_str().unwrap(), name))
}

/// Both versions of the format, and a head of its own.
#[test]
fn a_llama2c_file_is_the_model_it_was_exported_from() {
    let golden = load_model(&golden("v1_dense"), &Device::flex()).unwrap();
    for version in [0, 1] {
        let model = import_bytes("m.bin", &llama2c(version, false)).unwrap();
        assert_eq!(
            named_params(&model),
            named_params(&golden),
            "version {version}"
        );
        assert_eq!(model.config().eos_token_id, [1, 2]);
        let untied = import_bytes("m.bin", &llama2c(version, true)).unwrap();
        assert!(!untied.config().tie_word_embeddings);
        let head = named_params(&untied).pop().unwrap();
        assert_eq!(head.path, "lm_head.weight");
    }
}

/// Each message says what was found and what was expected.
#[test]
fn broken_files_are_errors() {
    let whole = llama2c(0, false);
    let with = |at: usize, value: i32| {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let len = whole.len();
    let cases = [
        (
            with(0, -64),
            "m.bin: dim is -64, expected 1 to 16777216".to_owned(),
        ),
        (
            with(8, i32::MAX),
            "m.bin: n_layers is 2147483647, expected 1 to 16777216".to_owned(),
        ),
        (
            with(12, 3),
            "m.bin: n_heads is 3, expected a divisor of dim 64 into even heads".to_owned(),
        ),
        (
            with(16, 3),
            "m.bin: n_kv_heads is 3, expected a divisor of n_heads 4".to_owned(),
        ),
        (
            Vec::new(),
            "m.bin: 0 bytes, expected 28 by its header".to_owned(),
        ),
        (
            whole[..len - 4].to_vec(),
            format!("m.bin: {} bytes, expected {len} by its header", len - 4),
        ),
    ];
    for (bytes, message) in cases {
        assert_eq!(import_bytes("m.bin", &bytes).unwrap_err(), message);
    }
    let error = import_bytes("m.bin", &llama2c(2, false)[..256]).unwrap_err();
    assert_eq!(
        error,
        "m.bin: version is 2, expected 0 or 1, which hold f32"
    );
    let error = import_bytes("m.pth", b"").unwrap_err();
    assert!(
        error.starts_with("m.pth: not a PyTorch file of tensors: "),
        "{error}"
    );
    let error = import_bytes("m.onnx", b"").unwrap_err();
    assert_eq!(
        error,
        "m.onnx: expected a name that ends in .pth, .pt or .bin"
    );
}
