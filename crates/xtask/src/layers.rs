//! Which crate may use which. Dependencies point down; any other edge is an error.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// A crate and the crates of ours that it may use. `tasks` is open to every crate that runs tasks.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("tasks", &[]),
    ("wire", &["domain"]),
    ("pipeline", &[]),
    ("store", &["tasks"]),
    ("store-rocksdb", &["store", "tasks"]),
    ("store-etcd", &["store", "tasks"]),
    ("eventlog", &["store", "domain", "tasks"]),
    ("transport", &["tasks"]),
    ("relay", &["pipeline", "tasks"]),
    ("control", &["eventlog", "store", "domain", "tasks"]),
    ("gateway", &["control", "relay", "transport", "wire", "domain", "pipeline", "tasks"]),
    ("ingress", &["control", "gateway", "relay", "domain", "tasks"]),
    ("api", &["control", "domain", "gateway", "eventlog", "tasks"]),
    ("agent", &["relay", "transport", "wire", "domain", "pipeline", "tasks"]),
    (
        "server",
        &[
            "api",
            "control",
            "domain",
            "eventlog",
            "gateway",
            "ingress",
            "store",
            "store-etcd",
            "store-rocksdb",
            "tasks",
            "transport",
            "wire",
        ],
    ),
    ("cli", &["agent", "server", "domain", "tasks", "transport", "wire"]),
    ("xtask", &["domain", "api", "server"]),
];

/// The prefix of our packages.
const PREFIX: &str = "underpass-";

/// Packages outside `crates/`, which may use everything: they test and measure.
const OUTSIDE: &[&str] = &["tests", "benches", "fuzz-replay"];

pub(crate) fn check() -> Result<String, String> {
    let metadata = MetadataCommand::new()
        .manifest_path(super::root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .map_err(|error| error.to_string())?;
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        LAYERS.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let mut faults = Vec::new();
    let mut edges = 0;
    for package in &metadata.packages {
        let Some(name) = package.name.strip_prefix(PREFIX) else {
            faults.push(format!("{}: packages are called {PREFIX}<folder>", package.name));
            continue;
        };
        if OUTSIDE.contains(&name) {
            continue;
        }
        let folder = package.manifest_path.parent().and_then(|folder| folder.file_name());
        if folder != Some(name) {
            faults.push(format!("{}: its folder must be crates/{name}", package.name));
        }
        let Some(allowed) = allowed.get(name) else {
            faults.push(format!("{name}: not in the table of layers (crates/xtask/src/layers.rs)"));
            continue;
        };
        // Tests of a crate may reach wider: what ships may not.
        for dependency in package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development) {
            let Some(used) = dependency.name.strip_prefix(PREFIX) else { continue };
            edges += 1;
            if !allowed.contains(used) {
                faults.push(format!("{name} may not use {used}"));
            }
        }
    }
    if faults.is_empty() {
        Ok(format!("layers: {edges} edges, all of them down"))
    } else {
        Err(format!("layers:\n  {}", faults.join("\n  ")))
    }
}
