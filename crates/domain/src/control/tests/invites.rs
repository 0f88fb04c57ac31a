use super::*;
use crate::limits::{INVITE_TTL_MAX, OPEN_INVITES_MAX};

fn enrol_by(number: u8, of_invite: u8) -> ControlCommand {
    enrol(number, Some(Digest32([of_invite; 32])))
}

#[test]
fn an_invite_lets_one_client_in() {
    // C7
    let mut story = Story::new();
    story.done(Actor::Operator, issue_invite(1, START.plus(MINUTE)));
    story.when(Actor::System, enrol_by(1, 1)).then(&["client.enrolled", "invite.used"]);
    story.when(Actor::System, enrol_by(2, 1)).then_refused("invite.used");
    assert_eq!(story.state.invite(invite(1)).unwrap().status, InviteStatus::Used { by: client(1) });
    assert_eq!(story.state.client(client(1)).unwrap().invite, Some(invite(1)));
    assert!(story.state.client(client(2)).is_none());
}

#[test]
fn the_same_key_enrolling_twice_is_one_client() {
    // C7: an answer that got lost is asked for again, also with a fresh invite, which stays good.
    let mut story = Story::new();
    story.done(Actor::Operator, issue_invite(1, START.plus(MINUTE)));
    story.done(Actor::Operator, issue_invite(2, START.plus(MINUTE)));
    story.done(Actor::System, enrol_by(1, 1));
    story.when(Actor::System, enrol_by(1, 1)).then_already(client(1));
    let mut other_id = enrol_by(1, 2);
    if let ControlCommand::EnrolClient { client: id, .. } = &mut other_id {
        *id = client(9);
    }
    story.when(Actor::System, other_id).then_already(client(1));
    assert_eq!(story.state.clients().count(), 1);
    assert_eq!(story.state.invite(invite(2)).unwrap().status, InviteStatus::Open);
}

#[test]
fn unknown_used_expired_and_revoked_invites_are_told_apart() {
    // C8
    let mut story = Story::new();
    for number in 1..=3 {
        story.done(Actor::Operator, issue_invite(number, START.plus(MINUTE)));
    }
    story.done(Actor::System, enrol_by(1, 1));
    story.done(Actor::Operator, ControlCommand::RevokeInvite { invite: invite(2) });
    story.when(Actor::System, enrol_by(5, 9)).then_refused("invite.unknown");
    story.when(Actor::System, enrol_by(5, 1)).then_refused("invite.used");
    story.when(Actor::System, enrol_by(5, 2)).then_refused("invite.revoked");
    story.after(MINUTE);
    // Past its time at once, and no different once that is noted.
    story.when(Actor::System, enrol_by(5, 3)).then_refused("invite.expired");
    story.when(Actor::System, ControlCommand::ExpireInvite { invite: invite(3) }).then(&["invite.expired"]);
    story.when(Actor::System, enrol_by(5, 3)).then_refused("invite.expired");
    assert_eq!(story.state.clients().count(), 1);
}

#[test]
fn without_an_invite_only_an_open_server_lets_in() {
    let mut closed = enrol(1, None);
    if let ControlCommand::EnrolClient { open_enrolment, .. } = &mut closed {
        *open_enrolment = false;
    }
    Story::new().when(Actor::System, closed).then_refused("invite.required");
    Story::new().when(Actor::System, enrol(1, None)).then(&["client.enrolled"]);
}

#[test]
fn an_invite_is_revoked_once_and_not_after_its_use() {
    let mut story = Story::new();
    story.done(Actor::Operator, issue_invite(1, START.plus(MINUTE)));
    story.done(Actor::Operator, issue_invite(2, START.plus(MINUTE)));
    story.done(Actor::System, enrol_by(1, 2));
    let revoke = |number| ControlCommand::RevokeInvite { invite: invite(number) };
    story.when(Actor::Operator, revoke(1)).then(&["invite.revoked"]);
    story.when(Actor::Operator, revoke(1)).then_already(invite(1));
    story.when(Actor::Operator, revoke(2)).then_refused("invite.used");
    story.when(Actor::Operator, revoke(3)).then_refused("invite.unknown");
}

#[test]
fn an_invite_is_issued_within_limits() {
    let mut story = Story::new();
    let too_late = START.plus(INVITE_TTL_MAX + Duration::from_millis(1));
    for wrong in [START, too_late] {
        let refusal = story.when(Actor::Operator, issue_invite(1, wrong)).then_refused("invalid");
        assert_eq!(refusal.class(), RefusalClass::Invalid { field: "expires_at" });
    }
    story.done(Actor::Operator, issue_invite(1, START.plus(INVITE_TTL_MAX)));
    story.when(Actor::Operator, issue_invite(1, START.plus(MINUTE))).then_refused("invite.exists");

    for number in 1..OPEN_INVITES_MAX as u64 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        let command = ControlCommand::IssueInvite {
            invite: InviteId::from_bytes(bytes),
            secret_hash: Digest32(hash),
            expires_at: START.plus(MINUTE),
            label: None,
        };
        story.done(Actor::Operator, command);
    }
    story.when(Actor::Operator, issue_invite(2, START.plus(MINUTE))).then_refused("quota.invites");
}
