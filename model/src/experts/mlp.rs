//! The feed-forward part of a layer: one network, or a mixture of them.

use std::fmt;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::prelude::*;

use super::{Routing, SparseExperts};
use crate::config::ModelConfig;
use crate::feed_forward::FeedForward;
use crate::linear::Linear;
use crate::packed::WeightType;
use crate::training_pass::TrainingPass;

/// What mixes the features of each position.
///
/// The module is written out because the derived one would put the variant's name into the path of
/// every parameter.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "one of a few dozen per model, held in place and never moved about"
)]
pub enum Mlp {
    /// One network for every token.
    Dense(FeedForward),
    /// Each token meets a few of many.
    Sparse(SparseExperts),
}

impl Mlp {
    /// The feed-forward part of a layer.
    pub(crate) fn empty(
        config: &ModelConfig,
        layer: usize,
        pass: &TrainingPass,
        device: &Device,
    ) -> Self {
        if let Some(experts) = config.experts_of(layer) {
            return Self::Sparse(SparseExperts::empty(config, experts, pass, device));
        }
        let (hidden_size, width) = (config.hidden_size, config.intermediate_size);
        Self::Dense(FeedForward::empty(hidden_size, width, pass, device))
    }

    /// The output for every position, and where tokens went if there was a choice.
    ///
    /// # Shapes
    ///
    /// - `x`: `[B, T, D]`
    /// - returns: `[B, T, D]`
    ///
    /// # Panics
    ///
    /// If the last axis is not `D` long.
    pub fn forward(&self, x: Tensor<3>) -> (Tensor<3>, Option<Routing>) {
        match self {
            Self::Dense(network) => (network.forward(x), None),
            Self::Sparse(experts) => {
                let (out, routing) = experts.forward(x);
                (out, Some(routing))
            }
        }
    }

    /// The one network; `None` where there are experts.
    pub fn dense(&self) -> Option<&FeedForward> {
        match self {
            Self::Dense(network) => Some(network),
            Self::Sparse(_) => None,
        }
    }

    /// The one network, to be changed.
    pub fn dense_mut(&mut self) -> Option<&mut FeedForward> {
        match self {
            Self::Dense(network) => Some(network),
            Self::Sparse(_) => None,
        }
    }

    /// The experts; `None` where there is one network.
    pub fn sparse(&self) -> Option<&SparseExperts> {
        match self {
            Self::Dense(_) => None,
            Self::Sparse(experts) => Some(experts),
        }
    }

    /// The experts, to be changed.
    pub fn sparse_mut(&mut self) -> Option<&mut SparseExperts> {
        match self {
            Self::Dense(_) => None,
            Self::Sparse(experts) => Some(experts),
        }
    }

    /// Every projection with its path below the layer, such as `mlp.experts.3.up_proj`.
    pub(crate) fn projections_mut(&mut self) -> Vec<(String, &mut Linear)> {
        let mut all = Vec::new();
        match self {
            Self::Dense(network) => all.extend(network.projections_mut("mlp")),
            Self::Sparse(sparse) => {
                for (index, expert) in sparse.experts.iter_mut().enumerate() {
                    all.extend(expert.projections_mut(&format!("mlp.experts.{index}")));
                }
                if let Some(shared) = &mut sparse.shared_experts {
                    all.extend(shared.projections_mut("mlp.shared_experts"));
                }
            }
        }
        all
    }

    /// Every network there is.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &FeedForward> {
        let (routed, other) = match self {
            Self::Dense(network) => (&[][..], Some(network)),
            Self::Sparse(sparse) => (&sparse.experts[..], sparse.shared_experts.as_ref()),
        };
        routed.iter().chain(other)
    }

    pub(crate) fn packed(self, weight_type: WeightType) -> Self {
        match self {
            Self::Dense(network) => Self::Dense(network.packed(weight_type)),
            Self::Sparse(experts) => Self::Sparse(experts.packed(weight_type)),
        }
    }
}

impl Module for Mlp {
    fn collect_devices(&self, devices: Devices) -> Devices {
        match self {
            Self::Dense(network) => network.collect_devices(devices),
            Self::Sparse(experts) => experts.collect_devices(devices),
        }
    }

    fn fork(self, device: &Device) -> Self {
        match self {
            Self::Dense(network) => Self::Dense(network.fork(device)),
            Self::Sparse(experts) => Self::Sparse(experts.fork(device)),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        match self {
            Self::Dense(network) => Self::Dense(network.to_device(device)),
            Self::Sparse(experts) => Self::Sparse(experts.to_device(device)),
        }
    }

    fn train(self) -> Self {
        match self {
            Self::Dense(network) => Self::Dense(network.train()),
            Self::Sparse(experts) => Self::Sparse(experts.train()),
        }
    }

    fn valid(&self) -> Self {
        match self {
            Self::Dense(network) => Self::Dense(network.valid()),
            Self::Sparse(experts) => Self::Sparse(experts.valid()),
        }
    }

    fn materialize(self) -> Self {
        match self {
            Self::Dense(network) => Self::Dense(network.materialize()),
            Self::Sparse(experts) => Self::Sparse(experts.materialize()),
        }
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        match self {
            Self::Dense(network) => network.visit(visitor),
            Self::Sparse(experts) => experts.visit(visitor),
        }
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        match self {
            Self::Dense(network) => Self::Dense(network.map(mapper)),
            Self::Sparse(experts) => Self::Sparse(experts.map(mapper)),
        }
    }
}

impl ModuleDisplay for Mlp {}

impl ModuleDisplayDefault for Mlp {
    fn content(&self, content: Content) -> Option<Content> {
        match self {
            Self::Dense(network) => network.content(content),
            Self::Sparse(experts) => experts.content(content),
        }
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}

impl fmt::Display for Mlp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense(network) => network.fmt(formatter),
            Self::Sparse(experts) => fmt::Display::fmt(experts, formatter),
        }
    }
}
