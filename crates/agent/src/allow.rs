//! Which targets this client may dial, whatever the server names.
//!
//! By default exactly what this user exposed or shared from here; the list is kept in `shares.json`. Ranges
//! come from the options of the agent.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use underpass_domain::{MappingId, Random};

use crate::error::AgentError;
use crate::state::StateDir;

/// The file in the state folder.
const FILE: &str = "shares.json";
/// More entries than any user types; keeps the file small and the check quick.
pub(crate) const ENTRIES_MAX: usize = 4096;
/// DNS names are not longer.
const HOST_BYTES_MAX: usize = 253;
/// Ranges are options that a person types.
const RANGE_BYTES_MAX: usize = 300;

/// Where a tunnel leads: a host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetAddress {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Host {
    Ip(IpAddr),
    /// Lower case.
    Name(String),
}

impl TargetAddress {
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Reads `3000`, `:3000`, `127.0.0.1:3000`, `[::1]:3000` and `name:3000`; without a host it is 127.0.0.1.
impl FromStr for TargetAddress {
    type Err = AgentError;

    fn from_str(text: &str) -> Result<Self, AgentError> {
        let invalid =
            |why| AgentError::TargetInvalid { given: text.chars().take(RANGE_BYTES_MAX).collect(), why };
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port),
            None => ("", text),
        };
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid("the port is missing or not a number"));
        }
        let port: u16 = port.parse().map_err(|_| invalid("the port is larger than 65535"))?;
        if port == 0 {
            return Err(invalid("the port is 0"));
        }
        let host = parse_host(host).map_err(invalid)?;
        Ok(Self { host, port })
    }
}

fn parse_host(host: &str) -> Result<Host, &'static str> {
    if host.is_empty() {
        return Ok(Host::Ip(IpAddr::from([127, 0, 0, 1])));
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner
            .parse()
            .map(|ip| Host::Ip(IpAddr::V6(ip)))
            .map_err(|_| "the host in brackets is not an IPv6 address");
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return if ip.is_ipv4() { Ok(Host::Ip(ip)) } else { Err("an IPv6 address needs brackets: [::1]:80") };
    }
    let name = host.to_ascii_lowercase();
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > HOST_BYTES_MAX || !name.trim_end_matches('.').split('.').all(label) {
        return Err("the host is neither an address nor a name");
    }
    if name.split('.').all(|part| part.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("the host looks like an IPv4 address, but is none");
    }
    Ok(Host::Name(name))
}

impl fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Targets allowed in general: `HOST:PORTS`, where `HOST` is an address, a network (`10.0.0.0/8`,
/// `[fd00::]/8`), a name or `*`, and `PORTS` is a port, `FIRST-LAST` or `*`.
///
/// A network covers a named target as far as the name resolves into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRange {
    hosts: Hosts,
    first: u16,
    last: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Any,
    Network { base: IpAddr, bits: u8 },
    Name(String),
}

impl FromStr for TargetRange {
    type Err = AgentError;

    fn from_str(text: &str) -> Result<Self, AgentError> {
        let invalid =
            |why| AgentError::TargetInvalid { given: text.chars().take(RANGE_BYTES_MAX).collect(), why };
        let (host, ports) = text.rsplit_once(':').ok_or_else(|| invalid("a range is HOST:PORTS"))?;
        let port = |text: &str| {
            text.parse::<u16>()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| invalid("a port is a number from 1 to 65535"))
        };
        let (first, last) = match ports.split_once('-') {
            _ if ports == "*" => (1, u16::MAX),
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(ports)?, port(ports)?),
        };
        if first > last {
            return Err(invalid("the first port is above the last"));
        }
        let hosts = if host == "*" {
            Hosts::Any
        } else if let Some((base, bits)) = host.split_once('/') {
            let Ok(Host::Ip(base)) = parse_host(base) else {
                return Err(invalid("a network is ADDRESS/BITS"));
            };
            let bits: u8 = bits.parse().map_err(|_| invalid("a network is ADDRESS/BITS"))?;
            if bits > if base.is_ipv4() { 32 } else { 128 } {
                return Err(invalid("the network has more bits than its address"));
            }
            Hosts::Network { base, bits }
        } else {
            match parse_host(host).map_err(invalid)? {
                Host::Ip(base) => Hosts::Network { base, bits: if base.is_ipv4() { 32 } else { 128 } },
                Host::Name(name) => Hosts::Name(name),
            }
        };
        Ok(Self { hosts, first, last })
    }
}

