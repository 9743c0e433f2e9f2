//! Recognises whole layers in the decluttered graph, by structure and never by name.
//!
//! One pass in topological order gives every source node a meaning (`Known`): a constant, a view of an IR value,
//! or a piece of a pattern that is not complete yet (a row mean, centred rows, attention logits). Layers come out where a
//! pattern completes:
//!
//! | seen | becomes |
//! |---|---|
//! | Conv with constant weights | `Conv`, `Depthwise`, or `Linear` for 1×1 |
//! | SumPool | `Depthwise` with weights that are all alike |
//! | EinSum of an activation and a constant | `Linear` (weights permuted to `[out][in]`) |
//! | Sum over channels ·1/n → Sub → RmsNorm | `LayerNorm` |
//! | EinSum of two activations → (scale) → Softmax → EinSum with a third | `Attention` |
//! | element-wise chains of one activation | `Activate` (a table; [`expr`]) |
//! | Add or Mul with a per-channel constant | folded into the layer before |
//! | Sum over all rows ·1/n | `MeanPool` |
//! | Add of two activations | `Add` |
//!
//! Reshapes, transposes and slices only change views ([`crate::view`]). `fuse` then moves activations, residual adds and
//! the pooled head into the ops before them. A node that fits nothing is reported with its shapes and what would fit; all of
//! them come in one error.

mod convolution;
mod einsum;
mod elementwise;
pub mod expr;
mod fuse;
mod state;

use std::sync::Arc;

use crate::error::{CompileError, UnsupportedNode};
use crate::frontend::{Binary, NodeId, SourceGraph, SourceNode, SourceOp, Tensor};
use crate::ir::{Epilogue, Graph, Kind, Op, Source, Value, ValueId};
use crate::view::{Factor, View};
use expr::Expr;
use state::{Known, Role};

/// Lowers a decluttered model to layers.
///
/// # Errors
/// [`CompileError::Unsupported`] with every node that fits no layer; [`CompileError::Input`] or [`CompileError::Output`] when
/// the model is not a classifier of one image.
pub fn lower(source: &SourceGraph) -> Result<Graph, CompileError> {
    let (input, image, view) = image_value(source)?;
    let mut lowering = Lowering {
        source,
        known: vec![],
        values: vec![input],
        ops: vec![],
    };
    let mut refused = vec![];
    for (id, node) in source.nodes.iter().enumerate() {
        let known = if id == source.input {
            Ok(Known::View {
                value: 0,
                view: view.clone(),
                sole: true,
            })
        } else {
            lowering.node(id, node)
        };
        lowering.known.push(known.unwrap_or_else(|reason| {
            refused.push(UnsupportedNode {
                name: node.name.clone(),
                op: node.op_name.clone(),
                input_shapes: node
                    .inputs
                    .iter()
                    .map(|i| source.nodes[*i].shape.clone())
                    .collect(),
                reason,
            });
            Known::Lost
        }));
    }
    if !refused.is_empty() {
        return Err(CompileError::Unsupported { nodes: refused });
    }
    let output = lowering.logits()?;
    let Lowering { values, ops, .. } = lowering;
    let mut graph = Graph {
        values,
        ops,
        input: 0,
        image,
        output,
    };
    fuse::fuse(&mut graph);
    Ok(graph)
}

/// Value 0: the image.
fn image_value(source: &SourceGraph) -> Result<(Value, [usize; 2], View), CompileError> {
    let node = &source.nodes[source.input];
    let (view, height, width) = match *node.shape.as_slice() {
        [1, 3, h, w] => (View::strided(&[(1, 0), (3, 1), (h, w * 3), (w, 3)]), h, w),
        [1, h, w, 3] => (View::strided(&[(1, 0), (h, w * 3), (w, 3), (3, 1)]), h, w),
        _ => {
            return Err(CompileError::Input {
                found: format!("{:?}", node.shape),
            });
        }
    };
    let source = Some(Source {
        node: source.input,
        view: view.clone(),
        rows: None,
    });
    Ok((
        Value {
            name: node.name.clone(),
            rows: height * width,
            channels: 3,
            source,
        },
        [height, width],
        view,
    ))
}

/// The walk's state. Methods of the submodules each complete one kind of pattern; their errors are the reason a user reads.
struct Lowering<'a> {
    source: &'a SourceGraph,
    known: Vec<Known>,
    values: Vec<Value>,
    ops: Vec<Op>,
}

type Outcome = Result<Known, String>;

