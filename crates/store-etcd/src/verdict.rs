//! What an error of a request says about the request: did it happen?
//!
//! For reads it doesn't matter. A write that may have happened is never sent again from here: the caller
//! has the guards that tell.
//!
//! | error | from | did it happen? |
//! |---|---|---|
//! | `tonic::ConnectError` below the status | tonic, `transport/channel/service/reconnect.rs`: the error of a connection that wasn't made is given to a request *instead of* sending it | no |
//! | `Unavailable` "no leader" | `api/v3rpc/interceptor.go`: looked up before the request is handled, as we ask for a leader | no |
//! | `Unavailable` "not capable" | `api/v3rpc/interceptor.go`: before | no |
//! | `ResourceExhausted` "too many requests" | `etcdserver/v3_server.go`, `processInternalRaftRequestOnce`: before the proposal | no |
//! | `Unknown` "raft proposal dropped" | `raft.ErrProposalDropped` of the member's own raft: nothing was appended or passed on | no |
//! | `Unauthenticated`, "auth store is old" | `auth/store.go`: the token is looked at before | no |
//! | `NotFound`, `InvalidArgument`, `FailedPrecondition`, `PermissionDenied`, `OutOfRange`, `Unimplemented` | refusals, before the proposal or all-or-nothing at its application | no, and not soon |
//! | `ResourceExhausted` "database space exceeded" | `api/v3rpc/quota.go`: before; but `etcdserver/apply.go`, `quotaApplierV3`, says the same of the write that fills the quota *after having done it* | unknown, but settled: it won't happen later |
//! | `Unavailable` "request timed out", "leader changed", "server stopped"; `DeadlineExceeded`; `Cancelled`; a connection that broke; no answer in time; whatever isn't above | the proposal may be in the log | unknown |
//!
//! Files of etcd are those of release 3.4. The messages have kept their text from 3.3 to 3.6
//! (`api/v3rpc/rpctypes/error.go`); were one to change, its error would fall to "unknown", the safe side.

use std::error::Error as StdError;

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};

/// Whether a request happened that ended in an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No. The same request may do better soon, at this member or another.
    NotYet {
        /// Another member, or at least another connection, is the better choice.
        leave: bool,
    },
    /// No, and asking again is no use.
    Refused,
    /// It may have happened, or may still happen.
    Unknown,
}

/// What `error` says.
pub(crate) fn verdict(error: &Error) -> Verdict {
    match error {
        Error::GRpcStatus(status) => of_status(status),
        // Raised before anything is sent.
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => Verdict::Refused,
        _ => Verdict::Unknown,
    }
}

fn of_status(status: &Status) -> Verdict {
    let says = |text: &str| status.message().contains(text);
    match status.code() {
        _ if chain(status).any(<dyn StdError>::is::<ConnectError>) => Verdict::NotYet { leave: true },
        Code::Unavailable if says("no leader") || says("not capable") => Verdict::NotYet { leave: true },
        Code::ResourceExhausted if says("too many requests") => Verdict::NotYet { leave: false },
        Code::Unknown if says("raft proposal dropped") => Verdict::NotYet { leave: true },
        Code::Unauthenticated => Verdict::NotYet { leave: true },
        Code::InvalidArgument if says("revision of auth store is old") => Verdict::NotYet { leave: true },
        Code::NotFound
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unimplemented => Verdict::Refused,
        // Our own side gives this code to an answer that is too long to read; its request was done.
        Code::OutOfRange if says("etcdserver") => Verdict::Refused,
        _ => Verdict::Unknown,
    }
}

/// An error and what is below it.
pub(crate) fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

/// The quota of the database is used up: the request has happened, or it never will.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.code() == Code::ResourceExhausted && status.message().contains("database space exceeded"))
}

/// The lease that the request names is gone. (`NotFound` has no other meaning for what we ask.)
pub(crate) fn lease_is_gone(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() == Code::NotFound)
}

/// The revision that was asked for is compacted.
pub(crate) fn is_compacted(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.code() == Code::OutOfRange && status.message().contains("has been compacted"))
}

/// The answer is longer than what we are ready to read.
pub(crate) fn is_too_long(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.code() == Code::OutOfRange && status.message().contains("message length too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, message: &str) -> Error {
        Error::GRpcStatus(Status::new(code, message))
    }

    #[test]
    fn what_may_have_happened_is_unknown() {
        for (code, message) in [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unavailable, "error reading a body from connection"),
            (Code::DeadlineExceeded, "context deadline exceeded"),
            (Code::Cancelled, "context canceled"),
            (Code::Unknown, "transport error"),
            (Code::Internal, "h2 protocol error"),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes",
            ),
            (Code::DataLoss, "etcdserver: corrupt cluster"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        ] {
            assert_eq!(verdict(&status(code, message)), Verdict::Unknown, "{message}");
        }
        assert_eq!(verdict(&Error::WatchError("closed".to_owned())), Verdict::Unknown);
    }

    #[test]
    fn what_never_reached_the_log_is_tried_again() {
        for (code, message) in [
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::Unknown, "raft proposal dropped"),
            (Code::Unauthenticated, "etcdserver: invalid auth token"),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old"),
        ] {
            assert_eq!(verdict(&status(code, message)), Verdict::NotYet { leave: true }, "{message}");
        }
        let busy = status(Code::ResourceExhausted, "etcdserver: too many requests");
        assert_eq!(verdict(&busy), Verdict::NotYet { leave: false });
    }

    #[test]
    fn a_connection_that_was_not_made_carried_nothing() {
        let refused = ConnectError(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into());
        let error = Error::GRpcStatus(Status::from_error(refused.into()));
        assert_eq!(verdict(&error), Verdict::NotYet { leave: true });
        // A connection that broke may have carried it.
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(verdict(&Error::GRpcStatus(Status::from_error(broken.into()))), Verdict::Unknown);
    }

    #[test]
    fn a_refusal_is_final() {
        for (code, message) in [
            (Code::NotFound, "etcdserver: requested lease not found"),
            (Code::InvalidArgument, "etcdserver: request is too large"),
            (Code::PermissionDenied, "etcdserver: permission denied"),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        ] {
            assert_eq!(verdict(&status(code, message)), Verdict::Refused, "{message}");
        }
        assert!(lease_is_gone(&status(Code::NotFound, "etcdserver: requested lease not found")));
        assert!(is_compacted(&status(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted"
        )));
    }
}