impl TargetRange {
    fn covers(&self, target: &TargetAddress, resolved: &SocketAddr) -> bool {
        if !(self.first..=self.last).contains(&target.port) {
            return false;
        }
        match &self.hosts {
            Hosts::Any => true,
            Hosts::Name(name) => matches!(&target.host, Host::Name(other) if other == name),
            Hosts::Network { base, bits } => in_network(*base, *bits, resolved.ip()),
        }
    }
}

fn in_network(base: IpAddr, bits: u8, ip: IpAddr) -> bool {
    match (base, ip.to_canonical()) {
        (IpAddr::V4(base), IpAddr::V4(ip)) => {
            bits == 0 || (u32::from(base) ^ u32::from(ip)) >> (32 - u32::from(bits)) == 0
        }
        (IpAddr::V6(base), IpAddr::V6(ip)) => {
            bits == 0 || (u128::from(base) ^ u128::from(ip)) >> (128 - u32::from(bits)) == 0
        }
        _ => false,
    }
}

/// How a tunnel reaches this client, as far as the allow list cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Approach<'a> {
    /// From the server, or from a client whose key came from the server.
    Server,
    /// From the client that redeemed the code with this lookup half.
    Code(&'a str),
}

/// One target this user offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Normalised `HOST:PORT`.
    target: String,
    /// The mapping it was exposed for, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mapping: Option<MappingId>,
    /// It was shared by the code with this lookup half, and is for who redeems it only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

/// The list and the ranges.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowList {
    entries: Vec<Entry>,
    ranges: Vec<TargetRange>,
}

impl AllowList {
    pub(crate) fn load(state: &StateDir, ranges: Vec<TargetRange>) -> Result<Self, AgentError> {
        Ok(Self { entries: state.load(FILE)?.unwrap_or_default(), ranges })
    }

    pub(crate) fn save(&self, state: &StateDir, random: &dyn Random) -> Result<(), AgentError> {
        state.store(FILE, &self.entries, random)
    }

    /// Allows a target that is exposed. Answers whether the list changed.
    pub(crate) fn expose(&mut self, target: &TargetAddress) -> Result<bool, AgentError> {
        self.add(Entry { target: target.to_string(), mapping: None, code: None })
    }

    /// Allows a target for who redeems a code.
    pub(crate) fn share(&mut self, target: &TargetAddress, lookup: &str) -> Result<bool, AgentError> {
        self.add(Entry { target: target.to_string(), mapping: None, code: Some(lookup.to_owned()) })
    }

    fn add(&mut self, entry: Entry) -> Result<bool, AgentError> {
        if self.entries.iter().any(|other| other.target == entry.target && other.code == entry.code) {
            return Ok(false);
        }
        if self.entries.len() >= ENTRIES_MAX {
            return Err(AgentError::Busy { what: "the allow list of targets is full" });
        }
        self.entries.push(entry);
        Ok(true)
    }

    /// Notes which mapping an exposed target belongs to, so that removing it takes the target back.
    pub(crate) fn belongs_to(&mut self, target: &TargetAddress, mapping: MappingId) -> bool {
        let target = target.to_string();
        // The mapping may have led to another target before.
        let before = self.entries.len();
        self.entries
            .retain(|entry| entry.code.is_some() || entry.mapping != Some(mapping) || entry.target == target);
        let mut changed = self.entries.len() != before;
        for entry in self.entries.iter_mut().filter(|entry| entry.code.is_none() && entry.target == target) {
            // The first mapping of a target keeps the entry; a second one adds its own below.
            if entry.mapping.is_none() {
                entry.mapping = Some(mapping);
                return true;
            }
            if entry.mapping == Some(mapping) {
                return changed;
            }
        }
        if self.entries.len() < ENTRIES_MAX {
            self.entries.push(Entry { target, mapping: Some(mapping), code: None });
            changed = true;
        }
        changed
    }

    /// Takes back what was exposed for a mapping.
    pub(crate) fn forget_mapping(&mut self, mapping: MappingId) -> bool {
        self.forget(|entry| entry.mapping == Some(mapping))
    }

    /// Takes back what was shared by a code.
    pub(crate) fn forget_code(&mut self, lookup: &str) -> bool {
        self.forget(|entry| entry.code.as_deref() == Some(lookup))
    }

