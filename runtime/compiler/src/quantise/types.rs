//! The integer type of every value, by who reads it.
//!
//! Matrix products and convolutions read s8, attention s8 without −128 on scales of its own, layer norms and residual adds
//! the s16 stream, logits are s32; sums, products and maxima read what there is. Where a value is wanted in two forms, or
//! where the layer that makes it cannot write the form that is wanted, [`prepare`] inserts a [`Kind::Convert`].

use std::collections::BTreeMap;

use vitlet_plan::DType;

use crate::error::{CompileError, UnsupportedNode};
use crate::ir::{Graph, Kind, Op, ValueId};
use crate::memory::parts::{Parts, is_structural, touched};

/// The integer type of every value that exists in the plan.
pub(crate) type Types = BTreeMap<ValueId, DType>;

/// A type as readers and writers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// 8 bits with a zero point.
    S8,
    /// 8 bits from −127 to 127, a scale per head.
    Symmetric,
    /// The stream.
    S16,
    /// Logits.
    S32,
}

impl Form {
    fn dtype(self) -> DType {
        match self {
            Form::S8 | Form::Symmetric => DType::S8,
            Form::S16 => DType::S16,
            Form::S32 => DType::S32,
        }
    }
}

/// What an op can read: the first form is the one it wants most.
fn readable(op: &Op, residual: bool) -> &'static [Form] {
    const ANY: &[Form] = &[Form::S16, Form::S8, Form::Symmetric, Form::S32];
    match op.kind {
        _ if residual => &[Form::S16],
        Kind::Conv { .. }
        | Kind::Linear { .. }
        | Kind::Depthwise { .. }
        | Kind::PoolLinear { .. }
        | Kind::MeanPool => &[Form::S8, Form::Symmetric],
        Kind::Attention { .. } => &[Form::Symmetric],
        Kind::LayerNorm { .. } | Kind::GroupNorm { .. } => &[Form::S16],
        // A table has 256 entries, so more bits do not help.
        Kind::Activate(_) => &[Form::S8, Form::Symmetric, Form::S16, Form::S32],
        Kind::Mul { .. } | Kind::MaxPool(_) => &[Form::S16, Form::S8, Form::Symmetric],
        Kind::Add { .. } | Kind::AddConstant(_) | Kind::Convert => ANY,
        Kind::Slice { .. } | Kind::Concat => ANY,
    }
}

fn can_write(op: &Op, form: Form) -> bool {
    let epilogue = op.epilogue();
    if epilogue.is_some_and(|e| e.residual.is_some()) {
        return form == Form::S16 && epilogue.is_some_and(|e| e.activation.is_none());
    }
    if epilogue.is_some_and(|e| e.activation.is_some()) {
        return form == Form::S8;
    }
    match &op.kind {
        Kind::Depthwise { .. } | Kind::MeanPool => form != Form::S32,
        Kind::LayerNorm { .. } | Kind::GroupNorm { .. } | Kind::MaxPool(_) => {
            matches!(form, Form::S8 | Form::S16)
        }
        Kind::Attention { .. } => matches!(form, Form::S8 | Form::Symmetric),
        Kind::PoolLinear { .. } => form == Form::S32,
        Kind::Activate(_) => form == Form::S8,
        _ => true,
    }
}

/// Whether the op can write the stream's type.
pub(super) fn writes_16_bits(op: &Op) -> bool {
    can_write(op, Form::S16)
}

/// Finds a type for every value. A graph that went through [`prepare`] has one for each.
///
/// # Errors
/// [`CompileError::Unsupported`] with every layer for which no type works.
pub(crate) fn check_types(graph: &Graph) -> Result<Types, CompileError> {
    let choice = Choice::new(graph)?;
    let mut nodes = choice.unused();
    nodes.extend(choice.misfits().into_iter().map(|(op, form)| {
        let reason = format!(
            "its result is needed as {}, which it cannot write",
            form.dtype().name()
        );
        refuse(graph, op, &reason)
    }));
    for (value, form) in choice.unmet() {
        let found = choice.form_of(value).dtype().name();
        let reason = format!(
            "its result is read as {}, but it is {found}",
            form.dtype().name()
        );
        nodes.extend(producer(graph, value).map(|op| refuse(graph, op, &reason)));
    }
    if !nodes.is_empty() {
        return Err(CompileError::Unsupported { nodes });
    }
    let values = touched(graph).into_iter();
    Ok(values.map(|v| (v, choice.form_of(v).dtype())).collect())
}

