//! MiniMind v1 and v3 against PyTorch: logits, loss, gradients, greedy ids (the five AdamW steps are tested where the optimizer is: `train/tests/pytorch`).
//!
//! Expected numbers and tolerances: `tests/golden/README.md`.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use model::config::ModelType;
use model::experts::{RoutedTokens, Routing};
use model::hf::WeightLayout;
use model::kernels::linear_cross_entropy;
use model::{CausalLm, ModelConfig};

use crate::fixture::{
    Recorded, golden, golden_json, golden_model, greedy, int_tensor, l2_norm, logits,
    max_difference, recorded, whole_rows,
};

const GOLDENS: [(&str, WeightLayout); 6] = [
    ("v1_dense", WeightLayout::MiniMindV1),
    ("v3_dense", WeightLayout::HuggingFace),
    ("v3_yarn", WeightLayout::HuggingFace),
    ("v1_moe", WeightLayout::MiniMindV1),
    ("v3_moe_top1", WeightLayout::HuggingFace),
    ("v3_moe_top2", WeightLayout::HuggingFace),
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
        let embedded = model
            .embed_tokens
            .forward(int_tensor(&self.input_ids, device)); // [B, T, D]
        let positions = int_tensor(&whole_rows(&self.input_ids), device);
        let (hidden, routings) = model.forward_embedded(embedded, positions);
        let [batch, len, width] = hidden.dims();
        let labels = int_tensor(std::slice::from_ref(&self.labels), device).squeeze_dim::<1>(0);
        let num_supervised = self.labels.iter().filter(|label| **label >= 0).count();
        let hidden = hidden.reshape([batch * len, width]);
        let nll = linear_cross_entropy(hidden, model.lm_head_weight(), labels);
        let losses = routings
            .iter()
            .map(|(_, routing)| balance_loss(model.config(), routing, [batch, len]));
        losses.fold(nll / num_supervised as f32, |sum, loss| sum + loss)
    }
}

/// The auxiliary loss as the two MiniMinds have it, every row and every token counting alike.
fn balance_loss(config: &ModelConfig, routing: &Routing, [batch, len]: [usize; 2]) -> Tensor<1> {
    let experts = config.experts.as_ref().unwrap();
    let tokens = RoutedTokens {
        is_text: vec![true; batch * len],
        row_weights: vec![1.0 / batch as f32; batch],
    };
    let scoring = config.model_type.scoring_func();
    let loss = match config.model_type {
        ModelType::Ernie45Moe => routing.sequence_balance(&tokens, scoring).loss(),
        // MiniMind-3 does not divide the loads by the experts per token.
        _ => routing.batch_balance(&tokens, scoring).loss() * experts.num_experts_per_tok as f32,
    };
    loss * experts.router_aux_loss_coef
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
