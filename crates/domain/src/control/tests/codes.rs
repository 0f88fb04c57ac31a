use super::*;
use crate::limits::{CODE_ACCESS_MAX, CODE_ACTIVATION_MAX, OPEN_CODES_PER_CLIENT_MAX};

fn share_for(activation: Duration, access_s: u64) -> ControlCommand {
    let mut command = share(1, 1, START);
    if let ControlCommand::IssueCode { activate_until, access_s: access, .. } = &mut command {
        *activate_until = START.plus(activation);
        *access = access_s;
    }
    command
}

#[test]
fn a_code_becomes_one_mapping_between_its_two_clients() {
    let mut story = Story::with_clients(2);
    story.when(acting(1), share(1, 1, START)).then(&["code.issued"]);
    story.after(MINUTE);
    let decision = story.when(acting(2), redeem(1, 2, 1)).then(&["code.redeemed", "mapping.created"]);
    assert_eq!(decision.subject, Subject::Mapping(mapping(1)));
    let made = story.state.mapping(mapping(1)).unwrap();
    assert_eq!(made.ingress, Ingress::Client { client: client(2), listen: listen(2001) });
    assert_eq!(made.target, Target { client: client(1), address: "127.0.0.1:22".into() });
    assert_eq!(made.options.expires_at, Some(START.plus(MINUTE + Duration::from_hours(1))));
    assert_eq!((made.name.as_str(), made.code), ("port-22", Some(code(1))));
    assert_eq!(story.state.desired(client(1), story.now), [made]);
    assert_eq!(story.state.desired(client(2), story.now), [made]);
}

#[test]
fn of_100_clients_that_redeem_one_code_one_wins() {
    // C48
    let mut story = Story::with_clients(101);
    story.done(acting(101), share(1, 101, START));
    let answers: Vec<_> =
        (1..=100).map(|number| story.execute(acting(number), &redeem(1, number, number))).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let told = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert_eq!(told.filter(|refusal| refusal.code() == "code.used").count(), 99);
    assert_eq!(story.state.mappings().count(), 1);
}

#[test]
fn the_same_client_redeeming_again_gets_its_mapping_again() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), share(1, 1, START));
    story.done(acting(2), redeem(1, 2, 1));
    let mut again = redeem(1, 2, 9);
    if let ControlCommand::RedeemCode { listen: at, .. } = &mut again {
        *at = listen(2001);
    }
    story.when(acting(2), again.clone()).then_already(mapping(1));
    // Also long after the time to redeem it, and somewhere else.
    story.after(30 * MINUTE);
    story.when(acting(2), again).then_already(mapping(1));
    let moved = story.when(acting(2), redeem(1, 2, 9)).then(&["mapping.changed"]);
    assert_eq!(moved.subject, Subject::Mapping(mapping(1)));
    let made = story.state.mapping(mapping(1)).unwrap();
    assert_eq!(made.ingress, Ingress::Client { client: client(2), listen: listen(2009) });
    assert_eq!(story.state.mappings().count(), 1);
}

#[test]
fn a_mapping_that_was_given_up_does_not_come_back_by_its_code() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), share(1, 1, START));
    story.done(acting(2), redeem(1, 2, 1));
    story.done(acting(1), remove(1));
    story.when(acting(2), redeem(1, 2, 2)).then_refused("code.used");
    assert_eq!(story.state.mappings().count(), 0);
}

#[test]
fn unknown_used_revoked_and_expired_codes_are_told_apart() {
    // C49
    let mut story = Story::with_clients(3);
    for number in 1..=3 {
        story.done(acting(1), share(number, 1, START));
    }
    story.done(acting(2), redeem(1, 2, 1));
    story.when(acting(1), ControlCommand::RevokeCode { code: code(2) }).then(&["code.revoked"]);
    story.when(acting(1), ControlCommand::RevokeCode { code: code(2) }).then_already(code(2));
    story.when(acting(1), ControlCommand::RevokeCode { code: code(1) }).then_refused("code.used");

    story.when(acting(3), redeem(9, 3, 5)).then_refused("code.unknown");
    story.when(acting(3), redeem(1, 3, 5)).then_refused("code.used");
    story.when(acting(3), redeem(2, 3, 5)).then_refused("code.revoked");
    story.after(10 * MINUTE);
    // Past its time at once, and no different once that is noted.
    story.when(acting(3), redeem(3, 3, 5)).then_refused("code.expired");
    story.when(Actor::System, ControlCommand::ExpireCode { code: code(3) }).then(&["code.expired"]);
    story.when(acting(3), redeem(3, 3, 5)).then_refused("code.expired");
    assert_eq!(story.state.mappings().count(), 1);
}

