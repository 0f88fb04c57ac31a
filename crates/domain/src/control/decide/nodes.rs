//! Nodes, and what they note of the log itself.

use super::{Case, Decision, checked_text};
use crate::aggregate::Subject;
use crate::control::Refusal;
use crate::events::v1;
use crate::ids::NodeId;
use crate::limits::{LABEL_BYTES_MAX, WORD_BYTES_MAX};
use crate::meta::{Actor, Position};
use crate::text::Digest32;

impl Case<'_> {
    /// Each start is a fact, also where the node never said that it stopped: it was killed.
    pub(super) fn start_node(node: NodeId, name: &str, version: &str) -> Result<Decision, Refusal> {
        let name = checked_text("name", name, LABEL_BYTES_MAX)?;
        let version = checked_text("version", version, WORD_BYTES_MAX)?;
        Ok(Decision::one(node, v1::NodeStarted { node, name, version }.into()))
    }

    pub(super) fn stop_node(&self, node: NodeId) -> Result<Decision, Refusal> {
        let known = self.state.node(node).ok_or(Refusal::NodeUnknown { node })?;
        if known.stopped_at.is_some() {
            return Ok(Decision::already(node));
        }
        Ok(Decision::one(node, v1::NodeStopped { node }.into()))
    }

    /// Where a log may be cut is not to be seen in what it amounts to; that cuts move forward is.
    pub(super) fn note_trimmed(&self, until: Position, hash: Digest32) -> Result<Decision, Refusal> {
        if let Actor::Client(_) = self.meta.actor {
            return Err(Refusal::Forbidden { what: "clients don't trim the log" });
        }
        if until <= self.state.trimmed {
            return Err(Refusal::TrimNoted { until, trimmed: self.state.trimmed });
        }
        Ok(Decision::one(Subject::None, v1::LogTrimmed { until, hash }.into()))
    }
}
