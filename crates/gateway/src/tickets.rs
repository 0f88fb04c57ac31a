//! What admits a data channel.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;
use underpass_domain::{RandomFailed, SessionId};
use underpass_pipeline::Secret;
use underpass_wire::channel::{DataHello, DataRole};
use underpass_wire::link::{Body, ChannelRole, SecretBytes, Ticket as Sheet, TicketRequest, Tickets};
use zeroize::Zeroizing;

use crate::gateway::Shared;
use crate::link::Link;
use crate::park::EXPECTED_MAX;

/// Tickets of all links whose time has not run out. They live for seconds, so this is some 20 000 channels dialled
/// a second; one more is not issued and asked for again a moment later.
const TICKETS_MAX: usize = 200_000;

/// Tickets a client may ask for at once.
const REQUEST_MAX: u32 = 16;

type TicketId = [u8; 16];

/// Tickets that were issued by this node and not used yet. They are in this memory only, so that one is
/// worthless at any other node.
#[derive(Debug, Default)]
pub(crate) struct TicketBook {
    inner: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    tickets: HashMap<TicketId, Ticket>,
    /// All that were issued, used ones included, by the end of their time: every ticket lives equally long.
    ends: VecDeque<(Instant, TicketId)>,
}

#[derive(Debug)]
struct Ticket {
    key: Secret,
    session: SessionId,
    link: Weak<Link>,
    role: DataRole,
    expires: Instant,
}

/// What a ticket gives.
#[derive(Debug)]
pub(crate) struct Admission {
    pub key: Secret,
    pub link: Arc<Link>,
    pub role: DataRole,
}

/// Why a ticket gives nothing. For the log; the other end sees its channel close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TicketError {
    #[error("no such ticket: it was used, has run out, or never was")]
    Unknown,
    #[error("the ticket has run out")]
    Late,
    #[error("the ticket's key, link or role is another")]
    Forged,
    #[error("the ticket's link is over")]
    LinkOver,
}

impl TicketBook {
    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a ticket, unless there are too many.
    fn issue(&self, id: TicketId, ticket: Ticket, now: Instant) -> bool {
        let mut guard = self.lock();
        let Pages { tickets, ends } = &mut *guard;
        while let Some((_, id)) = ends.pop_front_if(|(end, _)| *end <= now) {
            tickets.remove(&id);
        }
        let room = ends.len() < TICKETS_MAX;
        if room {
            ends.push_back((ticket.expires, id));
            tickets.insert(id, ticket);
        }
        room
    }

    /// Takes a ticket that a channel shows. Only the true holder uses it up: whoever shows just its id, which
    /// travels in the clear, leaves it as it is.
    pub(crate) fn redeem(&self, hello: &DataHello, now: Instant) -> Result<Admission, TicketError> {
        let tickets = &mut self.lock().tickets;
        let ticket = tickets.get(&hello.ticket).ok_or(TicketError::Unknown)?;
        if ticket.expires <= now {
            tickets.remove(&hello.ticket);
            return Err(TicketError::Late);
        }
        let link =
            ticket.link.upgrade().filter(|link| !link.over.is_cancelled()).ok_or(TicketError::LinkOver)?;
        // In constant time, a microsecond: no reason to let the lock go, and no room for a second use.
        if !hello.verify(ticket.key.as_bytes(), &link.handshake_hash, ticket.role) {
            return Err(TicketError::Forged);
        }
        let ticket = tickets.remove(&hello.ticket).ok_or(TicketError::Unknown)?;
        Ok(Admission { key: ticket.key, link, role: ticket.role })
    }

    /// Forgets the tickets of a session that is over.
    pub(crate) fn forget(&self, session: SessionId) {
        self.lock().tickets.retain(|_, ticket| ticket.session != session);
    }
}

/// Asks a client for as many target channels as its park lacks.
pub(crate) fn replenish(shared: &Shared, link: &Arc<Link>) {
    let now = Instant::now();
    let count = link.park.shortfall(now, now + shared.options.ticket_ttl);
    if count == 0 {
        return;
    }
    let issued = issue(shared, link, DataRole::Target, count);
    if issued < count {
        link.park.not_sent(count - issued);
    }
}

/// Answers a client that wants to dial: always with one message, which may hold no ticket at all.
pub(crate) fn answer(shared: &Shared, link: &Arc<Link>, request: TicketRequest) {
    if request.role() != ChannelRole::Caller {
        // Target channels are the node's to ask for.
        link.outbox.say(Body::Tickets(Tickets { role: request.role, tickets: Vec::new() }));
        return;
    }
    let now = Instant::now();
    let room = EXPECTED_MAX.saturating_sub(link.caller_tickets(now)).min(link.caller_room());
    let count = room.min(request.count.min(REQUEST_MAX) as usize);
    let issued = issue(shared, link, DataRole::Caller, count);
    link.expect_callers(issued, now + shared.options.ticket_ttl);
}

