//! What attention computes.

use super::layers::dot;
use crate::ir::{AttentionShape, Bias, Kind, Operand, ValueId};

/// An operand of an attention with its data.
struct Rows<'a> {
    operand: &'a Operand,
    data: Vec<f32>,
}

impl<'a> Rows<'a> {
    fn new(operand: &'a Operand, read: &dyn Fn(ValueId) -> Vec<f32>) -> Self {
        let data = operand.value.map(read).unwrap_or_default();
        Rows { operand, data }
    }

    /// The `dim` elements of a head in the row that the operand's table names at `index`.
    fn head(&self, index: usize, head: usize, dim: usize) -> &[f32] {
        let o = self.operand;
        let row = o.rows[index] as usize;
        let column = o.column + head * o.head_stride;
        let start = row * o.channels + column;
        match start.checked_sub(self.data.len()) {
            None => &self.data[start..][..dim],
            Some(start) => &o.constants[start..][..dim],
        }
    }
}

/// Attention in f32; weights below `least` of the largest in their row count as 0.
pub(crate) fn attention(
    kind: &Kind,
    out_rows: usize,
    least: f64,
    read: &dyn Fn(ValueId) -> Vec<f32>,
) -> Vec<f32> {
    let Kind::Attention {
        shape: s,
        q,
        k,
        v,
        out,
        scale,
        bias,
        mask,
    } = kind
    else {
        return vec![];
    };
    let (q, k, v) = (Rows::new(q, read), Rows::new(k, read), Rows::new(v, read));
    let mut y = vec![0.0; out_rows * s.heads * s.head_dim];
    for head in 0..s.heads {
        for (group, query) in (0..s.groups).flat_map(|g| (0..s.queries).map(move |i| (g, i))) {
            let row = group * s.queries + query;
            let q_row = q.head(row, head, s.head_dim);
            let logit = |j: usize| -> f64 {
                let key = group * s.keys + j;
                let masked = mask.as_ref().is_some_and(|m| m[row] != m[key]);
                let dot = f64::from(dot(q_row, k.head(key, head, s.head_dim)));
                let bias = bias
                    .as_ref()
                    .map_or(0.0, |b| bias_at(b, s, [head, query, j]));
                if masked {
                    f64::NEG_INFINITY
                } else {
                    scale * dot + bias
                }
            };
            let weights = softmax(&(0..s.keys).map(logit).collect::<Vec<_>>(), least);
            for slot in 0..s.slots {
                let first = group * s.slots + slot;
                let to = out[first * s.queries + query] as usize * s.heads + head;
                let y = &mut y[to * s.head_dim..][..s.head_dim];
                for (j, w) in weights.iter().enumerate() {
                    let v_row = v.head(first * s.keys + j, head, s.head_dim);
                    y.iter_mut()
                        .zip(v_row)
                        .for_each(|(y, v)| *y += *w as f32 * v);
                }
            }
        }
    }
    y
}

/// What is added to the logit of (head, query, key).
fn bias_at(bias: &Bias, s: &AttentionShape, [head, query, key]: [usize; 3]) -> f64 {
    let index = match bias.window {
        None => (head * s.queries + query) * s.keys + key,
        Some([h, w]) => {
            let (height, width) = (2 * h - 1, 2 * w - 1);
            let dy = query / w + h - 1 - key / w;
            let dx = query % w + w - 1 - key % w;
            (head * height + dy) * width + dx
        }
    };
    f64::from(bias.table[index])
}

