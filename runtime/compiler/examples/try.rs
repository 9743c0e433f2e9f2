//! scratch
use vitlet_compiler::*;
fn main() {
    let f = std::env::args().nth(1).unwrap();
    let (g, r) = frontend::load(f.as_ref(), &std::fs::read(&f).unwrap()).map_err(|e| println!("{e}")).unwrap();
    let ir = lower::lower(&g).map_err(|e| println!("{e}")).unwrap();
    for op in &ir.ops { println!("{:12} {:?} -> {} {}x{} {}", op.kind_name(), op.reads().collect::<Vec<_>>(), op.output, ir.values[op.output].rows, ir.values[op.output].channels, ir.values[op.output].name); }
    println!("macs {}", ir.ops.iter().map(|o| ir.macs(o)).sum::<u64>());
    let n = 3*ir.image[0]*ir.image[1];
    let img: Vec<f32> = (0..n).map(|i| ((i*7919)%1000) as f32/250.0-2.0).collect();
    let t=std::time::Instant::now();
    let c = eval::check_lowering(&ir, &r, &img).unwrap();
    println!("{:?} cascade {:e} worst {:?}", t.elapsed(), c.cascade, c.worst());
}
