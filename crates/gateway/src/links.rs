//! The links of this node, one per client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use underpass_domain::ClientId;

use crate::link::Link;

/// Which client is connected, by which link.
#[derive(Debug)]
pub(crate) struct Links {
    max: usize,
    by_client: Mutex<HashMap<ClientId, Arc<Link>>>,
}

/// There are as many links as the node can bear. Those that are there stay.
#[derive(Debug)]
pub(crate) struct LinksFull;

impl Links {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, by_client: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ClientId, Arc<Link>>> {
        self.by_client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a link. The client's earlier one, which is no longer found from now on, is given back.
    pub(crate) fn register(&self, link: &Arc<Link>) -> Result<Option<Arc<Link>>, LinksFull> {
        let mut by_client = self.lock();
        if by_client.len() >= self.max && !by_client.contains_key(&link.client) {
            return Err(LinksFull);
        }
        Ok(by_client.insert(link.client, link.clone()))
    }

    /// Forgets a link, unless another one of the same client took its place.
    pub(crate) fn remove(&self, link: &Link) {
        let mut by_client = self.lock();
        if by_client.get(&link.client).is_some_and(|current| current.session == link.session) {
            by_client.remove(&link.client);
        }
    }

    pub(crate) fn get(&self, client: ClientId) -> Option<Arc<Link>> {
        self.lock().get(&client).cloned()
    }

    /// All of them, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}
