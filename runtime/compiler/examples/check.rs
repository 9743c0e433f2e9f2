//! scratch
#![allow(clippy::all, missing_docs)]
use std::time::Instant;
use vitlet_compiler::ir::Kind;
use vitlet_compiler::{Model, Normalisation, Options};
use vitlet_engine::Engine;
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, DType, Plan};
use vitlet_preprocess::{Interpolation, Preprocess, Resize};

fn image(seed: u64, [h, w]: [usize; 2]) -> Vec<u8> {
    let mut s = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut rnd = || {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        (s >> 40) as f64 / (1u64 << 24) as f64
    };
    let waves: Vec<[f64; 6]> = (0..12)
        .map(|_| [rnd() * 6.0, rnd() * 6.0, rnd() * 6.28, rnd(), rnd(), rnd()])
        .collect();
    let contrast = 30.0 + 50.0 * rnd();
    let base = 60.0 + 130.0 * rnd();
    let grain = 20.0 * rnd();
    let mut out = vec![];
    for y in 0..h {
        for x in 0..w {
            let (fy, fx) = (y as f64 / h as f64, x as f64 / w as f64);
            for c in 0..3 {
                let mut v = 0.0;
                for k in &waves {
                    v += (6.28 * (k[0] * k[0] * fy + k[1] * k[1] * fx) + k[2]).sin()
                        * (k[3 + c] - 0.3);
                }
                v = base + contrast * v * 0.5 + grain * (rnd() - 0.5);
                out.push(v.clamp(0.0, 255.0) as u8);
            }
        }
    }
    out
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let verbose = args.iter().any(|a| a == "-v");
    let fast = args.iter().any(|a| a == "-f");
    let scalar = !args.iter().any(|a| a == "-s");
    for path in args.iter().filter(|a| !a.starts_with('-')) {
        let t = Instant::now();
        match check(path, verbose, fast, scalar) {
            Ok(line) => println!(
                "OK   {} {line} [{:.0?}]",
                path.rsplit('/').next().unwrap(),
                t.elapsed()
            ),
            Err(e) => println!("FAIL {} {e}", path.rsplit('/').next().unwrap()),
        }
    }
}

fn db(signal: f64, noise: f64) -> f64 {
    10.0 * (signal / noise.max(1e-300)).log10()
}