impl Lowering<'_> {
    fn node(&mut self, id: NodeId, node: &SourceNode) -> Outcome {
        let lost = node
            .inputs
            .iter()
            .any(|i| matches!(self.known[*i], Known::Lost));
        match &node.op {
            // An operation that is never supported is reported even behind another one.
            SourceOp::Input | SourceOp::Other(_) => Err(
                "not an operation of the supported set (convolution, linear, layer norm, attention, element-wise \
                 functions, residual add, mean pooling, reshape, transpose, slice)"
                    .into(),
            ),
            _ if lost => Ok(Known::Lost),
            SourceOp::Const(tensor) => Ok(Known::Const(Arc::clone(tensor))),
            SourceOp::Conv(spec) => self.convolution(id, node, spec),
            SourceOp::SumPool { window, average } => self.sum_pool(id, node, window, *average),
            SourceOp::EinSum { inputs, output } => self.einsum(id, node, inputs, output),
            SourceOp::Binary(op) => self.binary(id, node, *op),
            SourceOp::Unary(op) => self.unary(node, *op),
            SourceOp::Sum(axes) => self.sum(node, axes),
            SourceOp::RmsNorm { axis, eps } => self.layer_norm(id, node, *axis, *eps),
            SourceOp::Softmax(axes) => self.softmax(node, axes),
            SourceOp::MoveAxis { .. }
            | SourceOp::AddAxis(_)
            | SourceOp::RmAxis(_)
            | SourceOp::Reshape { .. }
            | SourceOp::Select { .. }
            | SourceOp::Slice { .. } => self.axes(node),
        }
    }

    /// What the `index`-th input means, with `sole` brought up to date.
    fn input(&self, node: &SourceNode, index: usize) -> Result<Known, String> {
        let id = *node
            .inputs
            .get(index)
            .ok_or_else(|| format!("input {index} is missing"))?;
        let mut known = self.known[id].clone();
        if let Known::View { sole, .. } = &mut known {
            *sole &= self.source.nodes[id].uses == 1;
        }
        Ok(known)
    }

    /// The `index`-th input as a view of a value; a pending element-wise function becomes an op.
    fn activation(&mut self, node: &SourceNode, index: usize) -> Result<(ValueId, View), String> {
        match self.input(node, index)? {
            Known::View { value, view, .. } => Ok((value, view)),
            Known::Map {
                value,
                view,
                function,
            } => {
                let id = node.inputs[index];
                let old = &self.values[value];
                let (rows, channels) = (old.rows, old.channels);
                if !view.covers(rows * channels) {
                    return Err(
                        "an element-wise function of a part of a tensor is not supported".into(),
                    );
                }
                let output = self.add_value(id, rows, channels, view.clone());
                self.ops.push(Op {
                    kind: Kind::Activate(function),
                    inputs: vec![value],
                    output,
                });
                self.known[id] = Known::View {
                    value: output,
                    view: view.clone(),
                    sole: false,
                };
                Ok((output, view))
            }
            other => Err(format!(
                "input {index} is {} where an activation is expected",
                other.describe()
            )),
        }
    }

    fn constant(&self, node: &SourceNode, index: usize) -> Result<Arc<Tensor>, String> {
        match self.input(node, index)? {
            Known::Const(tensor) => Ok(tensor),
            other => Err(format!(
                "input {index} is {} where a constant is expected",
                other.describe()
            )),
        }
    }

    /// A new value computed by source node `id`.
    fn add_value(&mut self, id: NodeId, rows: usize, channels: usize, view: View) -> ValueId {
        let name = self.source.nodes[id].name.clone();
        self.values.push(Value {
            name,
            rows,
            channels,
            source: Some(Source {
                node: id,
                view,
                rows: None,
            }),
        });
        self.values.len() - 1
    }

    /// Adds an op whose result node `id` sees through `view`.
    fn emit(
        &mut self,
        id: NodeId,
        kind: Kind,
        inputs: Vec<ValueId>,
        size: (usize, usize),
        view: View,
    ) -> Known {
        let output = self.add_value(id, size.0, size.1, view.clone());
        self.ops.push(Op {
            kind,
            inputs,
            output,
        });
        Known::View {
            value: output,
            view,
            sole: true,
        }
    }

    /// Reshape, transpose, slice: data stays, views move.
    fn axes(&self, node: &SourceNode) -> Outcome {
        let fail = || "this reshape, transpose or slice would have to move data".to_string();
        let known = self.input(node, 0)?;
        Ok(match known {
            Known::Const(tensor) => Known::Const(Arc::new(
                moved_constant(&tensor, &node.op).ok_or_else(fail)?,
            )),
            Known::View { value, view, sole } => Known::View {
                value,
                view: moved(&view, &node.op).ok_or_else(fail)?,
                sole,
            },
            Known::Map {
                value,
                view,
                function,
            } => Known::Map {
                value,
                view: moved(&view, &node.op).ok_or_else(fail)?,
                function,
            },
            Known::RowMean { value, view } => Known::RowMean {
                value,
                view: moved(&view, &node.op).ok_or_else(fail)?,
            },
            Known::Centered { value, view } => Known::Centered {
                value,
                view: moved(&view, &node.op).ok_or_else(fail)?,
            },
            Known::Sum { value, view, cover } => Known::Sum {
                value,
                view: moved(&view, &node.op).ok_or_else(fail)?,
                cover,
            },
            Known::Scores(mut s) => {
                s.roles = moved_roles(s.roles, &node.op).ok_or_else(fail)?;
                Known::Scores(s)
            }
            Known::Probs(mut s) => {
                s.roles = moved_roles(s.roles, &node.op).ok_or_else(fail)?;
                Known::Probs(s)
            }
            Known::Lost => Known::Lost,
        })
    }

    /// Sum over axes: of channels (half of a mean) or of rows (half of a pooling).
    fn sum(&mut self, node: &SourceNode, axes: &[usize]) -> Outcome {
        let (value, mut view) = self.activation(node, 0)?;
        let cover = view.cover(axes);
        for axis in axes {
            view.dims[*axis].clear();
        }
        Ok(Known::Sum { value, view, cover })
    }

    /// A sum times 1/n: the mean of each row, or the mean over all rows.
    fn mean(&mut self, id: NodeId, sum: Known, factor: f32) -> Outcome {
        let Known::Sum { value, view, cover } = sum else {
            return Err("not a sum".into());
        };
        let (rows, channels) = (self.values[value].rows, self.values[value].channels);
        let n: usize = cover.iter().map(|f| f.size).product();
        if (f64::from(factor) * n as f64 - 1.0).abs() > 1e-5 {
            return Err(format!("a sum of {n} times {factor} is not a mean"));
        }
        if cover == channel_axis(channels) {
            return Ok(Known::RowMean { value, view });
        }
        if cover
            == [Factor {
                size: rows,
                stride: channels,
            }]
        {
            return Ok(self.emit(id, Kind::MeanPool, vec![value], (1, channels), view));
        }
        Err("only means over all channels of a row or over all rows are supported".into())
    }

    /// RmsNorm of centred rows is a layer norm; gamma and beta are folded in when their Mul and Add come by.
    fn layer_norm(&mut self, id: NodeId, node: &SourceNode, axis: usize, eps: f64) -> Outcome {
        let Known::Centered { value, view } = self.input(node, 0)? else {
            return Err(
                "a normalisation without mean subtraction (RMSNorm) is not supported".into(),
            );
        };
        let (rows, channels) = (self.values[value].rows, self.values[value].channels);
        if view.cover(&[axis]) != channel_axis(channels) || !view.covers(rows * channels) {
            return Err("layer normalisation must run over the channels of each row".into());
        }
        let kind = Kind::LayerNorm {
            eps,
            gamma: vec![1.0; channels],
            beta: vec![0.0; channels],
            gather: None,
        };
        Ok(self.emit(id, kind, vec![value], (rows, channels), view))
    }

    /// Multiplies or adds a per-channel constant into the layer that made `value`, if its kind can take it.
    fn fold(&mut self, value: ValueId, op: Binary, by: &[f32]) -> bool {
        let Some(layer) = self.ops.iter_mut().rev().find(|o| o.output == value) else {
            return false;
        };
        let fold = |x: &mut f32, c: f32| if op == Binary::Add { *x += c } else { *x *= c };
        match &mut layer.kind {
            Kind::Conv {
                weights,
                bias,
                epilogue,
                ..
            }
            | Kind::Linear {
                weights,
                bias,
                epilogue,
            } if *epilogue == Epilogue::default() => {
                if op == Binary::Mul {
                    let depth = weights.len() / by.len().max(1);
                    weights
                        .chunks_mut(depth.max(1))
                        .zip(by)
                        .for_each(|(row, c)| row.iter_mut().for_each(|w| *w *= c));
                }
                bias.iter_mut().zip(by).for_each(|(b, c)| fold(b, *c));
            }
            Kind::Depthwise {
                weights,
                bias,
                epilogue,
                ..
            } if *epilogue == Epilogue::default() => {
                if op == Binary::Mul {
                    weights
                        .chunks_mut(by.len())
                        .for_each(|tap| tap.iter_mut().zip(by).for_each(|(w, c)| *w *= c));
                }
                bias.iter_mut().zip(by).for_each(|(b, c)| fold(b, *c));
            }
            Kind::LayerNorm { gamma, beta, .. } => {
                if op == Binary::Mul {
                    gamma.iter_mut().zip(by).for_each(|(g, c)| *g *= c);
                }
                beta.iter_mut().zip(by).for_each(|(b, c)| fold(b, *c));
            }
            _ => return false,
        }
        true
    }

    /// The model's output as one row of logits.
    fn logits(&mut self) -> Result<ValueId, CompileError> {
        let id = self.source.output;
        let refuse = |found: &str| CompileError::Output {
            found: found.to_string(),
        };
        let node = SourceNode {
            name: String::new(),
            op_name: String::new(),
            op: SourceOp::Input,
            inputs: vec![id],
            shape: vec![],
            uses: 0,
        };
        let (value, view) = self
            .activation(&node, 0)
            .map_err(|reason| refuse(&reason))?;
        let v = &self.values[value];
        if v.rows != 1 || !view.covers(v.channels) {
            return Err(refuse(&format!("{:?}", self.source.nodes[id].shape)));
        }
        Ok(value)
    }
}