/// Issues up to so many tickets and sends them, in one message. Answers how many.
fn issue(shared: &Shared, link: &Arc<Link>, role: DataRole, count: usize) -> usize {
    let now = Instant::now();
    let expires = now + shared.options.ticket_ttl;
    let mut sheets = Vec::with_capacity(count);
    for _ in 0..count {
        let Ok((id, key)) = fresh(shared) else {
            tracing::error!("the random source failed: no tickets");
            break;
        };
        let sheet = Sheet { id: id.to_vec(), key: Some(SecretBytes::from(&*key)) };
        let ticket = Ticket {
            key: Secret::new(*key),
            session: link.session,
            link: Arc::downgrade(link),
            role,
            expires,
        };
        if !shared.tickets.issue(id, ticket, now) {
            break;
        }
        sheets.push(sheet);
    }
    let issued = sheets.len();
    let role = match role {
        DataRole::Target => ChannelRole::Target,
        DataRole::Caller => ChannelRole::Caller,
    };
    if role == ChannelRole::Target && issued == 0 {
        return 0;
    }
    if link.outbox.say(Body::Tickets(Tickets { role: role.into(), tickets: sheets })) { issued } else { 0 }
}

fn fresh(shared: &Shared) -> Result<(TicketId, Zeroizing<[u8; 32]>), RandomFailed> {
    let mut key = Zeroizing::new([0; 32]);
    shared.random.fill(&mut *key)?;
    Ok((shared.random.array()?, key))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::link::tests::link;

    const KEY: [u8; 32] = [5; 32];
    const ID: TicketId = [6; 16];
    const TTL: Duration = Duration::from_secs(10);

    fn book(link: &Arc<Link>, now: Instant) -> TicketBook {
        let book = TicketBook::default();
        let ticket = Ticket {
            key: Secret::new(KEY),
            session: link.session,
            link: Arc::downgrade(link),
            role: DataRole::Target,
            expires: now + TTL,
        };
        assert!(book.issue(ID, ticket, now));
        book
    }

    fn shown(link: &Link, role: DataRole) -> DataHello {
        DataHello::new(ID, &KEY, &link.handshake_hash, role)
    }

    #[tokio::test]
    async fn c28_a_ticket_admits_once() {
        let (link, now) = (link(1), Instant::now());
        let book = book(&link, now);
        let hello = shown(&link, DataRole::Target);
        let admission = book.redeem(&hello, now).unwrap();
        assert_eq!((admission.link.session, admission.role), (link.session, DataRole::Target));
        assert_eq!(book.redeem(&hello, now).unwrap_err(), TicketError::Unknown);
    }

    /// C28: each row is a ticket shown wrongly; the last line shows that the rightful holder is not disturbed.
    #[tokio::test]
    async fn c28_a_ticket_shown_wrongly_admits_nobody_and_stays() {
        let (owner, other, now) = (link(1), link(2), Instant::now());
        let book = book(&owner, now);
        let table = [
            ("by another client", shown(&other, DataRole::Target), TicketError::Forged),
            ("for another role", shown(&owner, DataRole::Caller), TicketError::Forged),
            (
                "without its key",
                DataHello::new(ID, &[9; 32], &owner.handshake_hash, DataRole::Target),
                TicketError::Forged,
            ),
            (
                "that never was",
                DataHello::new([9; 16], &KEY, &owner.handshake_hash, DataRole::Target),
                TicketError::Unknown,
            ),
        ];
        for (case, hello, error) in table {
            assert_eq!(book.redeem(&hello, now).unwrap_err(), error, "{case}");
        }
        assert!(book.redeem(&shown(&owner, DataRole::Target), now).is_ok());
    }

    #[tokio::test]
    async fn c28_a_ticket_is_worth_nothing_after_its_time_or_its_link() {
        let (link, now) = (link(1), Instant::now());
        let hello = shown(&link, DataRole::Target);
        assert_eq!(book(&link, now).redeem(&hello, now + TTL).unwrap_err(), TicketError::Late);
        let forgotten = book(&link, now);
        forgotten.forget(link.session);
        assert_eq!(forgotten.redeem(&hello, now).unwrap_err(), TicketError::Unknown);
        let over = book(&link, now);
        link.end(crate::link::Goodbye::Closed);
        assert_eq!(over.redeem(&hello, now).unwrap_err(), TicketError::LinkOver);
    }
}
