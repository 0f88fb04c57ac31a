//! The checker by itself: small histories of which anybody can see whether they are legal.

use super::check::check;
use super::history::{Appended, Did, Operation, Reign, Slice};

fn op(client: usize, asked: u64, answered: u64, did: Did) -> Operation {
    Operation { client, asked, answered, did }
}

fn append(client: usize, asked: u64, answered: u64, token: u64, outcome: Appended) -> Operation {
    op(client, asked, answered, Did::Append { token, reign: None, outcome })
}

fn under(reign: Reign, mut operation: Operation) -> Operation {
    if let Did::Append { reign: of, .. } = &mut operation.did {
        *of = Some(reign);
    }
    operation
}

fn read(client: usize, asked: u64, answered: u64, head: u64) -> Operation {
    op(client, asked, answered, Did::Read { head, read: None })
}

fn slice(after: u64, tokens: &[u64]) -> Slice {
    Slice { after, tokens: tokens.to_vec() }
}

#[track_caller]
fn legal(log: &[u64], operations: &[Operation]) {
    check(log, operations).unwrap();
}

#[track_caller]
fn illegal(log: &[u64], operations: &[Operation], why: &str) {
    let said = check(log, operations).unwrap_err();
    assert!(said.contains(why), "{said}");
}

#[test]
fn appends_at_the_same_time_may_land_in_any_order_others_only_in_theirs() {
    let two = |asked| [append(1, 1, 4, 11, Appended::At(3)), append(2, asked, 6, 22, Appended::At(2))];
    legal(&[0, 22, 11], &two(3));
    illegal(&[0, 22, 11], &two(5), "had its answer before");
}

#[test]
fn what_was_acknowledged_is_there_once_and_where_it_was_said_to_be() {
    let one = [append(1, 1, 2, 11, Appended::At(2))];
    legal(&[0, 11], &one);
    illegal(&[0], &one, "was acknowledged at 2, and is at None");
    illegal(&[0, 22, 11], &one, "was acknowledged at 2");
    illegal(&[0, 11, 11], &one, "twice");
    illegal(&[0, 11, 22], &one, "nobody has written it");
}

#[test]
fn what_is_unknown_may_be_there_or_not_and_what_has_failed_may_not() {
    for log in [&[0][..], &[0, 11]] {
        legal(log, &[append(1, 1, 2, 11, Appended::Unknown)]);
    }
    for outcome in [Appended::Failed, Appended::Fenced, Appended::EndsAt(1)] {
        illegal(&[0, 11], &[append(1, 1, 2, 11, outcome)], "failed");
    }
    // It may land long after its answer, but never before its question.
    let late = |asked| {
        let unknown = append(1, asked, asked + 1, 11, Appended::Unknown);
        let mut all = vec![unknown, append(2, 5, 6, 22, Appended::At(2))];
        all.sort_by_key(|operation| operation.asked);
        all
    };
    legal(&[0, 22, 11], &late(1));
    let early = [append(2, 5, 6, 22, Appended::At(3)), append(1, 7, 8, 11, Appended::Unknown)];
    illegal(&[0, 11, 22], &early, "had its answer before");
}

#[test]
fn a_read_sees_all_that_was_acknowledged_and_nothing_that_began_later() {
    let with = |reading| [append(1, 3, 6, 11, Appended::At(2)), reading];
    let log = [0, 11];
    legal(&log, &with(read(2, 4, 5, 1)));
    legal(&log, &with(read(2, 4, 5, 2)));
    legal(&log, &with(read(2, 7, 8, 2)));
    legal(&log, &with(read(2, 1, 2, 1)));
    illegal(&log, &with(read(2, 7, 8, 1)), "had its answer before");
    illegal(&log, &with(read(2, 1, 2, 2)), "had its answer before");
    illegal(&log, &with(read(2, 7, 8, 3)), "where it never did");
}

/// Both overlap the append, so each by itself could be; but the second came after the first.
#[test]
fn reads_one_after_another_never_go_back() {
    let both =
        |first, second| [append(1, 1, 20, 11, Appended::At(2)), read(2, 2, 3, first), read(3, 4, 5, second)];
    legal(&[0, 11], &both(1, 2));
    legal(&[0, 11], &both(1, 1));
    illegal(&[0, 11], &both(2, 1), "had its answer before");
}

