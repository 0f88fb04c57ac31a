//! JSON Schemas of payloads, and the files that keep them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::registry;

/// Folders, from the root of the project, in which a file never changes once it is there: schemas
/// and fixtures of released versions.
pub const UNCHANGEABLE: [&str; 2] = ["schemas/events", "fixtures/events"];

/// The schema of a payload type, in JSON Schema 2020-12.
pub(super) fn of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<T>().to_value()
}

/// What the folder `schemas/` should hold: path from the root of the project, and content.
///
/// One file for each event and version, and `schemas/registry.json`, which lists them.
pub fn schema_files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut rows = Vec::new();
    for kind in registry() {
        let path = format!("schemas/events/{}.v{}.schema.json", kind.name, kind.version);
        let mut schema = (kind.schema)();
        if let Value::Object(schema) = &mut schema {
            schema
                .insert("$id".into(), format!("urn:underpass:event:{}:v{}", kind.name, kind.version).into());
            schema.insert("title".into(), format!("{}, version {}", kind.name, kind.version).into());
        }
        rows.push(json!({
            "log": kind.log,
            "kind": kind.number,
            "name": kind.name,
            "version": kind.version,
            "newest": kind.newest,
            "schema": path.trim_start_matches("schemas/"),
        }));
        files.insert(path, pretty(&schema));
    }
    files.insert("schemas/registry.json".into(), pretty(&json!({ "events": rows })));
    files
}

/// Indented, with keys in one order whatever `serde_json` was built with.
pub(super) fn pretty(value: &Value) -> String {
    format!("{:#}\n", sorted(value))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> =
                fields.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}
