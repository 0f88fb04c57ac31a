//! Public listeners of a node.
//!
//! [`Ingress`] keeps one TCP listener for each mapping with a public port that is served at the moment, and
//! follows the control log: a mapping that appears gets its listener, one that goes loses it, and no other
//! mapping notices. A port that can't be bound is a state of its mapping
//! ([`Gateway::report_listener`](underpass_gateway::Gateway::report_listener)) and is tried again.
//!
//! A caller is accepted by the kernel before the target is tried; where there is no tunnel for it, it is reset
//! at once.

mod caller;
mod ingress;
mod listener;
mod places;

pub use ingress::Ingress;
