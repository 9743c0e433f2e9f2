//! The squared error that an 8-bit range causes, by a histogram of what is to be quantised.

use super::histogram::{Bin, Histogram};
use crate::lower::expr::Expr;
use crate::quantise::asymmetric_steps;

/// The numbers of an activation, and what each is worth after the function that follows.
#[derive(Debug)]
pub(super) struct Loss<'f> {
    function: Option<&'f Expr>,
    points: Vec<Point>,
}

#[derive(Debug)]
struct Point {
    bin: Bin,
    /// The function's value, and its slope squared.
    value: f64,
    slope2: f64,
}

impl<'f> Loss<'f> {
    /// Without a function errors count as they are.
    pub(super) fn new(histogram: &Histogram, function: Option<&'f Expr>) -> Self {
        let eval = |x: f64| function.map_or(x, |f| f.eval(x));
        let point = |bin: Bin| {
            let slope = (eval(bin.ends[1]) - eval(bin.ends[0])) / (bin.ends[1] - bin.ends[0]);
            Point {
                bin,
                value: eval(bin.middle),
                slope2: if function.is_some() {
                    slope * slope
                } else {
                    1.0
                },
            }
        };
        Loss {
            function,
            points: histogram.bins().map(point).collect(),
        }
    }

    /// The sum of squared errors with the 8-bit grid of a range: numbers beyond it are clipped, those in bins that are narrow
    /// beside a step are rounded as they are, those of wide bins err by a twelfth of the squared step on average.
    pub(super) fn of(&self, range: [f32; 2]) -> f64 {
        let (step, zero) = asymmetric_steps(range);
        let real = |q: f64| (q - zero) * step;
        let ends = [real(-128.0), real(127.0)];
        let levels: Vec<f64> = match self.function {
            Some(f) => (-128..128).map(|q| f.eval(real(f64::from(q)))).collect(),
            None => (-128..128).map(|q| real(f64::from(q))).collect(),
        };
        let error = |point: &Point| {
            let x = point.bin.middle;
            let inside = ends[0] <= x && x <= ends[1];
            if inside && 4.0 * point.bin.width() > step {
                return point.slope2 * step * step / 12.0;
            }
            let q = (x / step + zero).round_ties_even().clamp(-128.0, 127.0);
            (levels[(q + 128.0) as usize] - point.value).powi(2)
        };
        self.points.iter().map(|p| p.bin.count * error(p)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::histogram::tests::of;
    use crate::frontend::Binary;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 0.02 * b.abs().max(1e-9)
    }

    #[test]
    fn errors_of_clipping_rounding_and_zero() {
        // Steps of 1 from −128 to 127: 137 is 10 beyond, 0 is exact, a number of a wide bin errs by 1/12.
        let range = [-128.0, 127.0];
        assert!(near(Loss::new(&of(&[137.0]), None).of(range), 100.0));
        assert!(Loss::new(&of(&[0.0; 9]), None).of(range) < 1e-12);
        assert!(near(
            Loss::new(&of(&[100.5, -70.2]), None).of(range),
            2.0 / 12.0
        ));
        // 0.25 lies in a narrow bin and becomes 0.
        assert!(near(Loss::new(&of(&[0.25]), None).of(range), 0.0625));
    }

    #[test]
    fn what_a_function_flattens_costs_nothing() {
        let relu = Expr::X.binary(Binary::Max, Expr::Const(0.0));
        let h = of(&[-5.0, -3.0, 0.5]);
        let loss = Loss::new(&h, Some(&relu));
        assert!(loss.of([0.0, 0.5]) < loss.of([-5.0, 0.5]));
        let clipped = loss.of([0.0, 0.25]);
        assert!((clipped - 0.25 * 0.25).abs() < 0.01, "{clipped}");
    }
}