    /// Takes back an exposed target that no mapping came of.
    pub(crate) fn forget_unused(&mut self, target: &TargetAddress) -> bool {
        let target = target.to_string();
        self.forget(|entry| entry.target == target && entry.mapping.is_none() && entry.code.is_none())
    }

    fn forget(&mut self, gone: impl Fn(&Entry) -> bool) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| !gone(entry));
        self.entries.len() != before
    }

    /// Whether dialling `target` could be allowed at all: asked before its name is resolved, so that nobody
    /// makes this client resolve names that it would not dial.
    pub(crate) fn may_resolve(&self, target: &TargetAddress, approach: Approach<'_>) -> bool {
        self.lists(target, approach)
            || (approach == Approach::Server
                && self.ranges.iter().any(|range| {
                    (range.first..=range.last).contains(&target.port)
                        && match (&range.hosts, &target.host) {
                            (Hosts::Name(name), Host::Name(other)) => name == other,
                            (Hosts::Name(_), Host::Ip(_)) => false,
                            _ => true,
                        }
                }))
    }

    /// Those of the `resolved` addresses of `target` that may be dialled.
    pub(crate) fn permitted(
        &self,
        target: &TargetAddress,
        resolved: &[SocketAddr],
        approach: Approach<'_>,
    ) -> Vec<SocketAddr> {
        if self.lists(target, approach) {
            return resolved.to_vec();
        }
        if approach != Approach::Server {
            return Vec::new();
        }
        resolved
            .iter()
            .filter(|address| self.ranges.iter().any(|range| range.covers(target, address)))
            .copied()
            .collect()
    }

    fn lists(&self, target: &TargetAddress, approach: Approach<'_>) -> bool {
        let wanted = match approach {
            Approach::Server => None,
            Approach::Code(lookup) => Some(lookup),
        };
        let target = target.to_string();
        self.entries.iter().any(|entry| entry.target == target && entry.code.as_deref() == wanted)
    }
}

#[cfg(test)]
mod tests {
    use underpass_domain::testing::SeededRandom;

    use super::*;

    fn target(text: &str) -> TargetAddress {
        text.parse().unwrap()
    }

    fn at(text: &str) -> Vec<SocketAddr> {
        vec![text.parse().unwrap()]
    }

