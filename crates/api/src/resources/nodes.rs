//! Nodes.

use poem_openapi::param::{Path, Query};
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use underpass_domain::{LogName, Node, NodeId};

use super::{Tag, example, id};
use crate::answer::{Found, control_at};
use crate::auth::{Ask, Read};
use crate::page::Page;
use crate::problem::{Problem, ReadFailure};

pub(crate) struct Nodes;

/// A running server, or one that ran.
#[derive(Object, Clone, Debug)]
#[oai(rename = "Node", example, skip_serializing_if_is_none)]
pub(crate) struct NodeBody {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// The version of its program.
    version: String,
    /// When it last started.
    started_at: String,
    /// When it stopped; absent while it runs, or when it was killed.
    stopped_at: Option<String>,
    /// Whether it is the node that answers.
    this: bool,
}

impl Example for NodeBody {
    fn example() -> Self {
        Self {
            id: example::NODE.into(),
            name: "gate".into(),
            version: "0.1.0".into(),
            started_at: example::AT.into(),
            stopped_at: None,
            this: true,
        }
    }
}

impl NodeBody {
    pub(super) fn new(node: &Node, this: NodeId) -> Self {
        Self {
            id: node.id.to_string(),
            name: node.name.clone(),
            version: node.version_text.clone(),
            started_at: node.started_at.to_string(),
            stopped_at: node.stopped_at.map(|at| at.to_string()),
            this: node.id == this,
        }
    }
}

/// A page of nodes.
#[derive(Object, Clone, Debug)]
#[oai(example, skip_serializing_if_is_none)]
pub(crate) struct NodePage {
    /// The position that is shown.
    position: String,
    /// In the order of ids.
    items: Vec<NodeBody>,
    /// What to send as `after` for the next page.
    next: Option<String>,
}

impl Example for NodePage {
    fn example() -> Self {
        Self { position: example::POSITION.into(), items: vec![NodeBody::example()], next: None }
    }
}

#[OpenApi(tag = "Tag::Nodes")]
impl Nodes {
    /// List nodes
    ///
    /// Scope `read`.
    #[oai(path = "/v1/nodes", method = "get", operation_id = "list_nodes")]
    async fn list(
        &self,
        ask: Ask<Read>,
        /// The `next` of an earlier page.
        after: Query<Option<String>>,
        /// Items on a page: 50 if absent, 500 at most.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u32>>,
        /// A position that the answer must include, such as `control:1842`.
        at: Query<Option<String>>,
    ) -> Result<Found<NodePage>, ReadFailure> {
        ask.wait(LogName::Control, at.0.as_deref()).await?;
        let page = Page::<NodeId>::new(after.0.as_deref(), limit.0)?;
        let view = ask.state.control.state();
        let this = ask.state.control.node();
        let slice = page.of(view.state.nodes(), |node| node.id).map(|node| NodeBody::new(node, this));
        let at = control_at(view.position);
        Ok(Found::new(NodePage { position: at.to_string(), items: slice.items, next: slice.next }, at))
    }

    /// Show a node
    ///
    /// Scope `read`.
    #[oai(path = "/v1/nodes/:node", method = "get", operation_id = "get_node")]
    async fn get(
        &self,
        ask: Ask<Read>,
        /// The id of the node.
        node: Path<String>,
        /// A position that the answer must include, such as `control:1842`.
        at: Query<Option<String>>,
    ) -> Result<Found<NodeBody>, ReadFailure> {
        ask.wait(LogName::Control, at.0.as_deref()).await?;
        let wanted: NodeId = id("node.not_found", "node", &node.0)?;
        let view = ask.state.control.state();
        let found =
            view.state.node(wanted).ok_or_else(|| Problem::not_found("node.not_found", "node", &node.0))?;
        let body = NodeBody::new(found, ask.state.control.node());
        Ok(Found::new(body, control_at(view.position)))
    }
}
