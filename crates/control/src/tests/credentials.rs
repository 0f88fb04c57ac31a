//! Enrolment, invites and API keys.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use underpass_domain::testing::ManualClock;
use underpass_domain::{Actor, CommandId, ControlCommand, Random, RandomFailed, Scope, Subject};
use underpass_store::{Key, KvStore, MemoryStore, Store};
use underpass_tasks::Tasks;

use crate::testkit::{NODE, Rig, code, key};
use crate::{AuthFailure, Caller, Control, ControlError, ControlOptions, Enrolment};

async fn by_invite() -> Rig {
    let options = ControlOptions::new(NODE, "gate");
    Rig::open_with(Arc::new(MemoryStore::new()), options, Arc::new(ManualClock::default())).await
}

async fn enrol(
    rig: &Rig,
    number: u16,
    secret: Option<[u8; 16]>,
) -> Result<crate::Made<underpass_domain::ClientId>, ControlError> {
    rig.control.enrol(&Caller::system(), key(number), "laptop".into(), "linux".into(), secret).await
}

#[tokio::test(start_paused = true)]
async fn c7_an_invite_registers_one_key_once() {
    let rig = by_invite().await;
    let invite = rig.control.issue_invite(&Caller::operator(), Duration::from_mins(10), None).await.unwrap();
    let secret = Some(*invite.secret.expose());

    let outcomes = join_all((0..20).map(|number| enrol(&rig, number, secret))).await;
    let winners: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(rig.control.state().state.client_count(), 1);

    // The same key again is the same client, and uses up nothing.
    let fresh = rig.control.issue_invite(&Caller::operator(), Duration::from_mins(10), None).await.unwrap();
    let number = outcomes.iter().position(Result::is_ok).unwrap();
    let number = u16::try_from(number).unwrap();
    let again = enrol(&rig, number, Some(*fresh.secret.expose())).await.unwrap();
    assert_eq!((again.id, again.changed), (winners[0].id, false));
    enrol(&rig, 99, Some(*fresh.secret.expose())).await.unwrap();
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn c8_a_refused_enrolment_says_precisely_why() {
    let rig = by_invite().await;
    let operator = Caller::operator();
    let issue = async || rig.control.issue_invite(&operator, Duration::from_mins(10), None).await.unwrap();
    let (used, revoked, expired) = (issue().await, issue().await, issue().await);
    enrol(&rig, 1, Some(*used.secret.expose())).await.unwrap();
    rig.control.execute(&operator, ControlCommand::RevokeInvite { invite: revoked.id }).await.unwrap();

    let told = async |number, secret| enrol(&rig, number, secret).await.unwrap_err().code();
    assert_eq!(told(2, Some(*used.secret.expose())).await, "invite.used");
    assert_eq!(told(2, Some(*revoked.secret.expose())).await, "invite.revoked");
    assert_eq!(told(2, Some([0; 16])).await, "invite.unknown");
    assert_eq!(told(2, None).await, "invite.required");
    rig.clock.advance(Duration::from_secs(601));
    assert_eq!(told(2, Some(*expired.secret.expose())).await, "invite.expired");
    assert_eq!(rig.control.state().state.client_count(), 1);
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_server_takes_back_whom_it_knows_and_nobody_else() {
    let store = Arc::new(MemoryStore::new());
    let rig = Rig::open(store.clone()).await;
    let known = rig.client(1).await;
    let clock = rig.close().await;

    let mut options = ControlOptions::new(NODE, "gate");
    options.enrolment = Enrolment::Closed;
    let rig = Rig::open_with(store, options, clock).await;
    assert_eq!(enrol(&rig, 1, None).await.unwrap().id, known);
    assert_eq!(enrol(&rig, 2, None).await.unwrap_err().code(), "enrolment.closed");
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_opens_what_its_key_may_until_it_is_revoked_or_expired() {
    let rig = by_invite().await;
    let operator = Caller::operator();
    let day = Duration::from_hours(24);
    let short =
        rig.control.issue_key(&operator, vec![Scope::Read], Some("ci".into()), Some(day)).await.unwrap();
    let lasting = rig.control.issue_key(&operator, vec![Scope::Admin], None, None).await.unwrap();

    let principal = rig.control.authenticate(short.token.expose()).unwrap();
    assert_eq!((principal.key, principal.scopes), (short.id, vec![Scope::Read]));
    assert!(rig.control.last_used(short.id).is_some());
    assert_eq!(rig.control.last_used(lasting.id), None);

    // The id of one key with the secret of another.
    let (start, _) = short.token.expose().rsplit_once('_').unwrap();
    let (_, end) = lasting.token.expose().rsplit_once('_').unwrap();
    assert_eq!(rig.control.authenticate(&format!("{start}_{end}")), Err(AuthFailure::Unknown));
    assert_eq!(rig.control.authenticate("up_x"), Err(AuthFailure::Malformed));

    rig.clock.advance(day);
    assert_eq!(rig.control.authenticate(short.token.expose()), Err(AuthFailure::Expired));
    rig.control.execute(&operator, ControlCommand::RevokeKey { key: lasting.id }).await.unwrap();
    assert_eq!(rig.control.authenticate(lasting.token.expose()), Err(AuthFailure::Revoked));
    rig.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_command_gets_the_first_answer_but_no_secret_twice() {
    let rig = by_invite().await;
    let operator = Caller::operator().with_command(CommandId([1; 16]));
    let issued = rig.control.issue_key(&operator, vec![Scope::Read], None, None).await.unwrap();
    let again = rig.control.issue_key(&operator, vec![Scope::Read], None, None).await.unwrap_err();
    assert_eq!((again.code(), again.subject()), ("command.repeated", Some(Subject::Key(issued.id))));
    let other = rig.control.issue_key(&operator, vec![Scope::Admin], None, None).await.unwrap_err();
    assert_eq!(other.code(), "command.reused");

    let open = Caller::operator().with_command(CommandId([2; 16]));
    let invite = rig.control.issue_invite(&open, Duration::from_mins(1), None).await.unwrap();
    let client = enrol(&rig, 1, Some(*invite.secret.expose())).await.unwrap().id;
    let caller = Caller::new(Actor::Client(client)).with_command(CommandId([3; 16]));
    let wanted = crate::testkit::public(client, None);
    let first = rig.control.create_mapping(&caller, wanted.clone()).await.unwrap();
    let second = rig.control.create_mapping(&caller, wanted).await.unwrap();
    assert_eq!((second.id, second.repeated), (first.id, true));
    assert_eq!(rig.control.state().state.mappings().count(), 1);
    rig.close().await;
}

#[derive(Debug)]
struct Broken;

impl Random for Broken {
    fn fill(&self, _: &mut [u8]) -> Result<(), RandomFailed> {
        Err(RandomFailed::new("no entropy"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_random_source_makes_nothing() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let tasks = Tasks::new("control", tokio_util::sync::CancellationToken::new());
    let options = ControlOptions::new(NODE, "gate");
    let clock = Arc::new(ManualClock::default());
    let opened = Control::open(Arc::clone(&store), options, clock, Arc::new(Broken), &tasks).await;
    assert!(opened.is_err());
    assert!(store.scan(&Key::open(), &Key::open(), 10).await.unwrap().is_empty(), "nothing was written");
}

/// C55, as far as the store goes: what was given out once is nowhere in what is stored.
#[tokio::test(start_paused = true)]
async fn c55_no_secret_is_in_the_store() {
    let store = MemoryStore::new();
    let rig = Rig::open(Arc::new(store.clone())).await;
    let operator = Caller::operator();
    let key = rig.control.issue_key(&operator, vec![Scope::Admin], Some("ci".into()), None).await.unwrap();
    let invite =
        rig.control.issue_invite(&operator, Duration::from_mins(1), Some("pi".into())).await.unwrap();
    let (offerer, other) = (rig.client(0).await, rig.client(1).await);
    let (new, proof) = code(offerer, 1);
    rig.control.issue_code(&Caller::new(Actor::Client(offerer)), new.clone()).await.unwrap();
    let listen = "127.0.0.1:2222".parse().unwrap();
    let redeemer = Caller::new(Actor::Client(other));
    rig.control.redeem_code(&redeemer, &new.lookup, proof, other, listen).await.unwrap();
    assert!(rig.control.authenticate(key.token.expose()).is_ok());
    rig.control.record_auth_failure("198.51.100.7".parse().unwrap(), None, "wrong key").await.unwrap();
    rig.close().await;

    let token_text = key.token.expose().rsplit_once('_').unwrap().1.to_owned();
    let token = data_encoding::BASE32_NOPAD.decode(token_text.to_uppercase().as_bytes()).unwrap();
    let secrets = [token, invite.secret.expose().to_vec(), proof.to_vec()];
    let entries = store.scan(&Key::open(), &Key::open(), 100_000).await.unwrap();
    assert!(entries.len() > 5);
    for secret in secrets {
        let forms = [
            secret.clone(),
            data_encoding::HEXLOWER.encode(&secret).into_bytes(),
            data_encoding::BASE64URL_NOPAD.encode(&secret).into_bytes(),
            data_encoding::BASE32_NOPAD.encode(&secret).to_lowercase().into_bytes(),
        ];
        for entry in &entries {
            for form in &forms {
                let found = entry.value.windows(form.len()).any(|window| window == form.as_slice());
                assert!(!found, "a secret is stored under {}", entry.key);
            }
        }
    }
    // The search does find what is stored: the hash of the invite's secret is.
    let hash = crate::hash_secret(invite.secret.expose()).0;
    assert!(entries.iter().any(|entry| entry.value.windows(32).any(|window| window == hash)));
}

#[tokio::test(start_paused = true)]
async fn failed_authentications_are_recorded_once_in_ten_seconds() {
    let rig = by_invite().await;
    let address = "198.51.100.7".parse().unwrap();
    let mut recorded = 0;
    for _ in 0..100 {
        recorded += u32::from(rig.control.record_auth_failure(address, None, "wrong key").await.unwrap());
    }
    assert_eq!(recorded, 1);
    tokio::time::sleep(crate::RECORD_EVERY).await;
    assert!(rig.control.record_auth_failure(address, Some(key(1)), &"é".repeat(5_000)).await.unwrap());
    let activity = rig.control.activity();
    let failures: Vec<_> = activity.state.auth_failures().collect();
    assert_eq!(failures.len(), 2);
    assert!(failures[1].reason.len() < 300);
    assert!(failures[1].reason.ends_with("(99 more of this address unrecorded)"), "{}", failures[1].reason);
    rig.close().await;
}
