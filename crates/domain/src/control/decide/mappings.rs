//! Mappings.

use std::net::SocketAddr;

use super::{Case, Decision, checked_name, within};
use crate::address::{normalise_address, port_of};
use crate::control::model::{Ingress, Mapping, MappingOptions, MappingStatus, OptionsChange, Target};
use crate::control::{IngressRequest, Quota, Refusal};
use crate::events::v1;
use crate::ids::{ClientId, MappingId, UserId};
use crate::limits::{CONNECTIONS_MAX, IDLE_TIMEOUT_S_MAX, MAPPINGS_PER_CLIENT_MAX};

/// A mapping as it is asked for.
pub(super) struct Wanted<'a> {
    pub id: MappingId,
    pub owner: Option<UserId>,
    pub name: Option<&'a str>,
    pub ingress: IngressRequest,
    pub target: &'a Target,
    pub options: &'a MappingOptions,
    pub ports: (u16, u16),
    pub adopt: bool,
}

impl<'a> Case<'a> {
    pub(super) fn create_mapping(&self, wanted: &Wanted<'_>) -> Result<Decision, Refusal> {
        let client = self.active_client(wanted.target.client)?;
        let address = checked_address("target", &wanted.target.address)?;
        self.check_options(wanted.options)?;
        let name = wanted.name.map(|name| checked_name("name", name)).transpose()?;
        if let IngressRequest::Client { client, .. } = wanted.ingress {
            self.active_client(client)?;
        }
        if wanted.adopt
            && let Some(same) = self.adoptable(wanted, name.as_deref(), &address)
        {
            return self.adopt(same, wanted, address);
        }

        if self.state.mapping(wanted.id).is_some() {
            return Err(Refusal::MappingExists { mapping: wanted.id });
        }
        let name = match name {
            Some(name) => self.free_name(client.id, name)?,
            None => self.derived_name(client.id, &address),
        };
        let ingress = match wanted.ingress {
            IngressRequest::Client { client: listener, listen } => {
                self.within_mappings(listener)?;
                self.free_listen(listener, listen, None)?;
                Ingress::Client { client: listener, listen }
            }
            IngressRequest::Port { port: Some(port) } => {
                Ingress::Port { port: self.free_port(port, wanted.ports)? }
            }
            IngressRequest::Port { port: None } => {
                Ingress::Port { port: self.any_port(wanted.id, wanted.ports)? }
            }
        };
        self.within_mappings(client.id)?;
        let created = v1::MappingCreated {
            mapping: wanted.id,
            owner: wanted.owner,
            name,
            ingress: (&ingress).into(),
            client: client.id,
            target: address,
            options: wanted.options.into(),
            code: None,
        };
        Ok(Decision::one(wanted.id, created.into()))
    }