/// Makes a lowered graph one that the plan can express: splits layers that are too large, and inserts conversions until every
/// value has one type.
///
/// # Errors
/// [`CompileError::Unsupported`] with every layer for which no type works.
pub(crate) fn prepare(graph: &mut Graph) -> Result<(), CompileError> {
    super::split::wide_pools(graph);
    // Every round takes at least one value out of a concatenation, so there are no more rounds than values.
    for _ in 0..graph.values.len() {
        let choice = Choice::new(graph)?;
        let parts: Vec<(ValueId, Form)> = choice
            .misfits()
            .into_iter()
            .map(|(op, form)| (op.output, form))
            .collect();
        let unmet = choice.unmet().into_iter();
        let unmet: Vec<(ValueId, Form, Form)> = unmet
            .map(|(value, form)| (value, choice.form_of(value), form))
            .collect();
        let mut changed = false;
        for (value, form) in parts {
            changed |= convert(graph, value, form, |op, _| op.kind == Kind::Concat);
        }
        if changed {
            continue;
        }
        for (value, found, form) in unmet {
            convert(graph, value, form, |op, residual| {
                let forms = readable(op, residual);
                !is_structural(op) && !forms.contains(&found) && forms.first() == Some(&form)
            });
            if graph.output == value && form == Form::S32 {
                graph.output = insert_convert(graph, value, form);
            }
        }
        break;
    }
    check_types(graph).map(|_| ())
}

/// A form for each set of values that must have the same one.
struct Choice<'g> {
    graph: &'g Graph,
    /// The set of each value.
    set: Vec<usize>,
    forms: BTreeMap<usize, Form>,
    /// What is read: value, and what its reader can read.
    reads: Vec<(ValueId, &'static [Form])>,
}

impl<'g> Choice<'g> {
    fn new(graph: &'g Graph) -> Result<Self, CompileError> {
        let mut choice = Choice {
            graph,
            set: same_type(graph)?,
            forms: BTreeMap::new(),
            reads: reads(graph),
        };
        let mut sets: Vec<usize> = touched(graph).iter().map(|v| choice.set[*v]).collect();
        sets.sort_unstable();
        sets.dedup();
        choice.forms = sets.into_iter().map(|s| (s, choice.choose(s))).collect();
        Ok(choice)
    }

    fn form_of(&self, value: ValueId) -> Form {
        let form = self.forms.get(&self.set[value]);
        form.copied().unwrap_or(Form::S8)
    }

    fn writers(&self, set: usize) -> impl Iterator<Item = &'g Op> + '_ {
        let ops = self.graph.ops.iter().filter(|op| !is_structural(op));
        ops.filter(move |op| self.set[op.output] == set)
    }

    /// The form that all writers can write and that needs fewest conversions; but a stream stays a stream, since the way from
    /// s8 back to s16 loses what was rounded off.
    fn choose(&self, set: usize) -> Form {
        // Between equals the first is taken.
        const FORMS: [Form; 4] = [Form::S16, Form::S8, Form::Symmetric, Form::S32];
        let of_set = |value: ValueId| self.set[value] == set;
        let reads = self.reads.iter().filter(|(v, _)| of_set(*v));
        let reads: Vec<&[Form]> = reads.map(|(_, forms)| *forms).collect();
        let widest = [Form::S32, Form::S16]
            .into_iter()
            .find(|form| reads.contains(&[*form].as_slice()));
        let cost = |form: Form| {
            let image = of_set(self.graph.input) && form != Form::S8;
            let misfits = self.writers(set).filter(|op| !can_write(op, form));
            let (parts, fixed): (Vec<&Op>, Vec<&Op>) = misfits.partition(|op| self.is_part(op));
            let unmet = reads.iter().filter(|r| !r.contains(&form)).count();
            let second = reads.iter().filter(|r| r.first() != Some(&form)).count();
            let narrow = widest.is_some_and(|w| w != form);
            let impossible = usize::from(image) + fixed.len();
            (impossible, narrow, parts.len() + unmet, second)
        };
        let best = FORMS.into_iter().min_by_key(|form| cost(*form));
        best.unwrap_or(Form::S8)
    }

