//! The conformance suite on etcd.

mod common;

use common::{fresh, restarting};
use underpass_store::testkit::{cas, durable, expirable, kv, model, watchable};

kv!(fresh());
cas!(fresh());
expirable!(fresh());
watchable!(fresh());
durable!(fresh());
model!(fresh(), 50);

/// The same promises where the server itself is killed and started again.
mod killed {
    use super::*;

    durable!(restarting());
}
