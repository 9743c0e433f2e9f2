//! Scalar functions built up from chains of element-wise nodes.
//!
//! Any chain of element-wise nodes that starts at one tensor is a function of one number, and on int8 a function of one
//! number is a table of 256 entries. So GELU, SiLU, hard-swish or ReLU6 need no patterns of their own, whatever nodes an
//! exporter wrote them with. Evaluation uses `libm`, so tables do not depend on the machine.

use crate::frontend::{Binary, Unary};

/// A function of one variable.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// The variable.
    X,
    /// A number.
    Const(f64),
    /// An operator of one operand.
    Unary(Unary, Box<Expr>),
    /// An operator of two.
    Binary(Binary, Box<Expr>, Box<Expr>),
}

impl Expr {
    /// `op(self)`
    #[must_use]
    pub fn unary(self, op: Unary) -> Expr {
        Expr::Unary(op, Box::new(self))
    }

    /// `op(self, other)`
    #[must_use]
    pub fn binary(self, op: Binary, other: Expr) -> Expr {
        Expr::Binary(op, Box::new(self), Box::new(other))
    }

    /// The function's value.
    pub fn eval(&self, x: f64) -> f64 {
        match self {
            Expr::X => x,
            Expr::Const(c) => *c,
            Expr::Unary(op, a) => unary(*op, a.eval(x)),
            Expr::Binary(op, a, b) => binary(*op, a.eval(x), b.eval(x)),
        }
    }

    /// `Some(c)` when the function is x ↦ c·x by construction.
    pub fn factor(&self) -> Option<f64> {
        match self {
            Expr::X => Some(1.0),
            Expr::Binary(Binary::Mul, a, b) => match (&**a, &**b) {
                (Expr::Const(c), f) | (f, Expr::Const(c)) => f.factor().map(|f| f * c),
                _ => None,
            },
            Expr::Binary(Binary::Div, a, b) => match &**b {
                Expr::Const(c) => a.factor().map(|f| f / c),
                _ => None,
            },
            Expr::Unary(Unary::Neg, a) => a.factor().map(|f| -f),
            _ => None,
        }
    }

    /// A well-known name when the function agrees with one on a grid, else `table`.
    pub fn name(&self) -> &'static str {
        let agrees = |f: fn(f64) -> f64| {
            (-64..=64)
                .map(|i| f64::from(i) / 8.0)
                .all(|x| (f(x) - self.eval(x)).abs() < 1e-4)
        };
        if agrees(|x| unary(Unary::Gelu, x)) {
            "gelu"
        } else if agrees(|x| unary(Unary::Silu, x)) {
            "silu"
        } else if agrees(|x| x.max(0.0)) {
            "relu"
        } else if agrees(|x| x.clamp(0.0, 6.0)) {
            "relu6"
        } else if agrees(|x| unary(Unary::HardSwish, x)) {
            "hardswish"
        } else {
            "table"
        }
    }
}

fn unary(op: Unary, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
    match op {
        Unary::Erf => libm::erf(x),
        Unary::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Unary::Silu => x * sigmoid(x),
        Unary::Sigmoid => sigmoid(x),
        Unary::Tanh => libm::tanh(x),
        Unary::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Unary::Exp => libm::exp(x),
        Unary::Neg => -x,
    }
}

/// What a two-operand operator does to two numbers.
pub fn binary(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Max => a.max(b),
        Binary::Min => a.min(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_known_in_both_spellings() {
        assert_eq!(Expr::X.unary(Unary::Gelu).name(), "gelu");
        let erf = Expr::X
            .binary(Binary::Mul, Expr::Const(std::f64::consts::FRAC_1_SQRT_2))
            .unary(Unary::Erf);
        let spelled = erf
            .binary(Binary::Add, Expr::Const(1.0))
            .binary(Binary::Mul, Expr::X)
            .binary(Binary::Mul, Expr::Const(0.5));
        assert_eq!(spelled.name(), "gelu");
        assert_eq!(spelled.factor(), None);
    }

    #[test]
    fn factors_multiply_through() {
        let half =
            Expr::Const(0.5).binary(Binary::Mul, Expr::X.binary(Binary::Div, Expr::Const(4.0)));
        assert_eq!(half.factor(), Some(0.125));
    }
}
