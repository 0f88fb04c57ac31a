//! Measurements in the Prometheus text format.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use poem::http::StatusCode;
use underpass_domain::{CodeStatus, InviteStatus};

use crate::state::ApiState;

/// The media type of the text format.
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One measurement of a store, under a name without `underpass_`.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// `store_commits_total`; counters end in `_total`.
    pub name: &'static str,
    /// What it says, as a sentence.
    pub help: &'static str,
    /// The number or numbers.
    pub value: Measured,
}

/// What was measured. Names and labels are the program's own: nothing is escaped.
#[derive(Clone, Debug, PartialEq)]
pub enum Measured {
    /// Goes up and down.
    Gauge(f64),
    /// Goes up, until the program or its store is started anew.
    Counter(f64),
    /// A gauge for each value of one label.
    Gauges(&'static str, Vec<(String, f64)>),
    /// How often something fell into a class.
    Histogram {
        /// Upper bound of each class, and how many are in it or below.
        classes: Vec<(f64, u64)>,
        /// All of them.
        count: u64,
        /// What they add up to.
        sum: f64,
    },
}

impl Measurement {
    fn write(&self, out: &mut String) {
        let Self { name, help, value } = self;
        let kind = match value {
            Measured::Gauge(_) | Measured::Gauges(..) => "gauge",
            Measured::Counter(_) => "counter",
            Measured::Histogram { .. } => "histogram",
        };
        // Writing to a string can't fail.
        let _ = writeln!(out, "# HELP underpass_{name} {help}\n# TYPE underpass_{name} {kind}");
        let _ = match value {
            Measured::Gauge(value) | Measured::Counter(value) => writeln!(out, "underpass_{name} {value}"),
            Measured::Gauges(label, values) => values.iter().try_for_each(|(text, value)| {
                writeln!(out, "underpass_{name}{{{label}=\"{text}\"}} {value}")
            }),
            Measured::Histogram { classes, count, sum } => classes
                .iter()
                .try_for_each(|(bound, count)| {
                    writeln!(out, "underpass_{name}_bucket{{le=\"{bound}\"}} {count}")
                })
                .and_then(|()| writeln!(out, "underpass_{name}_bucket{{le=\"+Inf\"}} {count}"))
                .and_then(|()| writeln!(out, "underpass_{name}_sum {sum}\nunderpass_{name}_count {count}")),
        };
    }
}

/// Requests answered since the start, by class of status.
#[derive(Debug, Default)]
pub(crate) struct Requests([AtomicU64; 5]);

impl Requests {
    pub(crate) fn count(&self, status: StatusCode) {
        if let Some(counter) = self.0.get(usize::from(status.as_u16() / 100).saturating_sub(1)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// All measurements of this node. Totals only: labels by mapping or client would grow without bound.
pub(crate) async fn text(state: &ApiState) -> String {
    let mut out = totals(state);
    if let Some(measures) = &state.measures {
        for measurement in measures.measure().await {
            measurement.write(&mut out);
        }
    }
    out
}

fn totals(state: &ApiState) -> String {
    let control = state.control.state();
    let activity = state.control.activity();
    let now = state.control.now();
    let mut out = String::with_capacity(4096);
    let mut write = |name: &str, kind: &str, help: &str, values: &[(&str, u64)]| {
        // Writing to a string can't fail.
        let _ = writeln!(out, "# HELP underpass_{name} {help}\n# TYPE underpass_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(out, "underpass_{name}{labels} {value}");
        }
    };

    let version = format!("{{version=\"{}\",store=\"{}\"}}", env!("CARGO_PKG_VERSION"), state.store);
    write("build_info", "gauge", "The version of the program and its store.", &[(&version, 1)]);
    let may_write = u64::from(state.control.may_write());
    write("may_write", "gauge", "1 while the node holds its lease and can write.", &[("", may_write)]);
    let draining = u64::from(state.draining.is_cancelled());
    let spooled = [("", size(state.control.noted()))];
    write("spool_facts", "gauge", "Facts that wait for the activity log.", &spooled);
    write("draining", "gauge", "1 while the node is stopping.", &[("", draining)]);
    let positions = [("{log=\"control\"}", control.position.0), ("{log=\"activity\"}", activity.position.0)];
    write("log_position", "gauge", "The newest position of each log on this node.", &positions);
    let epochs = [("{log=\"control\"}", control.epoch), ("{log=\"activity\"}", activity.epoch)];
    write("log_epoch", "gauge", "The epoch of each log.", &epochs);

    let model = &control.state;
    let blocked = model.clients().filter(|client| !client.is_active()).count();
    let clients = [
        ("{status=\"active\"}", size(model.client_count() - blocked)),
        ("{status=\"blocked\"}", size(blocked)),
    ];
    write("clients", "gauge", "Known clients.", &clients);
    let served = model.mappings().filter(|mapping| model.serves(mapping, now)).count();
    let mappings = [
        ("{status=\"served\"}", size(served)),
        ("{status=\"not_served\"}", size(model.mappings().count() - served)),
    ];
    write("mappings", "gauge", "Mappings, and whether tunnels may be opened through them.", &mappings);
    let codes = model.codes().filter(|code| code.status_at(now) == CodeStatus::Open).count();
    write("codes_open", "gauge", "Connection codes that can be redeemed.", &[("", size(codes))]);
    let invites = model.invites().filter(|invite| invite.status_at(now) == InviteStatus::Open).count();
    write("invites_open", "gauge", "Invites that can be used.", &[("", size(invites))]);
    let keys = model.keys().filter(|key| key.is_good(now)).count();
    write("api_keys", "gauge", "API keys that are good.", &[("", size(keys))]);
    let sessions = activity.state.open_sessions().count();
    write("sessions_open", "gauge", "Sessions that are open, on all nodes.", &[("", size(sessions))]);

    if let Some(gateway) = &state.gateway {
        let links = gateway.links();
        let parked = links.iter().map(|link| link.parked).sum();
        write("links", "gauge", "Clients linked to this node.", &[("", size(links.len()))]);
        write("channels_parked", "gauge", "Data channels that wait for tunnels.", &[("", size(parked))]);
        let tunnels = gateway.tunnels().len();
        write("tunnels", "gauge", "Tunnels that run through this node.", &[("", size(tunnels))]);
    }

    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| format!("{{class=\"{class}\"}}"));
    let counts = state.requests.0.iter().map(|counter| counter.load(Ordering::Relaxed));
    let requests: Vec<_> = classes.iter().map(String::as_str).zip(counts).collect();
    write("api_requests_total", "counter", "Requests answered by the API, by class of status.", &requests);
    out
}

fn size(count: usize) -> u64 {
    count as u64
}
