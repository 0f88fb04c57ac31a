//! Connection codes and limits under races.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use underpass_domain::limits::{CODE_ACTIVATION_MAX, OPEN_CODES_PER_CLIENT_MAX};
use underpass_domain::{Actor, ControlCommand};
use underpass_store::MemoryStore;

use crate::testkit::{Rig, code};
use crate::{Caller, ControlError, ErrorClass};

const LISTEN: &str = "127.0.0.1:2222";

#[tokio::test(start_paused = true)]
async fn c48_of_a_hundred_clients_that_redeem_one_code_at_once_one_wins() {
    let rig = Rig::open(Arc::new(MemoryStore::new())).await;
    let offerer = rig.client(0).await;
    let (new, proof) = code(offerer, 1);
    rig.control.issue_code(&Caller::new(Actor::Client(offerer)), new.clone()).await.unwrap();
    let mut clients = Vec::new();
    for number in 1..=100 {
        clients.push(rig.client(number).await);
    }

    let tries = clients.iter().map(|client| {
        let (control, lookup) = (&rig.control, &new.lookup);
        async move {
            let caller = Caller::new(Actor::Client(*client));
            control.redeem_code(&caller, lookup, proof, *client, LISTEN.parse().unwrap()).await
        }
    });
    let outcomes = join_all(tries).await;

    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let told = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).map(ControlError::code);
    assert_eq!(told.filter(|code| *code == "code.used").count(), 99);
    assert_eq!(rig.control.state().state.mappings().count(), 1);
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn c49_a_code_that_is_expired_revoked_used_or_unknown_is_told_so_and_makes_no_mapping() {
    let rig = Rig::open(Arc::new(MemoryStore::new())).await;
    let (offerer, other, third) = (rig.client(0).await, rig.client(1).await, rig.client(2).await);
    let offering = Caller::new(Actor::Client(offerer));
    let redeem = async |client, number| {
        let (new, proof) = code(offerer, number);
        let caller = Caller::new(Actor::Client(client));
        rig.control.redeem_code(&caller, &new.lookup, proof, client, LISTEN.parse().unwrap()).await
    };
    let mut ids = Vec::new();
    for number in 1..=3 {
        ids.push(rig.control.issue_code(&offering, code(offerer, number).0).await.unwrap().id);
    }

    redeem(other, 1).await.unwrap();
    rig.control.execute(&offering, ControlCommand::RevokeCode { code: ids[1] }).await.unwrap();
    let told = [redeem(third, 1).await, redeem(third, 2).await, redeem(third, 9).await];
    let told = told.map(|outcome| outcome.unwrap_err().code());
    assert_eq!(told, ["code.used", "code.revoked", "code.unknown"]);

    // Past its time, before and after the event that says so.
    rig.clock.advance(Duration::from_secs(601));
    assert_eq!(redeem(third, 3).await.unwrap_err().code(), "code.expired");
    crate::testkit::until(|| rig.control.state().state.open_codes_of(offerer).count() == 0).await;
    assert_eq!(redeem(third, 3).await.unwrap_err().code(), "code.expired");

    assert_eq!(rig.control.state().state.mappings().count(), 1, "only the redeemed code made one");
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn c49_times_off_the_limits_are_invalid() {
    let rig = Rig::open(Arc::new(MemoryStore::new())).await;
    let client = rig.client(0).await;
    for (activation, access) in [
        (CODE_ACTIVATION_MAX + Duration::from_secs(1), Duration::from_hours(1)),
        (Duration::ZERO, Duration::from_hours(1)),
        (Duration::from_mins(10), Duration::from_hours(10 * 366 * 24)),
        (Duration::from_mins(10), Duration::ZERO),
    ] {
        let (mut new, _) = code(client, 1);
        (new.activation, new.access) = (activation, access);
        let refused = rig.control.issue_code(&Caller::new(Actor::Client(client)), new).await.unwrap_err();
        assert!(matches!(refused.class(), ErrorClass::Invalid(_)), "{refused:?}");
    }
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn c50_the_eleventh_open_code_is_refused_also_under_a_race() {
    let rig = Rig::open(Arc::new(MemoryStore::new())).await;
    let client = rig.client(0).await;
    let caller = Caller::new(Actor::Client(client));
    let outcomes =
        join_all((0..40).map(|number| rig.control.issue_code(&caller, code(client, number).0))).await;
    let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(made, OPEN_CODES_PER_CLIENT_MAX);
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!((refused.code(), refused.class()), ("quota.codes", ErrorClass::Quota));
    }
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn of_many_that_want_one_port_at_once_one_gets_it() {
    let rig = Rig::open(Arc::new(MemoryStore::new())).await;
    let client = rig.client(0).await;
    let outcomes = join_all((0..50).map(|_| rig.mapping(client, Some(20_000)))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    rig.close().await;
}
