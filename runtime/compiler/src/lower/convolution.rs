//! Convolutions: dense, depthwise, and 1×1 ones, which are linear layers.

use super::state::Known;
use super::{Lowering, Outcome};
use crate::frontend::{ConvSpec, NodeId, SourceNode, Tensor};
use crate::ir::{Epilogue, Geometry, Kind, ValueId};
use crate::view::View;

impl Lowering<'_> {
    pub(super) fn convolution(
        &mut self,
        id: NodeId,
        node: &SourceNode,
        spec: &ConvSpec,
    ) -> Outcome {
        let (value, view) = self.whole_value(node, 0)?;
        let weights = self.constant(node, 1)?;
        let bias = self.constant(node, 2)?;
        let [oc, ic, kh, kw] = *weights.shape.as_slice() else {
            return Err("weights must have four dimensions".into());
        };
        let channels = self.values[value].channels;
        let geometry = self.geometry(node, spec, value, &view)?;
        let bias = per_output(&bias, oc)?;
        let epilogue = Epilogue::default();
        let kind = if spec.groups == 1 && ic == channels {
            let weights = ohwi(&weights);
            if [kh, kw] == [1, 1] && spec.stride == [1, 1] && spec.pad == [0; 4] {
                Kind::Linear {
                    weights,
                    bias,
                    epilogue,
                }
            } else {
                Kind::Conv {
                    geometry,
                    weights,
                    bias,
                    epilogue,
                }
            }
        } else if spec.groups == channels && ic == 1 && oc == channels {
            Kind::Depthwise {
                geometry,
                weights: hwo(&weights),
                bias,
                epilogue,
            }
        } else {
            return Err(format!(
                "groups {} on {channels} channels: only 1 and one per channel are supported",
                spec.groups
            ));
        };
        Ok(self.emit_map(id, node, spec, kind, (value, oc), &geometry))
    }

    /// Pooling is a depthwise convolution whose weights are all alike.
    pub(super) fn sum_pool(
        &mut self,
        id: NodeId,
        node: &SourceNode,
        window: &ConvSpec,
        average: bool,
    ) -> Outcome {
        let (value, view) = self.whole_value(node, 0)?;
        let channels = self.values[value].channels;
        let geometry = self.geometry(node, window, value, &view)?;
        let taps = geometry.kernel[0] * geometry.kernel[1];
        let weight = if average { 1.0 / taps as f32 } else { 1.0 };
        let kind = Kind::Depthwise {
            geometry,
            weights: vec![weight; taps * channels],
            bias: vec![0.0; channels],
            epilogue: Epilogue::default(),
        };
        Ok(self.emit_map(id, node, window, kind, (value, channels), &geometry))
    }

    /// Maximum under a window.
    pub(super) fn max_pool(&mut self, id: NodeId, node: &SourceNode, window: &ConvSpec) -> Outcome {
        let (value, view) = self.whole_value(node, 0)?;
        let channels = self.values[value].channels;
        let geometry = self.geometry(node, window, value, &view)?;
        let kind = Kind::MaxPool(geometry);
        Ok(self.emit_map(id, node, window, kind, (value, channels), &geometry))
    }

    /// Emits an op whose result is a map of `channels` channels in the node's own axis order.
    fn emit_map(
        &mut self,
        id: NodeId,
        node: &SourceNode,
        window: &ConvSpec,
        kind: Kind,
        (input, channels): (ValueId, usize),
        geometry: &Geometry,
    ) -> Known {
        let [height, width] = geometry.output;
        let mut dims = vec![(1, 0); node.shape.len()];
        let axes = [(channels, 1), (height, width * channels), (width, channels)];
        for (axis, dim) in window.axes.iter().zip(axes) {
            dims[*axis] = dim;
        }
        let view = View::strided(&dims);
        self.emit(id, kind, vec![input], (height * width, channels), view)
    }

    /// Sizes of the maps; the input must be a whole value in raster order.
    fn geometry(
        &self,
        node: &SourceNode,
        spec: &ConvSpec,
        value: ValueId,
        view: &View,
    ) -> Result<Geometry, String> {
        let (rows, channels) = (self.values[value].rows, self.values[value].channels);
        let shape = view.shape();
        let [c, h, w] = spec.axes.map(|a| shape.get(a).copied().unwrap_or(1));
        let mut raster = vec![(1, 0); shape.len()];
        for (axis, dim) in spec
            .axes
            .iter()
            .zip([(channels, 1), (h, w * channels), (w, channels)])
        {
            if let Some(slot) = raster.get_mut(*axis) {
                *slot = dim;
            }
        }
        if c != channels || h * w != rows || *view != View::strided(&raster) {
            return Err(
                "the image of a convolution must be a whole tensor in raster order, batch 1".into(),
            );
        }
        let output = [1, 2].map(|i| node.shape.get(spec.axes[i]).copied().unwrap_or(1));
        for axis in 0..2 {
            let padded = [h, w][axis] + spec.pad[axis] + spec.pad[axis + 2];
            let fits = padded >= spec.kernel[axis]
                && (padded - spec.kernel[axis]) / spec.stride[axis] + 1 == output[axis];
            if !fits {
                return Err(format!(
                    "kernel {:?}, stride {:?} and padding {:?} do not give {output:?}",
                    spec.kernel, spec.stride, spec.pad
                ));
            }
        }
        Ok(Geometry {
            input: [h, w],
            output,
            kernel: spec.kernel,
            stride: spec.stride,
            pad: spec.pad,
        })
    }
}

fn per_output(bias: &Tensor, outputs: usize) -> Result<Vec<f32>, String> {
    match bias.data.as_slice() {
        [one] => Ok(vec![*one; outputs]),
        all if all.len() == outputs => Ok(all.to_vec()),
        _ => Err(format!(
            "bias of shape {:?} for {outputs} channels",
            bias.shape
        )),
    }
}

/// O×I×kh×kw to O×kh×kw×I.
fn ohwi(weights: &Tensor) -> Vec<f32> {
    let [_, i, h, w] = [0, 1, 2, 3].map(|d| weights.shape[d]);
    View::strided(&[(weights.shape[0], i * h * w), (h, w), (w, 1), (i, h * w)])
        .scatter(&weights.data)
}

/// O×1×kh×kw to kh×kw×O.
fn hwo(weights: &Tensor) -> Vec<f32> {
    let [o, _, h, w] = [0, 1, 2, 3].map(|d| weights.shape[d]);
    View::strided(&[(h, w), (w, 1), (o, h * w)]).scatter(&weights.data)
}
