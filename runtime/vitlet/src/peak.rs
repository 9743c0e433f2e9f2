//! What this machine's matrix products can reach: the yardstick of `vitlet profile`.

use std::thread;
use std::time::{Duration, Instant};

use vitlet_kernels::{Gemm, Kernel, Linear, Out, Output, Requantise, packed_len, padded_n};

/// The layer that is run: input, weights and output are 25 KB together, so that they stay in a first-level cache of 32 KB, and rows
/// are long, so that what is done once per output does not count.
const ROWS: usize = 16;
const K: usize = 512;
const N: usize = 32;
/// One measurement, and how many are made: the best counts, since whatever else the machine does can only slow one down.
const MEASUREMENT: Duration = Duration::from_millis(3);
const MEASUREMENTS: usize = 7;

/// Multiply-accumulates per second of a kernel's matrix product, measured now: a linear layer on data in the first-level cache, on as
/// many threads at once as `threads` says. No op of a model gets above it by much. Takes about 20 ms.
///
/// `None` if the kernel refuses the layer.
#[must_use]
pub fn peak_macs_per_second(kernel: Kernel, threads: usize) -> Option<f64> {
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|_| scope.spawn(move || measure(kernel)))
            .collect();
        let mine = measure(kernel);
        let others = others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default());
        others.chain([mine]).sum()
    })
}

/// The best of several measurements on this thread.
fn measure(kernel: Kernel) -> Option<f64> {
    let weights = vec![1; packed_len(N, K)?];
    let (bias, scale) = (vec![0; padded_n(N)], vec![1e-3; padded_n(N)]);
    let output = Output::S8 {
        zero_point: 0,
        min: i8::MIN,
        table: None,
    };
    let requantise = Requantise::new(&bias, &scale, output).ok()?;
    let layer = Linear::new(ROWS, Gemm::new(K, N, &weights, requantise).ok()?).ok()?;
    let x = vec![1; layer.input_len()];
    let mut y = vec![0; layer.output_len()];
    let mut scratch = vec![0; layer.scratch_len()];
    let mut best = 0.0_f64;
    for _ in 0..MEASUREMENTS {
        let (start, mut runs) = (Instant::now(), 0_u32);
        let mut taken = Duration::ZERO;
        while taken < MEASUREMENT {
            let out = Out::S8(&mut y);
            layer.run(kernel, 0..ROWS, &x, out, &mut scratch).ok()?;
            runs += 1;
            taken = start.elapsed();
        }
        best = best.max(layer.macs() as f64 * f64::from(runs) / taken.as_secs_f64());
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_has_a_peak() {
        for kernel in Kernel::available() {
            for threads in [1, 2] {
                let peak = peak_macs_per_second(kernel, threads);
                assert!(
                    peak.is_some_and(|peak| peak > 0.0),
                    "{} on {threads} threads: {peak:?}",
                    kernel.name()
                );
            }
        }
    }
}