fn softmax(logits: &[f64], least: f64) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weight = |l: &f64| Some((l - largest).exp()).filter(|e| *e >= least);
    let e: Vec<f64> = logits.iter().map(|l| weight(l).unwrap_or(0.0)).collect();
    let total: f64 = e.iter().sum();
    e.iter().map(|e| e / total).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::eval::relative_error;
    use crate::memory::tests::Random;

    const SIDE: usize = 6;
    const WINDOW: usize = 3;
    const SHIFT: usize = 1;
    const HEADS: usize = 2;
    const DIM: usize = 4;
    const CHANNELS: usize = HEADS * DIM;
    const TOKENS: usize = WINDOW * WINDOW;
    const GROUPS: usize = (SIDE / WINDOW) * (SIDE / WINDOW);

    pub(crate) fn random(len: usize, seed: u64) -> Vec<f32> {
        let mut random = Random(seed);
        (0..len)
            .map(|_| random.below(2001) as f32 / 1000.0 - 1.0)
            .collect()
    }

    fn operand(value: ValueId, column: usize, rows: &[u32]) -> Operand {
        Operand {
            value: Some(value),
            channels: 3 * CHANNELS,
            constants: Arc::new([]),
            column,
            head_stride: DIM,
            rows: rows.into(),
        }
    }

    /// The map's row of token t of window w, after the map was rolled by the shift to the top left.
    fn rolled(window: usize, token: usize) -> (usize, usize) {
        let across = SIDE / WINDOW;
        let y = window / across * WINDOW + token / WINDOW;
        let x = window % across * WINDOW + token % WINDOW;
        ((y + SHIFT) % SIDE, (x + SHIFT) % SIDE)
    }

    /// The region of a place in the rolled map: places of different regions were not neighbours before.
    fn region(window: usize, token: usize) -> u8 {
        let across = SIDE / WINDOW;
        let part = |v: usize| match v {
            v if v < SIDE - WINDOW => 0,
            v if v < SIDE - SHIFT => 1,
            _ => 2,
        };
        let y = window / across * WINDOW + token / WINDOW;
        let x = window % across * WINDOW + token % WINDOW;
        3 * part(y) + part(x)
    }

    /// Attention as Swin defines it, written with maps and additive masks rather than tables of rows.
    fn swin(qkv: &[f32], bias: &[f32], scale: f64) -> Vec<f32> {
        let at = |which: usize, head: usize, (y, x): (usize, usize)| {
            let column = which * CHANNELS + head * DIM;
            &qkv[(y * SIDE + x) * 3 * CHANNELS + column..][..DIM]
        };
        let mut out = vec![0.0; SIDE * SIDE * CHANNELS];
        for (window, head) in (0..GROUPS).flat_map(|w| (0..HEADS).map(move |h| (w, h))) {
            for i in 0..TOKENS {
                let mut weights = vec![];
                for j in 0..TOKENS {
                    let (q, k) = (
                        at(0, head, rolled(window, i)),
                        at(1, head, rolled(window, j)),
                    );
                    let product: f64 = q.iter().zip(k).map(|(q, k)| f64::from(q * k)).sum();
                    let dy = i / WINDOW + WINDOW - 1 - j / WINDOW;
                    let dx = i % WINDOW + WINDOW - 1 - j % WINDOW;
                    let entry = (head * (2 * WINDOW - 1) + dy) * (2 * WINDOW - 1) + dx;
                    let apart = region(window, i) != region(window, j);
                    let mask = if apart { -100.0 } else { 0.0 };
                    weights.push((product * scale + f64::from(bias[entry]) + mask).exp());
                }
                let total: f64 = weights.iter().sum();
                let (y, x) = rolled(window, i);
                for d in 0..DIM {
                    let sum: f64 = (0..TOKENS)
                        .map(|j| weights[j] * f64::from(at(2, head, rolled(window, j))[d]))
                        .sum();
                    out[(y * SIDE + x) * CHANNELS + head * DIM + d] = (sum / total) as f32;
                }
            }
        }
        out
    }

    fn shape() -> AttentionShape {
        AttentionShape {
            heads: HEADS,
            head_dim: DIM,
            groups: GROUPS,
            slots: 1,
            queries: TOKENS,
            keys: TOKENS,
        }
    }

    fn window_tokens() -> impl Iterator<Item = (usize, usize)> {
        (0..GROUPS).flat_map(|w| (0..TOKENS).map(move |t| (w, t)))
    }

    #[test]
    fn shifted_windows_agree_with_their_definition() {
        let qkv = random(SIDE * SIDE * 3 * CHANNELS, 1);
        let table = random(HEADS * (2 * WINDOW - 1) * (2 * WINDOW - 1), 2);
        let rows: Vec<u32> = window_tokens()
            .map(|(w, t)| rolled(w, t))
            .map(|(y, x)| (y * SIDE + x) as u32)
            .collect();
        let mask: Arc<[u8]> = window_tokens().map(|(w, t)| region(w, t)).collect();
        let wanted = swin(&qkv, &table, 0.5);
        let kind = |bias: Bias| Kind::Attention {
            shape: shape(),
            q: operand(0, 0, &rows),
            k: operand(0, CHANNELS, &rows),
            v: operand(0, 2 * CHANNELS, &rows),
            out: rows.clone().into(),
            scale: 0.5,
            bias: Some(Arc::new(bias)),
            mask: Some(Arc::clone(&mask)),
        };
        let window = Bias {
            table,
            window: Some([WINDOW, WINDOW]),
        };
        // The same bias with an entry for every pair.
        let pairs = (0..HEADS * TOKENS * TOKENS).map(|i| {
            let place = [i / TOKENS / TOKENS, i / TOKENS % TOKENS, i % TOKENS];
            bias_at(&window, &shape(), place) as f32
        });
        let pairs = Bias {
            table: pairs.collect(),
            window: None,
        };
        for bias in [window.clone(), pairs] {
            let got = attention(&kind(bias), SIDE * SIDE, 0.0, &|_| qkv.clone());
            assert!(relative_error(&got, &wanted) < 1e-6);
        }
    }

    #[test]
    fn constants_stand_behind_the_rows_of_a_value() {
        // Three rows of a value and two constants, as keys and values of two queries that are all constant.
        let (value, constants) = (random(3 * CHANNELS, 3), random(2 * CHANNELS, 4));
        let all: Vec<f32> = value.iter().chain(&constants).copied().collect();
        let rows: Arc<[u32]> = [4, 0, 3, 1, 2].into();
        let plain = |value: Option<ValueId>, constants: &[f32], rows: &Arc<[u32]>| Operand {
            value,
            channels: CHANNELS,
            constants: constants.into(),
            column: 0,
            head_stride: DIM,
            rows: Arc::clone(rows),
        };
        let kind = |k: Operand| Kind::Attention {
            shape: AttentionShape {
                groups: 1,
                queries: 2,
                keys: 5,
                ..shape()
            },
            q: plain(None, &constants, &[0, 1].into()),
            v: k.clone(),
            k,
            out: [1, 0].into(),
            scale: 1.0,
            bias: None,
            mask: None,
        };
        let split = attention(&kind(plain(Some(0), &constants, &rows)), 2, 0.0, &|_| {
            value.clone()
        });
        let whole = attention(&kind(plain(Some(0), &[], &rows)), 2, 0.0, &|_| all.clone());
        assert_eq!(split, whole);
        assert!(split.iter().all(|x| x.abs() <= 1.0 && *x != 0.0));
    }

    #[test]
    fn the_weights_of_a_key_serve_all_its_slots() {
        // Two windows of two pixels: pixel p of window w is the sum over windows v of G[w][v] times pixel p of window v.
        let (q, k, v) = (random(2 * DIM, 5), random(2 * DIM, 6), random(4 * DIM, 7));
        let row = |x: &[f32], r: usize| x[r * DIM..][..DIM].to_vec();
        let plain = |value: ValueId, rows: &[u32]| Operand {
            channels: DIM,
            ..operand(value, 0, rows)
        };
        let kind = Kind::Attention {
            shape: AttentionShape {
                heads: 1,
                head_dim: DIM,
                groups: 1,
                slots: 2,
                queries: 2,
                keys: 2,
            },
            q: plain(0, &[0, 1]),
            k: plain(1, &[0, 1]),
            v: plain(2, &[0, 2, 1, 3]),
            out: [0, 2, 1, 3].into(),
            scale: 1.0,
            bias: None,
            mask: None,
        };
        let got = attention(&kind, 4, 0.0, &|value| [&q, &k, &v][value].clone());
        for (window, pixel) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let e = [0, 1].map(|w| f64::from(dot(&row(&q, window), &row(&k, w))).exp());
            for d in 0..DIM {
                let mixed = (e[0] * f64::from(row(&v, pixel)[d])
                    + e[1] * f64::from(row(&v, 2 + pixel)[d]))
                    / (e[0] + e[1]);
                let y = f64::from(got[(2 * window + pixel) * DIM + d]);
                assert!((y - mixed).abs() < 1e-6, "{y} is not {mixed}");
            }
        }
    }
}
