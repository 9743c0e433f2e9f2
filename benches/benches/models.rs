//! One inference of every model, with every kernel of this CPU.

use anyhow::Result;
use criterion::{Criterion, Throughput};
use vitlet::{Kernel, Options, Session};
use vitlet_benches::{image, networks};

fn models(criterion: &mut Criterion) -> Result<()> {
    for network in networks()? {
        let plan = network.plan()?;
        let image = image(&plan);
        let mut group = criterion.benchmark_group(&network.name);
        group.throughput(Throughput::Elements(plan.macs()));
        // The reference takes seconds, and says nothing of speed.
        for kernel in Kernel::available().filter(|kernel| kernel.name() != Kernel::SCALAR.name()) {
            let options = Options {
                kernel: Some(kernel),
                ..Options::default()
            };
            let mut session = Session::new(&plan, &options)?;
            session.run(&image)?;
            group.bench_function(kernel.name(), |bencher| {
                bencher.iter(|| session.run(&image).map(<[i32]>::len));
            });
        }
        group.finish();
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    models(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