    #[test]
    fn targets_are_normalised() {
        for (given, normal) in [
            ("3000", "127.0.0.1:3000"),
            (":22", "127.0.0.1:22"),
            ("10.0.0.7:80", "10.0.0.7:80"),
            ("[::1]:80", "[::1]:80"),
            ("[0:0:0:0:0:0:0:1]:80", "[::1]:80"),
            ("DB.Internal:5432", "db.internal:5432"),
            ("localhost:1", "localhost:1"),
        ] {
            assert_eq!(target(given).to_string(), normal, "{given}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_part_that_is_wrong() {
        for (given, part) in [
            ("", "port"),
            ("0", "port is 0"),
            ("65536", "65535"),
            ("host:", "port"),
            ("host:+80", "port"),
            ("::1:80", "brackets"),
            ("[::1:80", "host"),
            ("a b:80", "host"),
            ("300.1.1.1:80", "IPv4"),
            ("http://x:80", "host"),
            ("-:x", "port"),
        ] {
            let error = given.parse::<TargetAddress>().unwrap_err();
            assert_eq!(error.code(), "target.invalid");
            assert!(error.to_string().contains(part), "{given}: {error}");
        }
    }

    #[test]
    fn c34_nothing_is_allowed_that_was_not_offered() {
        let mut list = AllowList::default();
        assert!(list.permitted(&target("3000"), &at("127.0.0.1:3000"), Approach::Server).is_empty());
        assert!(list.expose(&target("3000")).unwrap());
        assert_eq!(list.permitted(&target("3000"), &at("127.0.0.1:3000"), Approach::Server).len(), 1);
        assert!(list.permitted(&target("3001"), &at("127.0.0.1:3001"), Approach::Server).is_empty());
        assert!(
            list.permitted(&target("localhost:3000"), &at("127.0.0.1:3000"), Approach::Server).is_empty()
        );
        assert!(!list.may_resolve(&target("evil.example:3000"), Approach::Server));
    }

    #[test]
    fn c34_a_shared_target_is_for_who_redeemed_its_code_alone() {
        let mut list = AllowList::default();
        list.share(&target("22"), "abc-abc-abc").unwrap();
        let resolved = at("127.0.0.1:22");
        assert_eq!(list.permitted(&target("22"), &resolved, Approach::Code("abc-abc-abc")).len(), 1);
        assert!(list.permitted(&target("22"), &resolved, Approach::Code("xyz-xyz-xyz")).is_empty());
        assert!(list.permitted(&target("22"), &resolved, Approach::Server).is_empty());
        assert!(list.forget_code("abc-abc-abc"));
        assert!(list.permitted(&target("22"), &resolved, Approach::Code("abc-abc-abc")).is_empty());
    }

    #[test]
    fn c34_removing_a_mapping_takes_its_target_back() {
        let mut list = AllowList::default();
        let (one, two) = (MappingId::from_bytes([1; 16]), MappingId::from_bytes([2; 16]));
        list.expose(&target("3000")).unwrap();
        assert!(list.belongs_to(&target("3000"), one));
        assert!(!list.belongs_to(&target("3000"), one));
        assert!(list.belongs_to(&target("3000"), two));
        let allowed = |list: &AllowList, port: &str| list.may_resolve(&target(port), Approach::Server);
        assert!(list.forget_mapping(one));
        assert!(allowed(&list, "3000"), "the other mapping still leads there");
        // A mapping that leads elsewhere now takes the old target back.
        list.expose(&target("4000")).unwrap();
        assert!(list.belongs_to(&target("4000"), two));
        assert!(!allowed(&list, "3000"));
        assert!(allowed(&list, "4000"));
        assert!(!list.forget_unused(&target("4000")));
        assert!(list.forget_mapping(two));
        assert!(!allowed(&list, "4000"));
    }

    #[test]
    fn c34_networks_hold_for_what_a_name_resolves_to() {
        let list = AllowList {
            entries: vec![],
            ranges: vec!["10.0.0.0/8:80-90".parse().unwrap(), "db.internal:*".parse().unwrap()],
        };
        let both = ["10.1.2.3:80".parse().unwrap(), "192.168.0.1:80".parse().unwrap()];
        assert_eq!(list.permitted(&target("web:80"), &both, Approach::Server), [both[0]]);
        assert!(list.permitted(&target("web:91"), &at("10.1.2.3:91"), Approach::Server).is_empty());
        assert_eq!(
            list.permitted(&target("db.internal:5432"), &at("8.8.8.8:5432"), Approach::Server).len(),
            1
        );
        assert!(list.permitted(&target("10.1.2.3:80"), &at("10.1.2.3:80"), Approach::Code("x")).is_empty());
        // An IPv4 address dressed as IPv6 is the same address.
        assert_eq!(
            list.permitted(&target("[::ffff:10.1.2.3]:80"), &at("[::ffff:10.1.2.3]:80"), Approach::Server)
                .len(),
            1
        );
    }

    #[test]
    fn ranges_that_say_nothing_are_refused() {
        for given in
            ["", "10.0.0.0/33:80", "10.0.0.0/8", "x:90-80", "x:0", "name/8:80", "10.0.0.0/:80", "*:70000"]
        {
            assert!(given.parse::<TargetRange>().is_err(), "{given}");
        }
        let any: TargetRange = "*:*".parse().unwrap();
        assert!(any.covers(&target("x:1"), &"1.2.3.4:1".parse().unwrap()));
        let six: TargetRange = "[fd00::]/8:443".parse().unwrap();
        assert!(six.covers(&target("[fd12::1]:443"), &"[fd12::1]:443".parse().unwrap()));
        assert!(!six.covers(&target("[fe80::1]:443"), &"[fe80::1]:443".parse().unwrap()));
    }

    #[test]
    fn the_list_outlives_the_agent() {
        let temporary = tempfile::tempdir().unwrap();
        let state = StateDir::create(temporary.path().join("state")).unwrap();
        let random = SeededRandom::new(1);
        let mut list = AllowList::load(&state, vec![]).unwrap();
        list.expose(&target("3000")).unwrap();
        list.share(&target("22"), "abc-abc-abc").unwrap();
        list.save(&state, &random).unwrap();
        assert_eq!(AllowList::load(&state, vec![]).unwrap().entries, list.entries);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut list = AllowList::default();
        for port in 1..=u16::try_from(ENTRIES_MAX).unwrap() {
            list.expose(&target(&port.to_string())).unwrap();
        }
        assert_eq!(list.expose(&target("60000")).unwrap_err().code(), "agent.busy");
    }
}
