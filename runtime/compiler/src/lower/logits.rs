//! The model's output.

use super::Lowering;
use crate::error::CompileError;
use crate::frontend::{SourceNode, SourceOp};
use crate::ir::ValueId;

impl Lowering<'_> {
    /// The model's output as one row of logits.
    pub(super) fn logits(&mut self) -> Result<ValueId, CompileError> {
        let id = self.source.output;
        let refuse = |found: &str| CompileError::Output {
            found: found.to_string(),
        };
        let node = SourceNode {
            name: String::new(),
            op_name: String::new(),
            op: SourceOp::Input,
            inputs: vec![id],
            shape: vec![],
            uses: 0,
        };
        let (value, view) = self
            .whole_value(&node, 0)
            .map_err(|reason| refuse(&reason))?;
        let v = &self.values[value];
        if v.rows != 1 || !view.covers(v.channels) {
            return Err(refuse(&format!("{:?}", self.source.nodes[id].shape)));
        }
        Ok(value)
    }
}
