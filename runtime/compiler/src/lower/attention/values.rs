//! The values operand of an attention, and where its axes go in the result.

use super::space::{add_steps, even_step, split_space, steps};
use crate::ir::AttentionShape;
use crate::lower::Lowering;
use crate::lower::einsum::Side;
use crate::lower::seen::split;
use crate::lower::state::{Half, Scores};
use crate::view::{Factor, View};

/// The values operand: its rows per group, slot and key, and where its own axes go.
pub(super) struct ValueSide {
    pub(super) half: Half,
    pub(super) slots: usize,
    pub(super) dim: usize,
    /// Letters that only the values have, with how many slots and channels each steps over.
    own: Vec<(char, usize, usize)>,
}

impl ValueSide {
    pub(super) fn new(
        lowering: &Lowering<'_>,
        v: &Side,
        probs: &Scores,
        prob_letters: &[char],
        output: &[char],
    ) -> Result<Self, String> {
        let channels = v.seen.base.channels(&lowering.values);
        let [_, _, _, b] = probs.space();
        let key_stride = if probs.keys_are_b { 1 } else { b };
        // What each step of the space of logits adds to the offset in the values.
        let mut offsets = probs.space().map(|n| vec![0; n]);
        for (letter, dim) in prob_letters.iter().zip(&probs.view.dims) {
            let list = steps(&[0], v.dim(*letter));
            let in_output = output.contains(letter);
            for f in split_space(dim, probs.space()) {
                let is_key = f.axis == if probs.keys_are_b { 3 } else { 2 };
                if is_key == in_output {
                    return Err(
                        "the probabilities must be summed with the values over the keys".into(),
                    );
                }
            }
            if list.len() > 1 {
                add_steps(&mut offsets, dim, probs.space(), &list)
                    .ok_or("the values' groups, heads and keys lie across each other")?;
            }
        }
        let [groups, heads, a_offsets, b_offsets] = offsets;
        let (keys, queries) = if key_stride == 1 {
            (b_offsets, a_offsets)
        } else {
            (a_offsets, b_offsets)
        };
        let own: Vec<char> = v
            .real_letters()
            .filter(|l| !prob_letters.contains(l))
            .collect();
        if own.iter().any(|l| !output.contains(l)) || queries.iter().any(|o| *o != 0) {
            return Err("the probabilities must be summed with the values over the keys".into());
        }
        let (mut slots, mut sizes, mut channel) = (vec![0], vec![], vec![]);
        for letter in &own {
            let (over, inside) = split(v.dim(*letter), channels);
            let size = |f: &[Factor]| f.iter().map(|f| f.size).product::<usize>();
            sizes.push((*letter, size(&over), size(&inside)));
            slots = steps(&slots, &over);
            channel.extend(inside);
        }
        let dim = match View::new(0, vec![channel]).dims[0].as_slice() {
            [] => 1,
            [Factor { size, stride: 1 }] => *size,
            _ => return Err("the channels of an attention operand must be contiguous".into()),
        };
        let row_steps = [&groups, &keys];
        if row_steps
            .iter()
            .any(|l| l.iter().any(|o| o % channels != 0))
            || heads.iter().any(|o| *o >= channels)
        {
            return Err("the rows of an attention operand must be whole rows".into());
        }
        let first = v.seen.view.offset / channels * channels;
        let mut rows = vec![];
        for g in &groups {
            for s in &slots {
                rows.extend(keys.iter().map(|k| ((first + g + s + k) / channels) as u32));
            }
        }
        let half = Half {
            base: v.seen.base.clone(),
            rows,
            len: keys.len(),
            column: v.seen.view.offset % channels,
            head_stride: even_step(&heads)
                .ok_or("the heads of an attention operand must be evenly spaced")?,
        };
        Ok(ValueSide {
            half,
            slots: slots.len(),
            dim,
            own: sizes,
        })
    }

    /// The result over rows `[groups][slots][queries]` of `[heads][head_dim]` channels.
    pub(super) fn output_view(
        &self,
        probs: &Scores,
        prob_letters: &[char],
        output: &[char],
        shape: &AttentionShape,
    ) -> View {
        let width = shape.heads * shape.head_dim;
        let strides = [
            shape.slots * shape.queries * width,
            shape.head_dim,
            width,
            width,
        ];
        let mut own = std::collections::BTreeMap::new();
        let (mut slot, mut channel) = (shape.queries * width, 1);
        for (letter, slots, channels) in self.own.iter().rev() {
            let over = Factor {
                size: *slots,
                stride: slot,
            };
            let inside = Factor {
                size: *channels,
                stride: channel,
            };
            own.insert(*letter, vec![over, inside]);
            slot *= slots;
            channel *= channels;
        }
        let dim = |letter: &char| -> Vec<Factor> {
            if let Some(factors) = own.get(letter) {
                return factors.clone();
            }
            let Some(axis) = prob_letters.iter().position(|l| l == letter) else {
                return vec![];
            };
            split_space(&probs.view.dims[axis], probs.space())
                .iter()
                .map(|f| Factor {
                    size: f.size,
                    stride: f.step * strides[f.axis],
                })
                .collect()
        };
        View::new(0, output.iter().map(dim).collect())
    }
}
