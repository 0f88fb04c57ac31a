//! Every bound of the domain, with its reason.

use std::time::Duration;

/// Names of clients and mappings: as long as a DNS label, so that a name can become a host name.
pub const NAME_BYTES_MAX: usize = 63;

/// Labels of invites and keys: a line for people.
pub const LABEL_BYTES_MAX: usize = 200;

/// What a client says about its platform: `linux x86_64 0.1.0` and the like.
pub const PLATFORM_BYTES_MAX: usize = 100;

/// Reasons of blocking, closing and failed authentication: a sentence.
pub const REASON_BYTES_MAX: usize = 300;

/// Targets, `host:port`: a DNS name of 253 bytes, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 259;

/// The name of a transport or a version.
pub const WORD_BYTES_MAX: usize = 40;

/// The part of a connection code that it is looked up by: 9 symbols today; room for longer ones.
pub const CODE_LOOKUP_BYTES_MAX: usize = 32;

/// Scopes of one key: more than there are kinds, room for some users.
pub const SCOPES_MAX: usize = 32;

/// Clients of an installation: what one node's memory holds with ease; keeps open enrolment from
/// filling it.
pub const CLIENTS_MAX: usize = 100_000;

/// Mappings in which a client takes part, as listener or target: all of them travel in one
/// `Desired`, which must stay well under the size limit of link messages.
pub const MAPPINGS_PER_CLIENT_MAX: usize = 1000;

/// Codes of one client that can still be redeemed: more is guessing surface, not use.
pub const OPEN_CODES_PER_CLIENT_MAX: usize = 10;

/// Invites that can still be used.
pub const OPEN_INVITES_MAX: usize = 1000;

/// Keys that are neither revoked nor expired: authentication walks over them in memory.
pub const ACTIVE_KEYS_MAX: usize = 1000;

/// Codes, invites and keys that are used up are remembered, so that who comes late is told why. Of
/// all together this many; the oldest leave the memory first, the log keeps them.
pub const CLOSED_KEPT_MAX: usize = 10_000;

/// Nodes remembered, running and stopped. Those stopped for longest leave first.
pub const NODES_KEPT_MAX: usize = 1000;

/// How long a code may wait to be redeemed. It is said over the phone or pasted into a chat; a day
/// covers time zones.
pub const CODE_ACTIVATION_MAX: Duration = Duration::from_hours(24);

/// The shortest wait: time enough to type it.
pub const CODE_ACTIVATION_MIN: Duration = Duration::from_secs(10);

/// How long the access given by a code may last: a year. Longer access is a mapping made by an
/// operator.
pub const CODE_ACCESS_MAX: Duration = Duration::from_hours(366 * 24);

/// The shortest access: a minute.
pub const CODE_ACCESS_MIN: Duration = Duration::from_mins(1);

/// How long an invite may wait: 30 days, for machines that are set up by mail.
pub const INVITE_TTL_MAX: Duration = Duration::from_hours(30 * 24);

/// Connections of one mapping at a time: what one address has of ports.
pub const CONNECTIONS_MAX: u32 = 65_535;

/// Idle time-out of tunnels, in seconds: a week. Longer means none.
pub const IDLE_TIMEOUT_S_MAX: u32 = 7 * 24 * 3600;

/// Commands that one look for overdue things gives: one batch of the expirer.
pub const DUE_BATCH_MAX: usize = 256;

/// Closed sessions remembered for each client.
pub const CLOSED_SESSIONS_PER_CLIENT_MAX: usize = 20;

/// Closed sessions remembered in all.
pub const CLOSED_SESSIONS_MAX: usize = 20_000;

/// Mappings whose usage totals are remembered. The ones without traffic for longest leave first.
pub const USAGE_KEPT_MAX: usize = 100_000;

/// Failed authentications remembered.
pub const AUTH_FAILURES_KEPT_MAX: usize = 1000;

/// Events that one step of a carry makes. With its record each stays under 1 KiB, so a step takes a quarter of
/// the largest frame at most, and who waits behind it waits for one commit.
pub const CARRY_BATCH_MAX: usize = 256;

/// Finished carries remembered: a month of daily ones. Who trims by age looks for the newest that is old
/// enough; older ones than these mean that nobody trims.
pub const FINISHED_CARRIES_MAX: usize = 32;
