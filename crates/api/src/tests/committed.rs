//! What is committed beside the code: the spec, and a page for each error code; and the docs page itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use poem::http::Method;

use super::{Api, answer, operations, spec};
use crate::{spec_json, spec_yaml};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_committed_spec_is_the_generated_one() {
    let folder = root().join("openapi");
    for (name, generated) in [("underpass.v1.json", spec_json()), ("underpass.v1.yaml", spec_yaml())] {
        let file = folder.join(name);
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == generated, "openapi/{name} is stale: run this test with UPDATE_OPENAPI=1");
    }
}

#[test]
fn every_operation_has_a_summary_a_tag_examples_and_its_errors() {
    let spec = spec();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations() {
        let place = format!("{method} {path}");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{place}");
        assert!(operation["description"].as_str().is_some_and(|text| !text.is_empty()), "{place}");
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{place}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{place}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{place}: {}", parameter["name"]);
        }
        let responses = operation["responses"].as_object().unwrap();
        if !matches!(path.as_str(), "/healthz" | "/readyz") {
            for status in ["400", "401", "403", "404", "500", "503"] {
                let schema = &responses[status]["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{place}: {status}");
            }
            if method != Method::GET {
                for status in ["409", "412", "413", "415", "422"] {
                    assert!(responses.contains_key(status), "{place}: {status}");
                }
            }
        }
        let bodies = responses.values().chain([&operation["requestBody"]]);
        for content in bodies.filter_map(|body| body["content"].as_object()).flatten() {
            let schema = &content.1["schema"];
            if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
                let example = &spec["components"]["schemas"][name]["example"];
                assert!(!example.is_null(), "{place}: {name} has no example");
            }
        }
    }
}

/// C59, as far as it goes without a browser: one answer that names every operation and loads nothing.
#[tokio::test]
async fn c59_the_docs_page_lists_every_operation_and_needs_nothing_from_elsewhere() {
    let api = Api::open().await;
    let page = answer(api.ask_with(Method::GET, "/docs", &[], None).await).await.is(200);
    assert!(page.header("content-type").starts_with("text/html"));
    let policy = page.header("content-security-policy").to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    assert!(!policy.contains("http"), "{policy}");
    for (_, path, operation) in operations() {
        assert!(page.text.contains(operation["operationId"].as_str().unwrap()), "{path}");
    }
    for loading in
        ["<script src", "<link rel=\"stylesheet\"", "<link href=\"http", "<img src=\"http", "@import"]
    {
        assert!(!page.text.contains(loading), "the page loads something: {loading}");
    }
    // The spec is put into a script, which must not end there.
    assert!(!spec_json().contains("</"), "the spec would end the script it is in");
    let home = answer(api.ask_with(Method::GET, "/", &[], None).await).await.is(303);
    assert_eq!(home.header("location"), "/docs");
    let json = answer(api.ask_with(Method::GET, "/openapi.json", &[], None).await).await.is(200);
    assert_eq!(json.json, spec());
    let yaml = answer(api.ask_with(Method::GET, "/openapi.yaml", &[], None).await).await.is(200);
    assert_eq!(yaml.text, spec_yaml());
    api.rig.close().await;
}

/// The codes in the source of a function `fn code`: whoever adds a refusal adds its page.
fn codes_in(file: &str) -> BTreeSet<String> {
    let source = std::fs::read_to_string(root().join(file)).unwrap();
    let mut codes = BTreeSet::new();
    for function in source.split("pub fn code(").skip(1) {
        let body = function.split("\n    }").next().unwrap();
        let strings = body.split('"').skip(1).step_by(2);
        codes.extend(strings.map(str::to_owned));
    }
    assert!(!codes.is_empty(), "{file} has no codes");
    codes
}

#[test]
fn every_error_code_has_its_page() {
    let mut codes = codes_in("crates/domain/src/control/refusal.rs");
    codes.extend(codes_in("crates/domain/src/activity/decide.rs"));
    codes.extend(underpass_control::CODES.iter().map(|code| (*code).to_owned()));
    codes.extend(crate::problem::CODES.iter().map(|code| (*code).to_owned()));
    assert!(codes.len() > 50);
    for code in &codes {
        let file = root().join(format!("docs/errors/{code}.md"));
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            text.starts_with(&format!("# `{code}`\n")),
            "docs/errors/{code}.md is missing or not about it"
        );
        assert!(text.contains("\n## What to do\n"), "docs/errors/{code}.md does not say what to do");
    }
    let index = std::fs::read_to_string(root().join("docs/errors/README.md")).unwrap();
    for code in &codes {
        assert!(index.contains(&format!("[`{code}`]({code}.md)")), "docs/errors/README.md lacks {code}");
    }
}

/// Codes that are used in this crate are those that it lists, and the other way round.
#[test]
fn the_codes_of_this_crate_are_listed() {
    let known: BTreeSet<String> = crate::problem::CODES
        .iter()
        .chain(underpass_control::CODES)
        .map(|code| (*code).to_owned())
        .chain(codes_in("crates/domain/src/control/refusal.rs"))
        .collect();
    let mut used = BTreeSet::new();
    for file in sources(&root().join("crates/api/src")) {
        let source = std::fs::read_to_string(&file).unwrap();
        let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for string in source.split('"').skip(1).step_by(2) {
            let word =
                |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let groups = [
                "auth", "scope", "route", "request", "version", "position", "server", "log", "client",
                "session", "node", "backup",
            ];
            if let Some((group, rest)) = string.split_once('.')
                && groups.contains(&group)
                && word(rest)
            {
                used.insert(string.to_owned());
            }
        }
    }
    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    for code in crate::problem::CODES {
        assert!(used.contains(*code), "{code} is listed but not used");
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn the_spec_is_of_a_version_that_tools_read() {
    assert_eq!(spec()["openapi"].as_str().map(|version| &version[..3]), Some("3.0"));
    assert_eq!(spec()["components"]["securitySchemes"]["api_key"]["scheme"], "bearer");
}