    /// The mapping that was made before by asking for the same. One that came from a code is not: it
    /// belongs to who redeemed it.
    fn adoptable(&self, wanted: &Wanted<'_>, name: Option<&str>, address: &str) -> Option<&'a Mapping> {
        let target = wanted.target.client;
        let fits = |mapping: &&Mapping| {
            let same_kind = match (mapping.ingress, wanted.ingress) {
                (Ingress::Port { .. }, IngressRequest::Port { .. }) => true,
                (Ingress::Client { client: a, .. }, IngressRequest::Client { client: b, .. }) => a == b,
                _ => false,
            };
            same_kind && mapping.code.is_none() && mapping.target.client == target
        };
        if let Some(name) = name {
            return self.state.mapping_by_name(target, name).filter(fits);
        }
        let mut of_target = self.state.mappings_of(target).filter(fits);
        of_target.find(|mapping| mapping.target.address == address)
    }

    fn adopt(&self, same: &Mapping, wanted: &Wanted<'_>, address: String) -> Result<Decision, Refusal> {
        self.served_by_will(same)?;
        let ingress = match wanted.ingress {
            IngressRequest::Port { port: Some(port) } if same.port() != Some(port) => {
                Ingress::Port { port: self.free_port(port, wanted.ports)? }
            }
            IngressRequest::Port { .. } => same.ingress,
            IngressRequest::Client { client, listen } => {
                self.free_listen(client, listen, Some(same.id))?;
                Ingress::Client { client, listen }
            }
        };
        Ok(changed(same, same.name.clone(), ingress, address, wanted.options))
    }

    pub(super) fn change_mapping(
        &self,
        id: MappingId,
        name: Option<&str>,
        target_address: Option<&str>,
        options: &OptionsChange,
    ) -> Result<Decision, Refusal> {
        let mapping = self.living_mapping(id)?;
        let name = match name {
            Some(name) if name != mapping.name => {
                self.free_name(mapping.target.client, checked_name("name", name)?)?
            }
            _ => mapping.name.clone(),
        };
        let address = match target_address {
            Some(address) => checked_address("target_address", address)?,
            None => mapping.target.address.clone(),
        };
        let options = options.of(&mapping.options);
        if options != mapping.options {
            self.check_options(&options)?;
        }
        Ok(changed(mapping, name, mapping.ingress, address, &options))
    }

    pub(super) fn enable_mapping(&self, id: MappingId) -> Result<Decision, Refusal> {
        let mapping = self.living_mapping(id)?;
        if mapping.status == MappingStatus::Active {
            return Ok(Decision::already(id));
        }
        Ok(Decision::one(id, v1::MappingEnabled { mapping: id, name: mapping.name.clone() }.into()))
    }

    pub(super) fn disable_mapping(&self, id: MappingId) -> Result<Decision, Refusal> {
        let mapping = self.living_mapping(id)?;
        if mapping.status == MappingStatus::Disabled {
            return Ok(Decision::already(id));
        }
        Ok(Decision::one(id, v1::MappingDisabled { mapping: id, name: mapping.name.clone() }.into()))
    }

    /// Also one whose time has run out: who asks wants it gone.
    pub(super) fn remove_mapping(&self, id: MappingId) -> Result<Decision, Refusal> {
        let mapping = self.state.mapping(id).ok_or(Refusal::MappingUnknown { mapping: id })?;
        Ok(Decision::one(id, v1::MappingRemoved { mapping: id, name: mapping.name.clone() }.into()))
    }

    pub(super) fn expire_mapping(&self, id: MappingId) -> Result<Decision, Refusal> {
        let Some(mapping) = self.state.mapping(id) else { return Ok(Decision::already(id)) };
        if !mapping.is_past(self.meta.now) {
            return Err(Refusal::NotDue);
        }
        Ok(Decision::one(id, v1::MappingExpired { mapping: id, name: mapping.name.clone() }.into()))
    }

    /// What was, was allowed: only what others have taken since stands in the way.
    pub(super) fn revert_mapping(
        &self,
        id: MappingId,
        name: Option<&str>,
        ingress: Option<Ingress>,
        target_address: Option<&str>,
        options: &OptionsChange,
    ) -> Result<Decision, Refusal> {
        let mapping = self.living_mapping(id)?;
        let name = match name {
            Some(name) if name != mapping.name => self.free_name(mapping.target.client, name.to_owned())?,
            _ => mapping.name.clone(),
        };
        let ingress = ingress.unwrap_or(mapping.ingress);
        if ingress != mapping.ingress {
            self.free_ingress(ingress, id)?;
        }
        let address = target_address.unwrap_or(&mapping.target.address).to_owned();
        let options = options.of(&mapping.options);
        if options.expires_at != mapping.options.expires_at {
            self.check_end(options.expires_at)?;
        }
        Ok(changed(mapping, name, ingress, address, &options))
    }

    /// The ports that the server gives may have changed since: that touches no mapping that has one, and not
    /// one that comes back.
    pub(super) fn restore_mapping(&self, was: &Mapping) -> Result<Decision, Refusal> {
        let (id, client) = (was.id, was.target.client);
        if self.state.mapping(id).is_some() {
            return Err(Refusal::MappingExists { mapping: id });
        }
        if was.is_past(self.meta.now) {
            return Err(Refusal::MappingExpired { mapping: id });
        }
        for client in [client].into_iter().chain(was.listener()) {
            self.client(client)?;
            self.within_mappings(client)?;
        }
        self.free_name(client, was.name.clone())?;
        self.free_ingress(was.ingress, id)?;
        let restored = v1::MappingRestored {
            mapping: id,
            owner: was.owner,
            name: was.name.clone(),
            ingress: (&was.ingress).into(),
            client,
            target: was.target.address.clone(),
            options: (&was.options).into(),
            code: was.code,
            enabled: was.status == MappingStatus::Active,
            created_at: was.created_at,
            created_by: was.created_by.into(),
        };
        Ok(Decision::one(id, restored.into()))
    }

    /// Whether no mapping but this one has the port or listen address.
    fn free_ingress(&self, ingress: Ingress, but: MappingId) -> Result<(), Refusal> {
        match ingress {
            Ingress::Client { client, listen } => self.free_listen(client, listen, Some(but)),
            Ingress::Port { port } => match self.state.mapping_on_port(port) {
                Some(holder) if holder.id != but => Err(Refusal::PortTaken { port }),
                _ => Ok(()),
            },
        }
    }

    /// Points the mapping of a redeemed code to another local address of its listener.
    pub(super) fn move_listener(&self, mapping: &Mapping, listen: SocketAddr) -> Result<Decision, Refusal> {
        self.served_by_will(mapping)?;
        let Some(client) = mapping.listener() else { return Ok(Decision::already(mapping.id)) };
        self.free_listen(client, listen, Some(mapping.id))?;
        let ingress = Ingress::Client { client, listen };
        Ok(changed(mapping, mapping.name.clone(), ingress, mapping.target.address.clone(), &mapping.options))
    }

    fn living_mapping(&self, id: MappingId) -> Result<&'a Mapping, Refusal> {
        let mapping = self.state.mapping(id).ok_or(Refusal::MappingUnknown { mapping: id })?;
        if mapping.is_past(self.meta.now) {
            return Err(Refusal::MappingExpired { mapping: id });
        }
        Ok(mapping)
    }