fn check(path: &str, verbose: bool, fast: bool, scalar: bool) -> Result<String, String> {
    let model = Model::open(path.as_ref()).map_err(|e| e.to_string())?;
    let graph = model.graph();
    let n = Normalisation::IMAGENET;
    let calib = if fast { 2 } else { 6 };
    let images: Vec<Vec<u8>> = (0..calib + 2)
        .map(|s| image(s + 1, model.image_size()))
        .collect();
    let t = Instant::now();
    let lowering = model
        .check_lowering(&n, &images[0])
        .map_err(|e| e.to_string())?;
    let t_lower = t.elapsed();
    let worst = lowering.worst().map(|w| (w.error, w.kind, w.name.clone()));
    let mut c = model.calibrator(&n).map_err(|e| e.to_string())?;
    let t = Instant::now();
    for i in &images[..calib as usize] {
        c.add(i).map_err(|e| e.to_string())?;
    }
    let ranges = c.finish().map_err(|e| e.to_string())?;
    let t_cal = t.elapsed();
    let [h, w] = model.image_size();
    let options = Options {
        normalisation: n,
        preprocess: Preprocess::new(w as u32, h as u32, Resize::Squash, Interpolation::Bilinear)
            .map_err(|e| e.to_string())?,
        labels: &[],
        model_name: "x",
    };
    let t = Instant::now();
    let bytes = model
        .compile(&ranges, &options)
        .map_err(|e| e.to_string())?;
    let t_compile = t.elapsed();
    let plan = Plan::parse(&bytes).map_err(|e| e.to_string())?;
    let real: Vec<_> = graph
        .ops
        .iter()
        .filter(|o| !matches!(o.kind, Kind::Slice { .. } | Kind::Concat))
        .collect();
    assert_eq!(real.len(), plan.ops().len());
    let nodes: Vec<usize> = {
        let mut n: Vec<usize> = real
            .iter()
            .filter_map(|o| graph.values[o.output].source.as_ref())
            .map(|s| s.node)
            .collect();
        n.push(graph.values[graph.output].source.as_ref().unwrap().node);
        n.sort();
        n.dedup();
        n
    };
    let probe = model.reference().probe(&nodes).map_err(|e| e.to_string())?;
    let mut stats = vec![(0f64, 0f64); real.len()];
    let (mut s, mut e, mut t_run) = (0.0, 0.0, 0.0);
    let mut hash = 0u64;
    for img in &images[calib as usize..] {
        let pix = |x: u8, c: usize| (f32::from(x) / 255.0 - n.mean[c]) / n.std[c];
        let input: Vec<f32> = (0..3)
            .flat_map(|c| img.iter().skip(c).step_by(3).map(move |x| pix(*x, c)))
            .collect();
        let outs = probe.run(&input).map_err(|e| e.to_string())?;
        let mut per_kernel: Vec<Vec<u64>> = vec![];
        for kernel in Kernel::available() {
            if !scalar && kernel.name() == "scalar" {
                continue;
            }
            let mut engine = Engine::new(&plan, kernel);
            let mut arena = AlignedBytes::zeroed(engine.arena_len());
            let mut hashes = vec![];
            let ids: Vec<_> = plan.ops().map(|o| o.output).collect();
            let collect = kernel.name() == Kernel::detect().name();
            let mut index = 0;
            let t = Instant::now();
            if collect {
                engine.run(&mut arena, img).map_err(|e| e.to_string())?;
                t_run = t.elapsed().as_secs_f64() * 1e3;
            }
            let logits = engine
                .run_traced(&mut arena, img, &mut |_, _, out: &[u8]| {
                    let mut h = 0xcbf2_9ce4_8422_2325u64;
                    for b in out {
                        h = (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
                    }
                    hashes.push(h);
                    if collect {
                        let op = real[index];
                        let v = &graph.values[op.output];
                        if let Some(src) = &v.source {
                            let want = src.gather(
                                &outs[nodes.binary_search(&src.node).unwrap()].data,
                                v.rows,
                                v.channels,
                            );
                            let tensor = plan.tensor(ids[index]).unwrap();
                            let q: Vec<i32> = match tensor.dtype {
                                DType::S8 => out.iter().map(|b| i32::from(*b as i8)).collect(),
                                DType::S16 => out
                                    .chunks(2)
                                    .map(|b| i32::from(i16::from_le_bytes([b[0], b[1]])))
                                    .collect(),
                                DType::S32 => out
                                    .chunks(4)
                                    .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                                    .collect(),
                            };
                            for (i, (q, w)) in q.iter().zip(&want).enumerate() {
                                let s = tensor.scale_of(i % v.channels).unwrap_or(0.0);
                                let r = f64::from(s) * f64::from(q - tensor.zero_point);
                                stats[index].0 += f64::from(*w).powi(2);
                                stats[index].1 += (r - f64::from(*w)).powi(2);
                            }
                        }
                    }
                    index += 1;
                })
                .map_err(|e| e.to_string())?
                .to_vec();
            if collect {
                let src = graph.values[graph.output].source.as_ref().unwrap();
                let want = &outs[nodes.binary_search(&src.node).unwrap()].data;
                let scale = f64::from(plan.output().scale);
                for (q, w) in logits.iter().zip(want) {
                    s += f64::from(*w).powi(2);
                    e += (f64::from(*q) * scale - f64::from(*w)).powi(2);
                }
                for h in &hashes {
                    hash = hash.wrapping_mul(31).wrapping_add(*h);
                }
            }
            per_kernel.push(hashes);
        }
        for k in &per_kernel[1..] {
            for (i, (a, b)) in per_kernel[0].iter().zip(k).enumerate() {
                if a != b {
                    let v = &graph.values[real[i].output];
                    return Err(format!(
                        "kernels differ at op {i} {} `{}`",
                        real[i].kind_name(),
                        v.name
                    ));
                }
            }
        }
    }
    if verbose {
        for (i, (op, (s, e))) in real.iter().zip(&stats).enumerate() {
            let v = &graph.values[op.output];
            let t = plan.tensor(plan.ops().nth(i).unwrap().output).unwrap();
            let q = if v.source.is_some() {
                format!("{:6.1}", db(*s, *e))
            } else {
                "     -".into()
            };
            println!(
                "{i:4} {:11} {:4} {q} dB {:6}x{:<5} {}",
                op.kind_name(),
                t.dtype.name(),
                v.rows,
                v.channels,
                v.name
            );
        }
    }
    let min = real
        .iter()
        .zip(&stats)
        .enumerate()
        .filter(|(_, (_, s))| s.0 > 0.0)
        .map(|(i, (o, s))| (db(s.0, s.1), i, o.kind_name()))
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let converts = real.iter().filter(|o| o.kind == Kind::Convert).count();
    Ok(format!(
        "logits {:.1} dB; worst {:.1?}; lowering cascade {:.1e} worst {:?} ({} layers); ops {} converts {} copies {} floats {} arena {} KB MACs {:.0} M; run {:.0} ms; lower {:.1?} cal {:.1?} compile {:.1?}; hash {hash:016x}",
        db(s, e),
        min,
        lowering.cascade,
        worst,
        lowering.layers.len(),
        real.len(),
        converts,
        plan.copies(),
        plan.float_ops(),
        plan.tensors_len() / 1024,
        plan.macs() as f64 / 1e6,
        t_run,
        t_lower,
        t_cal,
        t_compile
    ))
}