#[test]
fn guessing_neither_burns_a_code_nor_tells_of_it() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), share(1, 1, START));
    let mut guess = redeem(1, 2, 1);
    if let ControlCommand::RedeemCode { proof_hash, .. } = &mut guess {
        *proof_hash = Digest32([0; 32]);
    }
    for _ in 0..100 {
        let wrong = story.when(acting(2), guess.clone()).then_refused("code.unknown");
        let unknown = story.when(acting(2), redeem(9, 2, 1)).then_refused("code.unknown");
        assert_eq!(wrong, unknown);
    }
    story.when(acting(2), redeem(1, 2, 1)).then(&["code.redeemed", "mapping.created"]);
}

#[test]
fn times_off_the_limits_are_invalid() {
    // C49
    let mut story = Story::with_clients(1);
    let second = Duration::from_secs(1);
    for (field, command) in [
        ("activation", share_for(Duration::ZERO, 3600)),
        ("activation", share_for(CODE_ACTIVATION_MAX + second, 3600)),
        ("access", share_for(MINUTE, 59)),
        ("access", share_for(MINUTE, CODE_ACCESS_MAX.as_secs() + 1)),
        ("access", share_for(MINUTE, u64::MAX)),
    ] {
        let refusal = story.when(acting(1), command).then_refused("invalid");
        assert_eq!(refusal.class(), RefusalClass::Invalid { field });
    }
    story.when(acting(1), share_for(CODE_ACTIVATION_MAX, CODE_ACCESS_MAX.as_secs())).then(&["code.issued"]);
}

#[test]
fn the_11th_open_code_is_refused() {
    // C50
    let mut story = Story::with_clients(2);
    for number in 1..=10 {
        story.done(acting(1), share(number, 1, START));
    }
    let refusal = story.when(acting(1), share(11, 1, START)).then_refused("quota.codes");
    assert_eq!(refusal.class(), RefusalClass::Quota);
    assert_eq!(refusal.to_string(), "10 of 10 open codes of the client are in use");
    assert_eq!(OPEN_CODES_PER_CLIENT_MAX, 10);
    // Others have their own, and each end of one makes room.
    story.when(acting(2), share(20, 2, START)).then(&["code.issued"]);
    story.done(acting(2), redeem(1, 2, 1));
    story.when(acting(1), share(12, 1, START)).then(&["code.issued"]);
    story.done(acting(1), ControlCommand::RevokeCode { code: code(2) });
    story.when(acting(1), share(13, 1, START)).then(&["code.issued"]);
    story.when(acting(1), share(14, 1, START)).then_refused("quota.codes");
    story.after(10 * MINUTE);
    let now = story.now;
    story.when(acting(1), share(15, 1, now)).then(&["code.issued"]);
}

#[test]
fn a_code_ends_no_later_than_its_options_say() {
    let mut story = Story::with_clients(2);
    let end = START.plus(5 * MINUTE);
    story.done(acting(1), ending(share(1, 1, START), end));
    story.done(acting(1), ending(share(2, 1, START), end));
    story.done(acting(2), redeem(1, 2, 1));
    assert_eq!(story.state.mapping(mapping(1)).unwrap().options.expires_at, Some(end));
    story.after(5 * MINUTE);
    story.when(acting(2), redeem(2, 2, 2)).then_refused("code.expired");
}

#[test]
fn a_client_handles_its_own_codes_only() {
    let mut story = Story::with_clients(2);
    story.when(acting(2), share(1, 1, START)).then_refused("forbidden");
    story.done(acting(1), share(1, 1, START));
    story.when(acting(2), ControlCommand::RevokeCode { code: code(1) }).then_refused("forbidden");
    story.when(acting(1), redeem(1, 2, 1)).then_refused("forbidden");
    story.when(acting(1), share(1, 1, START)).then_refused("code.exists");
}

#[test]
fn a_listen_address_in_use_leaves_the_code_open() {
    let mut story = Story::with_clients(2);
    story.done(acting(1), share(1, 1, START));
    story.done(acting(1), share(2, 1, START));
    story.done(acting(2), redeem(1, 2, 1));
    let mut there = redeem(2, 2, 2);
    if let ControlCommand::RedeemCode { listen: at, .. } = &mut there {
        *at = listen(2001);
    }
    story.when(acting(2), there).then_refused("listen.taken");
    assert_eq!(story.state.code(code(2)).unwrap().status, CodeStatus::Open);
}