    /// Whether a result can be converted before it becomes a part of its whole.
    fn is_part(&self, op: &Op) -> bool {
        let mut ops = self.graph.ops.iter();
        ops.any(|o| o.kind == Kind::Concat && o.inputs.contains(&op.output))
    }

    /// Ops that cannot write the form of their result.
    fn misfits(&self) -> Vec<(&'g Op, Form)> {
        let ops = self.graph.ops.iter().filter(|op| !is_structural(op));
        ops.map(|op| (op, self.form_of(op.output)))
            .filter(|(op, form)| !can_write(op, *form))
            .collect()
    }

    /// Values that are read in another form than theirs, with the form that the reader wants most.
    fn unmet(&self) -> Vec<(ValueId, Form)> {
        let mut unmet: Vec<(ValueId, Form)> = self
            .reads
            .iter()
            .filter(|(v, forms)| !forms.contains(&self.form_of(*v)))
            .filter_map(|(v, forms)| Some((*v, *forms.first()?)))
            .collect();
        unmet.sort_unstable();
        unmet.dedup();
        unmet
    }

    /// Layers that nothing reads.
    fn unused(&self) -> Vec<UnsupportedNode> {
        let read = |set: usize| self.reads.iter().any(|(v, _)| self.set[*v] == set);
        let ops = self.graph.ops.iter().filter(|op| !is_structural(op));
        ops.filter(|op| !read(self.set[op.output]))
            .map(|op| refuse(self.graph, op, "its result is not used"))
            .collect()
    }
}

