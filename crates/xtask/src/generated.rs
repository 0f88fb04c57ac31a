//! Files that are made from code and committed: schemas, the OpenAPI document, the list of settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// All generated files, by path from the root.
fn files() -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for (path, text) in underpass_domain::events::schema_files() {
        files.insert(PathBuf::from(path), text);
    }
    files.insert("openapi/underpass.v1.json".into(), underpass_api::spec_json());
    files.insert("openapi/underpass.v1.yaml".into(), underpass_api::spec_yaml());
    files.insert("docs/configuration.md".into(), underpass_server::config::markdown());
    let schema = serde_json::to_string_pretty(&underpass_server::config::schema()).unwrap_or_default();
    files.insert("schemas/underpass.schema.json".into(), schema + "\n");
    files
}

pub(crate) fn write() -> Result<String, String> {
    let mut written = 0;
    for (path, text) in files() {
        let path = super::root().join(path);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == text) {
            continue;
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        written += 1;
    }
    Ok(format!("generated: {written} files written"))
}

pub(crate) fn check() -> Result<String, String> {
    let files = files();
    let stale: Vec<String> = files
        .iter()
        .filter(|(path, text)| {
            std::fs::read_to_string(super::root().join(path)).map_or(true, |found| &found != *text)
        })
        .map(|(path, _)| path.display().to_string())
        .collect();
    if stale.is_empty() {
        Ok(format!("generated: {} files, all fresh", files.len()))
    } else {
        Err(format!("generated: stale, run `make generate`:\n  {}", stale.join("\n  ")))
    }
}
