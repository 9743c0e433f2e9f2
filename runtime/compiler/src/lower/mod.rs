//! Recognises whole layers in the decluttered graph, by structure and never by name.
//!
//! One pass in topological order gives every source node a meaning (`Known`): a constant, an activation (a view of rows of IR values,
//! `seen`), or a piece of a pattern that is not complete yet (a row mean, centred rows, attention logits). Layers come out where a
//! pattern completes:
//!
//! | seen | becomes |
//! |---|---|
//! | Conv with constant weights | `Conv`, `Depthwise`, or `Linear` for 1×1 |
//! | SumPool, MaxPool | `Depthwise` with weights that are all alike; `MaxPool` |
//! | EinSum of an activation and a constant | `Linear` (weights permuted to `[out][in]`) |
//! | Sum over channels ·1/n → Sub → RmsNorm | `LayerNorm`; over several rows put side by side: `LayerNorm` with a gather; over everything: `GroupNorm` |
//! | EinSum of two activations → (scale, bias, mask) → Softmax → EinSum with a third | `Attention` |
//! | element-wise chains of one activation | `Activate` (a table; [`expr`]) |
//! | Add or Mul with a per-channel constant | folded into the layer before |
//! | Add of a constant that varies over rows | `AddConstant` |
//! | Sum over all rows ·1/n, maximum over all rows | `MeanPool`, `MaxPool` |
//! | Add of two activations, Mul of two | `Add`, `Mul` |
//!
//! Reshapes, transposes and slices only change views ([`crate::view`]); concatenations, gathers and cyclic shifts only change the list
//! of rows a view lies over. `fuse` then moves activations, residual adds and the pooled head into the ops before them. A
//! node that fits nothing is reported with its shapes and what would fit; all of them come in one error.
//!
//! | file | job |
//! |---|---|
//! | `state.rs` | what is known of a node; `seen.rs`: an activation as rows of values and constants |
//! | `rowwise.rs` | layers that treat every row alike, run once per part; folding into the layer before |
//! | `convolution.rs`, `einsum.rs`, `norm.rs`, `reduce.rs` | convolutions and pooling windows, linear layers, normalisation, sums and maxima |
//! | `attention/` | from the product of two activations to that with a third; bias and mask |
//! | `elementwise.rs`, `sum.rs`, `product.rs`, `expr.rs` | element-wise nodes: with constants, of two activations, scalar functions |
//! | `logits.rs`, `fuse.rs` | the model's output; what moves into the ops before it once the graph is whole |
//!
//! Nothing here touches tract, integers or the arena: the input is `frontend`'s plain graph, the result `ir`'s.

mod attention;
mod convolution;
mod einsum;
mod elementwise;
pub mod expr;
mod fuse;
mod logits;
mod norm;
mod product;
mod reduce;
mod rowwise;
mod seen;
mod state;
mod sum;

use std::sync::Arc;

use crate::error::{CompileError, UnsupportedNode};
use crate::frontend::{NodeId, SourceGraph, SourceNode, SourceOp, Tensor};
use crate::ir::{Graph, Kind, Op, Source, Value, ValueId};
use crate::view::{Factor, View};
use expr::Expr;
use seen::{Base, Seen};
use state::Known;

