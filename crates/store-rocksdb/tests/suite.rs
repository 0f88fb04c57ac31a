//! The conformance suite on RocksDB.

mod common;

use common::fresh;
use underpass_store::testkit::{cas, durable, expirable, kv, model, watchable};

kv!(fresh());
cas!(fresh());
expirable!(fresh());
watchable!(fresh());
durable!(fresh());
model!(fresh(), 200);
