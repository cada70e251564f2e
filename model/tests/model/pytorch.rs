//! MiniMind v1 and v3 against PyTorch: logits, loss, gradients, greedy ids (the five AdamW steps are tested where the optimizer is: `train/tests/pytorch`).
//!
//! Expected numbers and tolerances: `tests/golden/README.md`.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use model::hf::WeightLayout;
use model::kernels::linear_cross_entropy;
use model::{CausalLm, ModelConfig};

use crate::fixture::{
    Recorded, golden, golden_json, golden_model, greedy, hidden, int_tensor, l2_norm, logits,
    max_difference, recorded,
};

const GOLDENS: [(&str, WeightLayout); 3] = [
    ("v1_dense", WeightLayout::MiniMindV1),
    ("v3_dense", WeightLayout::HuggingFace),
    ("v3_yarn", WeightLayout::HuggingFace),
];
const LOGITS: f32 = 5e-5;
const LOSS: f64 = 1e-5;
const GRADIENT_OF_NORM: f64 = 1e-4;
const GRADIENT: f64 = 1e-7;

/// Recorded logits of three rows of 24 tokens.
#[test]
fn logits_are_those_of_pytorch() {
    let device = Device::flex();
    for (name, _) in GOLDENS {
        let model = golden_model(name, &device);
        let batch = Batch::read(name);
        let difference = max_difference(&logits(&model, &batch.input_ids, &device), &batch.logits);
        assert!(
            difference <= LOGITS,
            "{name}: logits differ by {difference:e}"
        );
    }
}

/// Recorded masked mean cross entropy and its gradient, parameter by parameter.
#[test]
fn loss_and_every_gradient_are_those_of_pytorch() {
    let device = Device::flex().autodiff();
    for (name, layout) in GOLDENS {
        let model = golden_model(name, &device);
        let loss = Batch::read(name).loss(&model, &device);
        let expected_loss = golden_json(name, "golden.json")["loss"].as_f64().unwrap();
        assert_close(
            f64::from(loss.clone().into_scalar::<f32>()),
            expected_loss,
            LOSS,
            name,
        );

        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let grads = in_file_layout(named_grads(&model, &grads), layout, model.config());
        let expected = recorded(&golden(name).join("grads.safetensors"));
        assert!(
            grads.keys().eq(expected.keys()),
            "{name}: {:?}",
            grads.keys()
        );
        for (tensor, expected) in expected {
            let found = &grads[&tensor];
            assert_eq!(found.shape, expected.shape, "{name}: {tensor}");
            let pairs = found.values.iter().zip(&expected.values);
            let difference = l2_norm(pairs.map(|(found, expected)| found - expected));
            let allowed = GRADIENT_OF_NORM * l2_norm(expected.values.iter().copied()) + GRADIENT;
            assert!(
                difference <= allowed,
                "{name}: {tensor}: {difference:e} > {allowed:e}"
            );
        }
    }
}

/// Recorded continuation of the first row's prompt from the initial weights.
#[test]
fn greedy_ids_are_those_of_pytorch() {
    let device = Device::flex();
    for (name, _) in GOLDENS {
        let expected = &golden_json(name, "golden.json")["greedy"];
        let ids = |field: &str| -> Vec<i64> {
            let list = expected[field].as_array().unwrap();
            list.iter().map(|id| id.as_i64().unwrap()).collect()
        };
        let output = ids("output");
        let model = golden_model(name, &device);
        assert_eq!(
            greedy(&model, &ids("prompt"), output.len(), &device),
            output,
            "{name}"
        );
    }
}

struct Batch {
    input_ids: Vec<Vec<i64>>,
    labels: Vec<i64>,
    logits: Vec<f32>,
}

impl Batch {
    fn read(name: &str) -> Self {
        let tensors = recorded(&golden(name).join("tensors.safetensors"));
        let targets = &tensors["target_ids"].values;
        let mask = &tensors["loss_mask"].values;
        Self {
            input_ids: tensors["input_ids"].token_ids(),
            labels: targets
                .iter()
                .zip(mask)
                .map(|(target, mask)| if *mask > 0.0 { *target as i64 } else { -100 })
                .collect(),
            logits: tensors["logits"].values.clone(),
        }
    }

    fn loss(&self, model: &CausalLm, device: &Device) -> Tensor<1> {
        let hidden = hidden(model, &self.input_ids, device);
        let [batch, len, width] = hidden.dims();
        let labels = int_tensor(std::slice::from_ref(&self.labels), device).squeeze_dim::<1>(0);
        let num_supervised = self.labels.iter().filter(|label| **label >= 0).count();
        let hidden = hidden.reshape([batch * len, width]);
        linear_cross_entropy(hidden, model.lm_head_weight(), labels) / num_supervised as f32
    }
}

fn assert_close(found: f64, expected: f64, tolerance: f64, label: &str) {
    let difference = (found - expected).abs();
    assert!(
        difference <= tolerance,
        "{label}: {found} is {difference:e} from {expected}"
    );
}

fn in_file_layout(
    tensors: Vec<(String, Recorded)>,
    layout: WeightLayout,
    config: &ModelConfig,
) -> BTreeMap<String, Recorded> {
    tensors
        .into_iter()
        .map(|(path, tensor)| {
            let shape = layout.tensor_shape(&path, &tensor.shape);
            let values = layout.to_file(&path, &tensor.shape, tensor.values, config);
            (layout.tensor_name(&path), Recorded { shape, values })
        })
        .collect()
}

fn named_grads(model: &CausalLm, grads: &GradientsParams) -> Vec<(String, Recorded)> {
    struct Reader<'a> {
        path: Vec<String>,
        grads: &'a GradientsParams,
        named: Vec<(String, Recorded)>,
    }
    impl ModuleVisitor for Reader<'_> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let grad = self
                .grads
                .get::<D>(param.id)
                .expect("every parameter has a gradient");
            let shape = grad.dims().to_vec();
            let values = grad.into_data().try_into_vec().unwrap();
            self.named
                .push((self.path.join("."), Recorded { shape, values }));
        }
    }
    let mut reader = Reader {
        path: Vec::new(),
        grads,
        named: Vec::new(),
    };
    model.visit(&mut reader);
    reader.named
}
