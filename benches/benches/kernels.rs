//! Every operation of the models at every shape it has there, with every kernel of this CPU; throughput is in multiply-accumulates, or
//! in output elements where an operation has none.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use vitlet::{AlignedBytes, Kernel, Op, Plan};
use vitlet_benches::{image, networks};
use vitlet_engine::Engine;

/// What an operation is called here: `linear/s8 1x1x3136x32 to s8 1x1x3136x256`. Two with the same name do the same work.
fn title(plan: &Plan<'_>, op: &Op<'_>) -> String {
    let typed = |id| match plan.tensor(id) {
        Some(tensor) => {
            let sides = tensor.shape.map(|side| side.to_string());
            format!("{} {}", tensor.dtype.name(), sides.join("x"))
        }
        None => String::new(),
    };
    let inputs: Vec<String> = op.inputs.iter().flatten().copied().map(typed).collect();
    let macs = op.kind.macs();
    format!(
        "{} to {}, {macs} MACs",
        inputs.join(" and "),
        typed(op.output)
    )
}

/// Times one op of a plan with every kernel. The arena holds what an inference left there.
fn op(
    group: &mut BenchmarkGroup<'_, WallTime>,
    plan: &Plan<'_>,
    (index, op): (usize, &Op<'_>),
    title: &str,
    arena: &mut [u8],
) -> Result<()> {
    let output = plan.tensor(op.output).and_then(|tensor| tensor.elements());
    let elements = output.context("a verified plan's tensors have a size")? as u64;
    let work = if op.kind.macs() > 0 {
        op.kind.macs()
    } else {
        elements
    };
    group.throughput(Throughput::Elements(work));
    for kernel in Kernel::available() {
        let mut engine = Engine::new(plan, kernel);
        engine.run_single(arena, index)?;
        let id = BenchmarkId::new(title, kernel.name());
        group.bench_function(id, |bencher| {
            bencher.iter(|| engine.run_single(arena, index));
        });
    }
    Ok(())
}

fn kernels(criterion: &mut Criterion) -> Result<()> {
    let mut seen = BTreeSet::new();
    for network in networks()? {
        let plan = network.plan()?;
        let mut arena = AlignedBytes::zeroed(plan.arena_len(1));
        Engine::new(&plan, Kernel::detect()).run(&mut arena, &image(&plan))?;
        for (index, planned) in plan.ops().enumerate() {
            let (kind, title) = (planned.kind.name(), title(&plan, &planned));
            if seen.insert((kind, title.clone())) {
                let mut group = criterion.benchmark_group(kind);
                op(&mut group, &plan, (index, &planned), &title, &mut arena)?;
                group.finish();
            }
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    kernels(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