/// The cover of the channel axis of a value.
fn channel_axis(channels: usize) -> Vec<Factor> {
    View::strided(&[(channels, 1)]).dims.concat()
}

fn moved(view: &View, op: &SourceOp) -> Option<View> {
    match op {
        SourceOp::MoveAxis { from, to } => view.move_axis(*from, *to),
        SourceOp::AddAxis(axis) => view.add_axis(*axis),
        SourceOp::RmAxis(axis) => view.remove_axis(*axis),
        SourceOp::Reshape { at, from, to } => view.reshape(*at, from.len(), to),
        SourceOp::Slice { axis, start, end } => view.slice(*axis, *start, *end),
        SourceOp::Select { axis, index } => {
            view.slice(*axis, *index, index + 1)?.remove_axis(*axis)
        }
        _ => None,
    }
}

fn moved_constant(tensor: &Tensor, op: &SourceOp) -> Option<Tensor> {
    let mut stride = 1;
    let mut dims: Vec<(usize, usize)> = vec![];
    for size in tensor.shape.iter().rev() {
        dims.insert(0, (*size, stride));
        stride *= size;
    }
    let view = moved(&View::strided(&dims), op)?;
    Some(Tensor {
        shape: view.shape(),
        data: view.scatter(&tensor.data),
    })
}