    /// Whoever asks for a mapping again must not get one that is switched off as if it were open.
    fn served_by_will(&self, mapping: &Mapping) -> Result<(), Refusal> {
        if mapping.is_past(self.meta.now) {
            return Err(Refusal::MappingExpired { mapping: mapping.id });
        }
        if mapping.status == MappingStatus::Disabled {
            return Err(Refusal::MappingDisabled { mapping: mapping.id });
        }
        Ok(())
    }

    pub(super) fn check_options(&self, options: &MappingOptions) -> Result<(), Refusal> {
        if options.max_connections.is_some_and(|max| max == 0 || max > CONNECTIONS_MAX) {
            return Err(Refusal::invalid("max_connections", format!("from 1 to {CONNECTIONS_MAX}")));
        }
        if options.idle_timeout_s.is_some_and(|idle| idle == 0 || idle > IDLE_TIMEOUT_S_MAX) {
            let rule = format!("from 1 to {IDLE_TIMEOUT_S_MAX} seconds");
            return Err(Refusal::invalid("idle_timeout_s", rule));
        }
        self.check_end(options.expires_at)
    }

    pub(super) fn within_mappings(&self, client: ClientId) -> Result<(), Refusal> {
        within(Quota::Mappings, self.state.involvements(client), MAPPINGS_PER_CLIENT_MAX)
    }

    fn free_name(&self, client: ClientId, name: String) -> Result<String, Refusal> {
        match self.state.mapping_by_name(client, &name) {
            None => Ok(name),
            Some(holder) => Err(Refusal::NameTaken { name, mapping: holder.id }),
        }
    }

    /// `port-3000`, else `port-3000-2` and so on. One of the numbers is free: there are more of them
    /// than a client may have mappings.
    pub(super) fn derived_name(&self, client: ClientId, address: &str) -> String {
        let base = format!("port-{}", port_of(address));
        let numbered = (2..=MAPPINGS_PER_CLIENT_MAX + 2).map(|number| format!("{base}-{number}"));
        let is_free = |name: &String| self.state.mapping_by_name(client, name).is_none();
        std::iter::once(base.clone()).chain(numbered).find(is_free).unwrap_or(base)
    }

    pub(super) fn free_listen(
        &self,
        client: ClientId,
        listen: SocketAddr,
        but: Option<MappingId>,
    ) -> Result<(), Refusal> {
        // A zone or flow label means something on one machine only, and is not kept on disk.
        if listen != SocketAddr::new(listen.ip(), listen.port()) {
            return Err(Refusal::invalid("listen", "an IPv6 address without zone and flow label"));
        }
        match self.state.mapping_on_listen(client, listen) {
            Some(holder) if Some(holder.id) != but => {
                Err(Refusal::ListenTaken { listen, mapping: holder.id })
            }
            _ => Ok(()),
        }
    }

    fn free_port(&self, port: u16, (first, last): (u16, u16)) -> Result<u16, Refusal> {
        if port < first || port > last {
            return Err(Refusal::PortOutOfRange { port, first, last });
        }
        if self.state.mapping_on_port(port).is_some() {
            return Err(Refusal::PortTaken { port });
        }
        Ok(port)
    }

    /// A port that nobody has. The search starts where the random part of the id says: a port that
    /// was just given up is seldom handed to somebody else at once.
    fn any_port(&self, id: MappingId, (first, last): (u16, u16)) -> Result<u16, Refusal> {
        let none = Refusal::NoPortFree { first, last };
        // The lowest port is never 0, which means "any" to the system.
        let lowest = u32::from(first.max(1));
        let Some(span) = (u32::from(last) + 1).checked_sub(lowest).filter(|span| *span > 0) else {
            return Err(none);
        };
        let [.., a, b, c, d] = *id.as_bytes();
        let start = u32::from_be_bytes([a, b, c, d]) % span;
        (0..span)
            .filter_map(|step| u16::try_from(lowest + (start + step) % span).ok())
            .find(|port| self.state.mapping_on_port(*port).is_none())
            .ok_or(none)
    }
}

pub(super) fn checked_address(field: &'static str, address: &str) -> Result<String, Refusal> {
    normalise_address(address).map_err(|rule| Refusal::invalid(field, rule.to_string()))
}

/// The mapping like this, or nothing if it is so already.
fn changed(
    mapping: &Mapping,
    name: String,
    ingress: Ingress,
    target: String,
    options: &MappingOptions,
) -> Decision {
    let same = mapping.name == name
        && mapping.ingress == ingress
        && mapping.target.address == target
        && mapping.options == *options;
    if same {
        return Decision::already(mapping.id);
    }
    let changed = v1::MappingChanged {
        mapping: mapping.id,
        name,
        ingress: (&ingress).into(),
        target,
        options: options.into(),
    };
    Decision::one(mapping.id, changed.into())
}