/// Lowers a decluttered model to layers.
///
/// # Errors
/// [`CompileError::Unsupported`] with every node that fits no layer; [`CompileError::Input`] or [`CompileError::Output`] when
/// the model is not a classifier of one image.
pub fn lower(source: &SourceGraph) -> Result<Graph, CompileError> {
    let (input, image, view) = image_value(source)?;
    let mut lowering = Lowering {
        source,
        readers: readers(source),
        known: vec![],
        values: vec![input],
        ops: vec![],
    };
    let mut refused = vec![];
    for (id, node) in source.nodes.iter().enumerate() {
        let known = if id == source.input {
            Ok(Known::View {
                seen: Seen::value(0, view.clone()),
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

/// The nodes that read each node.
fn readers(source: &SourceGraph) -> Vec<Vec<NodeId>> {
    let mut readers = vec![vec![]; source.nodes.len()];
    for (id, node) in source.nodes.iter().enumerate() {
        for input in &node.inputs {
            readers[*input].push(id);
        }
    }
    readers
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
    /// The nodes that read each node.
    readers: Vec<Vec<NodeId>>,
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
                 functions, sums and products, pooling, reshape, transpose, slice, concatenation, gather)"
                    .into(),
            ),
            _ if lost => Ok(Known::Lost),
            SourceOp::Const(tensor) => Ok(Known::Const(Arc::clone(tensor))),
            SourceOp::Conv(spec) => self.convolution(id, node, spec),
            SourceOp::SumPool { window, average } => self.sum_pool(id, node, window, *average),
            SourceOp::MaxPool(window) => self.max_pool(id, node, window),
            SourceOp::EinSum { inputs, output } => self.einsum(id, node, inputs, output),
            SourceOp::Binary(op) => self.binary(id, node, *op),
            SourceOp::Unary(op) => self.unary(node, *op),
            SourceOp::Sum(axes) => self.sum(id, node, axes),
            SourceOp::Max(axes) => self.maximum(id, node, axes),
            SourceOp::RmsNorm { axis, eps } => self.norm(id, node, *axis, *eps),
            SourceOp::Softmax(axes) => self.softmax(id, node, axes),
            SourceOp::Concat(axis) => self.concat(id, node, *axis),
            SourceOp::MoveAxis { .. }
            | SourceOp::AddAxis(_)
            | SourceOp::RmAxis(_)
            | SourceOp::Reshape { .. }
            | SourceOp::Select { .. }
            | SourceOp::Step { .. }
            | SourceOp::Gather { .. }
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

    /// The `index`-th input as an activation; a pending element-wise function becomes an op.
    fn activation(&mut self, node: &SourceNode, index: usize) -> Result<Seen, String> {
        match self.input(node, index)? {
            Known::View { seen, .. } => Ok(seen),
            Known::Map { seen, function } => {
                let id = node.inputs[index];
                let seen = self.activate(id, &seen, &function)?;
                self.known[id] = Known::View {
                    seen: seen.clone(),
                    sole: false,
                };
                Ok(seen)
            }
            other => Err(format!(
                "input {index} is {} where an activation is expected",
                other.describe()
            )),
        }
    }

    /// The `index`-th input as a whole value in raster order; a run of rows of a value becomes a slice.
    fn whole_value(&mut self, node: &SourceNode, index: usize) -> Result<(ValueId, View), String> {
        let seen = self.activation(node, index)?;
        self.as_whole(seen)
            .ok_or_else(|| "the operand must be rows of one tensor that follow each other".into())
    }

    fn as_whole(&mut self, seen: Seen) -> Option<(ValueId, View)> {
        if let Some(value) = seen.as_value()
            && seen.is_whole(&self.values)
        {
            return Some((value, seen.view));
        }
        let seen = self.compact(seen)?;
        let value = seen.as_value()?;
        seen.is_whole(&self.values).then_some((value, seen.view))
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

    /// A new value of that size; `id` names it, and computes it if `source` says how.
    fn add_value(
        &mut self,
        id: NodeId,
        (rows, channels): (usize, usize),
        source: Option<Source>,
    ) -> ValueId {
        let name = self.source.nodes[id].name.clone();
        self.values.push(Value {
            name,
            rows,
            channels,
            source,
        });
        self.values.len() - 1
    }

    fn push(&mut self, kind: Kind, inputs: Vec<ValueId>, output: ValueId) -> ValueId {
        self.ops.push(Op {
            kind,
            inputs,
            output,
        });
        output
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
        let source = Some(Source {
            node: id,
            view: view.clone(),
            rows: None,
        });
        let output = self.add_value(id, size, source);
        self.push(kind, inputs, output);
        Known::View {
            seen: Seen::value(output, view),
            sole: true,
        }
    }

    /// Reshape, transpose, slice, gather: data stays, views and lists of rows change.
    fn axes(&self, node: &SourceNode) -> Outcome {
        let fail =
            || "this reshape, transpose, slice or gather would have to move data".to_string();
        let moved = |seen: &Seen| self.moved_seen(seen, &node.op).ok_or_else(fail);
        let moved_view = |view: &View| moved_view(view, &node.op).ok_or_else(fail);
        Ok(match self.input(node, 0)? {
            Known::Const(tensor) => Known::Const(Arc::new(
                moved_constant(&tensor, &node.op).ok_or_else(fail)?,
            )),
            Known::View { seen, sole } => Known::View {
                seen: moved(&seen)?,
                sole,
            },
            Known::Map { seen, function } => Known::Map {
                seen: moved(&seen)?,
                function,
            },
            Known::Sum { seen, cover, view } => Known::Sum {
                seen,
                cover,
                view: moved_view(&view)?,
            },
            Known::RowMean { seen, cover, view } => Known::RowMean {
                seen,
                cover,
                view: moved_view(&view)?,
            },
            Known::Centered { seen, cover } => Known::Centered {
                seen: Seen {
                    view: moved_view(&seen.view)?,
                    base: seen.base,
                },
                cover,
            },
            Known::Scores(s) => {
                Known::Scores(attention::moved_scores(s, &node.op).ok_or_else(fail)?)
            }
            Known::Probs(s) => Known::Probs(attention::moved_scores(s, &node.op).ok_or_else(fail)?),
            Known::Weighted { .. } => {
                return Err(
                    "values times attention probabilities must be summed over the keys".into(),
                );
            }
            Known::Lost => Known::Lost,
        })
    }

    /// The tensor after an operation on its axes: by its view alone, or else by a new list of rows.
    fn moved_seen(&self, seen: &Seen, op: &SourceOp) -> Option<Seen> {
        if let SourceOp::Gather { axis, entries } = op {
            return seen.gather(*axis, entries, &self.values);
        }
        if let Some(view) = moved_view(&seen.view, op) {
            return Some(Seen {
                base: seen.base.clone(),
                view,
            });
        }
        let seen = seen.in_order(&self.values)?;
        let view = moved_view(&seen.view, op)?;
        Some(Seen {
            base: seen.base,
            view,
        })
    }

    /// Concatenation: a list of the operands' rows. Constants among them (class tokens, window tokens) stay constant.
    fn concat(&mut self, id: NodeId, node: &SourceNode, axis: usize) -> Outcome {
        let mut constants = vec![];
        let mut seen = vec![];
        let mut all_sole = true;
        for index in 0..node.inputs.len() {
            match self.input(node, index)? {
                Known::Const(tensor) => {
                    constants.push((index, tensor));
                    seen.push(None);
                }
                known => {
                    all_sole &= matches!(known, Known::View { sole: true, .. });
                    seen.push(Some(self.activation(node, index)?));
                }
            }
        }
        let fail = || {
            "a concatenation is supported of rows (or of whole channel axes) of the same number of channels"
                .to_string()
        };
        let Some(like) = seen.iter().flatten().next().cloned() else {
            let tensors: Vec<_> = constants.iter().map(|(_, t)| t.as_ref()).collect();
            return Ok(Known::Const(Arc::new(concat_constants(
                &tensors,
                axis,
                &node.shape,
            ))));
        };
        let channels = like.base.channels(&self.values);
        for (index, tensor) in constants {
            seen[index] = Some(Seen::constant(&tensor, &like.view, channels).ok_or_else(fail)?);
        }
        let pieces: Vec<Seen> = seen.into_iter().flatten().collect();
        let seen = Seen::concat(&pieces, axis, &self.values).ok_or_else(fail)?;
        let seen = self.united(id, seen);
        Ok(Known::View {
            seen,
            sole: all_sole,
        })
    }
}

/// The cover of the channel axis of a value.
fn channel_axis(channels: usize) -> Vec<Factor> {
    View::strided(&[(channels, 1)]).dims.concat()
}

fn moved_view(view: &View, op: &SourceOp) -> Option<View> {
    match op {
        SourceOp::MoveAxis { from, to } => view.move_axis(*from, *to),
        SourceOp::AddAxis(axis) => view.add_axis(*axis),
        SourceOp::RmAxis(axis) => view.remove_axis(*axis),
        SourceOp::Reshape { at, from, to } => view.reshape(*at, from.len(), to),
        SourceOp::Slice { axis, start, end } => view.slice(*axis, *start, *end),
        SourceOp::Step {
            axis,
            first,
            stride,
        } => view.step(*axis, *first, *stride),
        SourceOp::Select { axis, index } => {
            view.slice(*axis, *index, index + 1)?.remove_axis(*axis)
        }
        _ => None,
    }
}

fn row_major(shape: &[usize]) -> View {
    let mut stride = 1;
    let mut dims: Vec<(usize, usize)> = vec![];
    for size in shape.iter().rev() {
        dims.insert(0, (*size, stride));
        stride *= size;
    }
    View::strided(&dims)
}

fn moved_constant(tensor: &Tensor, op: &SourceOp) -> Option<Tensor> {
    if let SourceOp::Gather { axis, entries } = op {
        let n = *tensor.shape.get(*axis)?;
        let inner: usize = tensor.shape[axis + 1..].iter().product();
        let block = |outer: &[f32]| -> Option<Vec<f32>> {
            let picked = entries
                .iter()
                .map(|e| outer.get(e * inner..(e + 1) * inner));
            Some(picked.collect::<Option<Vec<_>>>()?.concat())
        };
        let data = tensor.data.chunks((n * inner).max(1)).map(block);
        let mut shape = tensor.shape.clone();
        shape[*axis] = entries.len();
        let data = data.collect::<Option<Vec<_>>>()?.concat();
        return Some(Tensor { shape, data });
    }
    let view = moved_view(&row_major(&tensor.shape), op)?;
    Some(Tensor {
        shape: view.shape(),
        data: view.scatter(&tensor.data),
    })
}

fn concat_constants(tensors: &[&Tensor], axis: usize, shape: &[usize]) -> Tensor {
    let outer: usize = shape.iter().take(axis).product();
    let block = |t: &Tensor, i: usize| {
        let len = t.data.len() / outer.max(1);
        t.data[i * len..][..len].to_vec()
    };
    let data = (0..outer).flat_map(|i| tensors.iter().flat_map(move |t| block(t, i)));
    Tensor {
        shape: shape.to_vec(),
        data: data.collect(),
    }
}

/// Helper for element-wise nodes: a pending function of an activation.
fn as_map(known: Known) -> Option<(Seen, Expr)> {
    match known {
        Known::View { seen, .. } => Some((seen, Expr::X)),
        Known::Map { seen, function } => Some((seen, function)),
        _ => None,
    }
}

/// True when the matrix is one value.
fn single(base: &Base) -> Option<ValueId> {
    match base {
        Base::Value(v) => Some(*v),
        Base::Rows(_) => None,
    }
}
