//! The f32 oracle: tract runs the decluttered model and hands out any node's value.

use tract_onnx::prelude::*;

use super::translate::one_line;
use super::{NodeId, Tensor};
use crate::error::CompileError;

/// The decluttered model, from which runnable copies with chosen outputs are made.
#[derive(Debug, Clone)]
pub struct Reference {
    model: TypedModel,
    /// tract node of each [`NodeId`].
    origins: Vec<usize>,
}

/// A model optimised for this machine that computes the values of chosen nodes.
#[derive(Debug)]
pub struct Probe {
    plan: Arc<TypedSimplePlan>,
    input_shape: Vec<usize>,
}

impl Reference {
    pub(super) fn new(model: TypedModel, origins: Vec<usize>) -> Self {
        Self { model, origins }
    }

    /// A runnable model whose outputs are the values of `nodes`, in that order.
    ///
    /// # Errors
    /// [`CompileError::Reference`] when tract cannot optimise the model.
    pub fn probe(&self, nodes: &[NodeId]) -> Result<Probe, CompileError> {
        let fail = |e: TractError| CompileError::Reference(one_line(&e));
        let mut model = self.model.clone();
        let input_shape = model
            .input_fact(0)
            .ok()
            .and_then(|f| f.shape.as_concrete().map(<[usize]>::to_vec))
            .ok_or_else(|| CompileError::Input {
                found: "not static".into(),
            })?;
        let outlets: Vec<OutletId> = nodes
            .iter()
            .map(|n| OutletId::new(self.origins[*n], 0))
            .collect();
        model.select_output_outlets(&outlets).map_err(fail)?;
        let plan = model
            .into_optimized()
            .and_then(|m| m.into_runnable())
            .map_err(fail)?;
        Ok(Probe { plan, input_shape })
    }
}

impl Probe {
    /// Runs the model on one image, already normalised and in the model's own layout.
    ///
    /// # Errors
    /// [`CompileError::Reference`] when the size is wrong or tract fails.
    pub fn run(&self, image: &[f32]) -> Result<Vec<Tensor>, CompileError> {
        let fail = |e: TractError| CompileError::Reference(one_line(&e));
        let input =
            tract_onnx::prelude::Tensor::from_shape(&self.input_shape, image).map_err(fail)?;
        let outputs = self.plan.run(tvec!(input.into_tvalue())).map_err(fail)?;
        outputs
            .iter()
            .map(|t| {
                let t = t.cast_to::<f32>().map_err(fail)?;
                let data = t.view().as_slice::<f32>().map_err(fail)?.to_vec();
                Ok(Tensor {
                    shape: t.shape().to_vec(),
                    data,
                })
            })
            .collect()
    }
}