/// What the plan's operations read, and the logits.
fn reads(graph: &Graph) -> Vec<(ValueId, &'static [Form])> {
    let mut reads: Vec<(ValueId, &'static [Form])> = vec![];
    for op in graph.ops.iter().filter(|op| !is_structural(op)) {
        reads.extend(op.inputs.iter().map(|v| (*v, readable(op, false))));
        let residual = op.epilogue().and_then(|e| e.residual);
        reads.extend(residual.map(|v| (v, readable(op, true))));
    }
    reads.push((graph.output, &[Form::S32]));
    reads
}

/// Numbers the sets of values of one type: a whole and its parts, the operand and the result of a maximum.
fn same_type(graph: &Graph) -> Result<Vec<usize>, CompileError> {
    let parts = Parts::new(graph)?;
    let mut set: Vec<usize> = (0..graph.values.len()).collect();
    let mut join = |a: ValueId, b: ValueId| {
        let (from, to) = (set[a], set[b]);
        set.iter_mut().filter(|s| **s == from).for_each(|s| *s = to);
    };
    for block in &parts.blocks {
        block
            .members
            .windows(2)
            .for_each(|pair| join(pair[0].0, pair[1].0));
    }
    for op in &graph.ops {
        if let (Kind::MaxPool(_), Some(input)) = (&op.kind, op.inputs.first()) {
            join(op.output, *input);
        }
    }
    Ok(set)
}

fn producer(graph: &Graph, value: ValueId) -> Option<&Op> {
    graph.ops.iter().find(|op| op.output == value)
}

/// Inserts a conversion right after the op that makes `value`, and lets the readers that `wants` names (ops, and whether the
/// value is the op's residual) read its result. False when there are none.
fn convert(
    graph: &mut Graph,
    value: ValueId,
    form: Form,
    wants: impl Fn(&Op, bool) -> bool,
) -> bool {
    let twin = graph.values.len();
    let mut changed = false;
    for op in &mut graph.ops {
        let residual_too = wants(op, true);
        if op.inputs.contains(&value) && wants(op, false) {
            let inputs = op.inputs.iter_mut().filter(|v| **v == value);
            inputs.for_each(|v| *v = twin);
            replace_operands(op, value, twin);
            changed = true;
        }
        let residual = op.epilogue_mut().and_then(|e| e.residual.as_mut());
        if let Some(residual) = residual.filter(|v| **v == value && residual_too) {
            *residual = twin;
            changed = true;
        }
    }
    if changed {
        insert_convert(graph, value, form);
    }
    changed
}

/// Renames a value in the operands of an attention.
fn replace_operands(op: &mut Op, value: ValueId, twin: ValueId) {
    let Kind::Attention { q, k, v, .. } = &mut op.kind else {
        return;
    };
    for operand in [q, k, v] {
        if operand.value == Some(value) {
            operand.value = Some(twin);
        }
    }
}

/// Adds the conversion; returns its result.
fn insert_convert(graph: &mut Graph, value: ValueId, form: Form) -> ValueId {
    let mut twin = graph.values[value].clone();
    twin.name = format!("{} ({})", twin.name, form.dtype().name());
    let output = graph.values.len();
    graph.values.push(twin);
    let made = graph.ops.iter().position(|op| op.output == value);
    let convert = Op {
        kind: Kind::Convert,
        inputs: vec![value],
        output,
    };
    graph.ops.insert(made.map_or(0, |at| at + 1), convert);
    output
}

fn refuse(graph: &Graph, op: &Op, reason: &str) -> UnsupportedNode {
    UnsupportedNode {
        name: graph.values[op.output].name.clone(),
        op: op.kind_name().into(),
        input_shapes: op
            .reads()
            .map(|v| vec![graph.values[v].rows, graph.values[v].channels])
            .collect(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::Builder;

    fn prepared(mut graph: Graph) -> (Graph, Types) {
        prepare(&mut graph).expect("there is a type for each value");
        let types = check_types(&graph).expect("prepared");
        (graph, types)
    }

    fn converts(graph: &Graph) -> Vec<(ValueId, ValueId)> {
        let ops = graph.ops.iter().filter(|op| op.kind == Kind::Convert);
        ops.map(|op| (op.inputs[0], op.output)).collect()
    }

    #[test]
    fn a_stream_that_a_product_reads_has_a_narrow_twin() {
        let mut b = Builder::new(8);
        let x = b.linear(0, None);
        let y = b.linear(x, Some(x));
        let n = b.norm(y);
        let end = b.linear(n, None);
        let (graph, types) = prepared(b.finish(end));
        let [(from, twin)] = converts(&graph)[..] else {
            panic!("one conversion: {:?}", converts(&graph));
        };
        assert_eq!((from, types[&x], types[&twin]), (x, DType::S16, DType::S8));
        let ops: Vec<_> = graph.ops.iter().map(|op| op.kind_name()).collect();
        assert_eq!(ops, ["linear", "convert", "linear", "layernorm", "linear"]);
        assert_eq!(
            (graph.ops[2].inputs[0], graph.ops[2].reads().last()),
            (twin, Some(x))
        );
        assert_eq!((types[&n], types[&end]), (DType::S8, DType::S32));
    }

    #[test]
    fn sums_are_wide_unless_a_product_reads_them() {
        let mut b = Builder::new(8);
        let (x, y) = (b.linear(0, None), b.linear(0, None));
        let a = b.add(x, y);
        let c = b.add(a, x);
        let end = b.linear(c, None);
        let (graph, types) = prepared(b.finish(end));
        assert_eq!(converts(&graph), []);
        assert_eq!(
            (types[&x], types[&a], types[&c]),
            (DType::S16, DType::S16, DType::S8)
        );
    }

    #[test]
    fn a_part_that_cannot_have_the_type_of_its_whole_is_converted_first() {
        let mut b = Builder::new(8);
        let x = b.linear(0, None);
        let function = crate::lower::expr::Expr::X.unary(crate::frontend::Unary::Gelu);
        let g = b.op(Kind::Activate(function), &[x], 8);
        let z = b.concat(&[x, g]);
        let n = b.norm(z);
        let end = b.linear(n, None);
        let (graph, types) = prepared(b.finish(end));
        let [(from, twin)] = converts(&graph)[..] else {
            panic!("one conversion: {:?}", converts(&graph));
        };
        assert_eq!((from, types[&g], types[&twin]), (g, DType::S8, DType::S16));
        assert_eq!(types[&z], DType::S16);
    }

    #[test]
    fn logits_that_are_no_plain_product_are_converted() {
        let mut b = Builder::new(1);
        let x = b.linear(0, None);
        let y = b.linear(0, None);
        let end = b.norm(x);
        let end = b.linear(y, Some(end));
        let (graph, types) = prepared(b.finish(end));
        assert_eq!(types[&graph.output], DType::S32);
        assert_eq!(converts(&graph).last(), Some(&(end, graph.output)));
    }
}