fn moved_roles(mut roles: Vec<Role>, op: &SourceOp) -> Option<Vec<Role>> {
    match op {
        SourceOp::MoveAxis { from, to } if *from < roles.len() && *to < roles.len() => {
            let role = roles.remove(*from);
            roles.insert(*to, role);
        }
        SourceOp::AddAxis(axis) if *axis <= roles.len() => roles.insert(*axis, Role::One),
        SourceOp::RmAxis(axis) if roles.get(*axis) == Some(&Role::One) => {
            roles.remove(*axis);
        }
        SourceOp::Reshape { at, from, to } => {
            let kept: Vec<Role> = roles
                .get(*at..at + from.len())?
                .iter()
                .copied()
                .filter(|r| *r != Role::One)
                .collect();
            let sizes = |s: &[usize]| s.iter().copied().filter(|s| *s > 1).collect::<Vec<_>>();
            if sizes(from) != sizes(to) || kept.len() != sizes(to).len() {
                return None;
            }
            let mut kept = kept.into_iter();
            let new: Vec<Role> = to
                .iter()
                .map(|s| {
                    if *s > 1 {
                        kept.next().unwrap_or(Role::One)
                    } else {
                        Role::One
                    }
                })
                .collect();
            roles.splice(*at..at + from.len(), new);
        }
        _ => return None,
    }
    Some(roles)
}

/// Helper for element-wise nodes: a pending function of a view.
fn as_map(known: Known) -> Option<(ValueId, View, Expr)> {
    match known {
        Known::View { value, view, .. } => Some((value, view, Expr::X)),
        Known::Map {
            value,
            view,
            function,
        } => Some((value, view, function)),
        _ => None,
    }
}
