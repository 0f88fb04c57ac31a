//! Is the log what it was when somebody looked?

use std::sync::Arc;

use underpass_domain::LogName;
use underpass_store::Store;

use crate::agreement::Check;
use crate::checkpoint::{CheckpointPublicKey, SignedCheckpoint};
use crate::error::LogError;
use crate::landing::stored_id;
use crate::reader::Reader;
use crate::verify::{self, Verified};

/// Checks a log as [`verify`](crate::verify) does, and that it agrees with every checkpoint: each is signed
/// with `key`, is of this log (see [`CheckpointBook::of`](crate::CheckpointBook::of) for those of one name), has
/// its hash and epoch where the log has that position, and no position that the log doesn't reach.
///
/// What does not agree is in [`Verified::bad`] with the checkpoint's position; where the log is too short, with
/// the first position that is missing. Damage of the log itself comes first. Checkpoints may be in any order. Those
/// of positions before the first one that the log still has are passed over.
pub async fn verify_with(
    store: &Arc<dyn Store>,
    log: LogName,
    checkpoints: &[SignedCheckpoint],
    key: &CheckpointPublicKey,
) -> Result<Verified, LogError> {
    let mut check = Check::new(log, checkpoints, key);
    check.log_id = match stored_id(&Reader::new(Arc::clone(store), log)).await {
        Err(error @ LogError::Unavailable { .. }) => return Err(error),
        // A log whose beginning is damaged says so below.
        id => id.ok(),
    };
    let mut verified = verify::walk(store, log, |frame| check.see(frame)).await?;
    if verified.bad.is_some() {
        return Ok(verified);
    }
    check.end(verified.head);
    verified.checkpoints = check.agreeing;
    verified.ok = check.bad.is_none();
    verified.by_checkpoint = check.bad.is_some();
    verified.bad = check.bad;
    Ok(verified)
}