#[test]
fn a_refusal_names_the_end_as_it_was() {
    let with = |head| [append(1, 1, 2, 11, Appended::At(2)), append(2, 3, 4, 22, Appended::EndsAt(head))];
    legal(&[0, 11], &with(2));
    illegal(&[0, 11], &with(1), "had its answer before");
}

#[test]
fn what_is_read_is_what_is_there() {
    let with = |read: Slice| {
        [append(1, 1, 2, 11, Appended::At(2)), op(2, 3, 4, Did::Read { head: 2, read: Some(read) })]
    };
    legal(&[0, 11], &with(slice(0, &[0, 11])));
    legal(&[0, 11], &with(slice(1, &[11])));
    illegal(&[0, 11], &with(slice(0, &[0, 22])), "were read");
    illegal(&[0, 11], &with(slice(1, &[11, 22])), "were read");
}

#[test]
fn a_log_that_follows_may_lag_but_shows_what_its_client_knows_of() {
    let followed = |client, tokens: &[u64]| op(client, 5, 6, Did::Followed { read: slice(0, tokens) });
    let with =
        |reading| [append(1, 1, 2, 11, Appended::At(2)), append(3, 7, 8, 33, Appended::At(3)), reading];
    let log = [0, 11, 33];
    legal(&log, &with(followed(2, &[0])));
    legal(&log, &with(followed(1, &[0, 11])));
    illegal(&log, &with(followed(1, &[0])), "knew of 2");
    illegal(&log, &with(followed(2, &[0, 11, 33])), "had its answer before");
}

#[test]
fn nothing_is_written_under_a_fence_that_has_fallen() {
    let with = |ended: Did, asked, outcome| {
        [
            op(1, 1, 2, Did::Took { reign: 7, before: None }),
            op(2, 3, 4, ended),
            under(7, append(1, asked, asked + 3, 11, outcome)),
        ]
    };
    let ended = Did::Ended { reign: 7, surely: true };
    let took = Did::Took { reign: 8, before: Some(7) };
    for by in [ended.clone(), took] {
        illegal(&[0, 11], &with(by.clone(), 5, Appended::At(2)), "had its answer before");
        illegal(&[0, 11], &with(by.clone(), 5, Appended::Unknown), "had its answer before");
        legal(&[0], &with(by.clone(), 5, Appended::Fenced));
        legal(&[0], &with(by.clone(), 5, Appended::Unknown));
        // At the same time both may be.
        legal(&[0, 11], &with(by.clone(), 2, Appended::At(2)));
        legal(&[0], &with(by, 2, Appended::Fenced));
    }
    let perhaps = Did::Ended { reign: 7, surely: false };
    legal(&[0, 11], &with(perhaps.clone(), 5, Appended::At(2)));
    legal(&[0], &with(perhaps, 5, Appended::Fenced));
    let other = Did::Ended { reign: 9, surely: true };
    legal(&[0, 11], &with(other.clone(), 5, Appended::At(2)));
    illegal(&[0], &with(other, 5, Appended::Fenced), "nobody had ended its fence");
}

#[test]
fn a_fence_that_is_said_to_have_fallen_has() {
    let all = [
        op(1, 1, 2, Did::Took { reign: 7, before: None }),
        under(7, append(1, 3, 4, 11, Appended::Fenced)),
        op(2, 5, 6, Did::Ended { reign: 7, surely: true }),
    ];
    illegal(&[0], &all, "nobody had ended its fence");
}

/// Everything overlaps: only the positions tell that the old reign wrote behind the new one.
#[test]
fn an_old_reign_never_writes_behind_a_new_one() {
    let with = |old, new| {
        [
            op(1, 1, 2, Did::Took { reign: 7, before: None }),
            op(1, 3, 30, Did::Took { reign: 8, before: Some(7) }),
            under(7, append(1, 3, 30, 11, Appended::At(old))),
            under(8, append(2, 3, 30, 22, Appended::At(new))),
        ]
    };
    legal(&[0, 11, 22], &with(2, 3));
    illegal(&[0, 22, 11], &with(3, 2), "stands behind itself");
}
