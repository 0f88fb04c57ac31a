//! Secrets are shown once, where they are made, and are nowhere else.

use std::fmt::Write;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use underpass_tests::api::Api;
use underpass_tests::bytes::{echo, echoes};
use underpass_tests::{Client, Process, Server, Store, run};

use crate::{operations, position};

/// Something that must not be found, in every form it might be written in.
struct Secret {
    name: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Secret {
    fn text(name: &'static str, text: &str) -> Self {
        assert!(text.len() >= 16, "{name} is too short to be looked for: {text}");
        Self { name, forms: vec![text.as_bytes().to_vec(), text.to_uppercase().into_bytes()] }
    }

    fn bytes(name: &'static str, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 16, "{name} is too short to be looked for");
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        let listed = bytes.iter().map(u8::to_string).collect::<Vec<_>>();
        let (standard, url) = (base64(bytes, *b"+/"), base64(bytes, *b"-_"));
        let forms = [hex.to_uppercase(), hex, listed.join(", "), listed.join(","), standard, url]
            .map(String::into_bytes);
        Self { name, forms: [vec![bytes.to_vec()], forms.to_vec()].concat() }
    }

    /// The secret of an invite: as a part of the text, and what that stands for.
    fn invite(name: &'static str, invite: &str) -> [Self; 2] {
        let (_, text) = invite.split_once('#').unwrap();
        let symbols = "0123456789abcdefghjkmnpqrstvwxyz";
        let bits =
            text.chars().filter_map(|symbol| symbols.find(symbol)).fold(Vec::new(), |mut bits, value| {
                bits.extend((0..5).rev().map(|bit| value >> bit & 1 == 1));
                bits
            });
        let bytes: Vec<u8> = bits
            .chunks_exact(8)
            .map(|byte| byte.iter().fold(0, |all, bit| all << 1 | u8::from(*bit)))
            .collect();
        assert_eq!((bytes[0], bytes.len()), (1, 53), "version, server key, secret, checksum");
        [Self::text(name, &text[53..78]), Self::bytes(name, &bytes[33..49])]
    }

    fn is_in(&self, haystack: &[u8]) -> bool {
        self.forms.iter().any(|form| haystack.windows(form.len()).any(|part| part == form.as_slice()))
    }
}

fn base64(bytes: &[u8], last: [u8; 2]) -> String {
    let mut symbols: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').collect();
    symbols.extend(last.iter().map(|symbol| char::from(*symbol)));
    // Without what a last, incomplete group would depend on.
    let whole = &bytes[..bytes.len() / 3 * 3];
    let groups = whole.chunks_exact(3).flat_map(|group| {
        let bits = group.iter().fold(0usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| symbols[bits >> shift & 63])
    });
    groups.collect()
}

/// Every file of a folder but these.
fn files(folder: &Path, but: &[&str], found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (kind, path) = (entry.file_type().unwrap(), entry.path());
        if kind.is_dir() {
            files(&path, but, found);
        } else if kind.is_file() && !but.iter().any(|name| entry.file_name() == *name) {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

/// Every answer that anybody can get by reading.
fn everything(api: &Api, found: &mut Vec<(String, Vec<u8>)>) {
    let spec = api.get("/openapi.json");
    let mut read = |path: String| {
        let response = api.send(Method::GET, &path, None);
        assert_eq!(response.status(), 200, "{path}");
        found.push((path, response.bytes().unwrap().to_vec()));
    };
    let mut paths: Vec<String> =
        operations(&spec).into_iter().filter(|it| it.method == Method::GET).map(|it| it.path).collect();
    for things in ["client", "mapping", "code", "invite", "key", "session", "node"] {
        let list = api.get(&format!("/v1/{things}s?limit=500"));
        let ids: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
        assert!(!ids.is_empty(), "there are {things}s in the story");
        // Links and nodes have no reasons of their own.
        if !["session", "node"].contains(&things) {
            paths.extend(ids.iter().map(|id| format!("/v1/explain/{id}")));
        }
        let parameter = format!("{{{things}}}");
        paths = paths
            .into_iter()
            .flat_map(|path| {
                if path.contains(&parameter) {
                    ids.iter().map(|id| path.replace(&parameter, id)).collect()
                } else {
                    vec![path]
                }
            })
            .collect();
    }
    paths.retain(|path| path != "/v1/explain/{id}");
    for path in paths {
        if path.contains("{log}") {
            for log in ["control", "activity"] {
                read(path.replace("{log}", log));
            }
        } else {
            read(path);
        }
    }
    for of in ["clients", "mappings", "codes", "invites", "keys", "nodes"] {
        read(format!("/v1/snapshots/control?of={of}&limit=500"));
    }
    for log in ["control", "activity"] {
        let end = position(&api.get(&format!("/v1/logs/{log}/head"))["position"]);
        for after in (0..end).step_by(500) {
            read(format!("/v1/events?log={log}&limit=500&after={after}"));
        }
    }
}

/// One of the client's verbs, saying all it can on standard error.
fn traced(client: &Client, arguments: &[&str]) -> Process {
    client.start(&[arguments, &["--log", "trace"]].concat())
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, and then where its secrets are")]
fn c55_no_secret_is_in_an_answer_a_log_line_or_a_file_but_where_it_was_made() {
    let mut server = Server::start_with(Store::RocksDb, &[("logging.level", "trace")]);
    let first_invite = server.ready["invite"].as_str().unwrap().to_owned();
    let admin_token = std::fs::read_to_string(server.data().join("admin.key")).unwrap().trim().to_owned();
    let api = server.api();
    let mut heard: Vec<(String, Vec<u8>)> = Vec::new();
    let mut write = |method: Method, path: &str, body: Option<Value>, id: &str| {
        let mut request = api.request(method.clone(), path).header("Idempotency-Key", id);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().unwrap();
        let (status, text) = (response.status().as_u16(), response.text().unwrap());
        heard.push((format!("{method} {path} {id}"), text.clone().into_bytes()));
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };

    // Invites and keys by API: the first answer holds the secret, its repeat does not.
    let (status, made) =
        write(Method::POST, "/v1/invites", Some(json!({ "label": "for the laptop" })), "invite");
    assert_eq!(status, 201, "{made}");
    let api_invite = made["invite"].as_str().unwrap().to_owned();
    let (status, made) = write(Method::POST, "/v1/keys", Some(json!({ "scopes": ["read"] })), "key");
    assert_eq!(status, 201, "{made}");
    let (new_key, new_token) =
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned());
    let (status, again) = write(Method::POST, "/v1/keys", Some(json!({ "scopes": ["read"] })), "key");
    assert_eq!((status, &again["resource"]), (409, &json!(new_key)), "{again}");
    let (status, again) =
        write(Method::POST, "/v1/invites", Some(json!({ "label": "for the laptop" })), "invite");
    assert_eq!(status, 409, "{again}");

    // Two machines join, one with each kind of invite; one tries with a used one.
    let folder = server.data().parent().unwrap().to_owned();
    let (laptop, other) = (Client { state: folder.join("laptop") }, Client { state: folder.join("other") });
    let cli_invite = server.invite();
    let mut agents = Vec::new();
    for (client, invite) in [(&laptop, &api_invite), (&other, &cli_invite)] {
        let done = client.run(&["join", invite, "--log", "trace"]);
        assert_eq!(done.last()["event"], "joined", "{done:?}");
        agents.push(("join".to_owned(), done.stderr.into_bytes()));
    }
    let late = Client { state: folder.join("late") }.run(&["join", &api_invite, "--log", "trace"]);
    late.failed(10, "link.refused");
    agents.push(("late join".to_owned(), late.stderr.into_bytes()));

    // One exposes and shares, the other connects, and bytes pass; a code is guessed, too.
    let target = echo().to_string();
    let mut exposing = traced(&laptop, &["expose", &target, "--name", "web"]);
    let public = exposing.expect("open")["public"].as_str().unwrap().parse().unwrap();
    let mut sharing = traced(&laptop, &["share", &target]);
    let code = sharing.expect("code")["code"].as_str().unwrap().to_owned();
    let mut connecting = traced(&other, &["connect", &code]);
    let private = connecting.expect("open")["listen"].as_str().unwrap().parse().unwrap();
    echoes(public).unwrap();
    echoes(private).unwrap();

    let reader = Api::new(server.api_address, Some(&new_token));
    reader.get("/v1/clients");
    let almost = Api::new(server.api_address, Some(&format!("{new_token}0")));
    assert_eq!(almost.send(Method::GET, "/v1/clients", None).status(), 401);

    // Changes of everything that can be changed, then all that can be read, then the end of everything.
    let mapping = api.get("/v1/mappings")["items"][0]["id"].as_str().unwrap().to_owned();
    write(Method::POST, &format!("/v1/mappings/{mapping}/disable"), None, "disable");
    write(Method::POST, &format!("/v1/mappings/{mapping}/enable"), None, "enable");
    let client = api.get("/v1/clients")["items"][0]["id"].as_str().unwrap().to_owned();
    write(Method::PATCH, &format!("/v1/clients/{client}"), Some(json!({ "name": "renamed" })), "rename");
    let (status, revoked) = write(Method::DELETE, &format!("/v1/keys/{new_key}"), None, "revoke");
    assert_eq!(status, 200, "{revoked}");
    everything(&api, &mut heard);
    for verb in [&["ls"][..], &["status"], &["history", "web"]] {
        let done = laptop.run(verb);
        heard.push((verb.join(" "), format!("{done:?}").into_bytes()));
    }
    for verb in [&["log", "show"][..], &["log", "replay"]] {
        let done = run(&[verb, &["--data", &server.data_text()]].concat());
        heard.push((verb.join(" "), format!("{done:?}").into_bytes()));
    }
    for (verb, mut process) in [("connect", connecting), ("share", sharing), ("expose", exposing)] {
        assert_eq!(process.end(), 0);
        agents.push((verb.to_owned(), process.stderr().into_bytes()));
    }
    assert_eq!(server.process.end(), 0);
    let server_said = server.process.stderr();

    // The machinery works: what is no secret is found at once, and the logs say more than by default.
    assert!(server_said.contains("DEBUG") && server_said.contains(&client), "{}", server_said.len());
    let lookup = code.split_once('.').unwrap().0;
    let codes = &heard.iter().find(|(name, _)| name == "/v1/codes").unwrap().1;
    assert!(Secret { name: "", forms: vec![lookup.replace('-', "").into(), lookup.into()] }.is_in(codes));

    let secret_half = code.split_once('.').unwrap().1;
    let bare: String = secret_half.chars().filter(|symbol| *symbol != '-').take(20).collect();
    let key_of = |client: &Client| std::fs::read(client.state.join("key")).unwrap();
    let mut secrets: Vec<Secret> = Vec::new();
    secrets.extend(Secret::invite("the first invite", &first_invite));
    secrets.extend(Secret::invite("the invite of the API", &api_invite));
    secrets.extend(Secret::invite("the invite of the CLI", &cli_invite));
    secrets.push(Secret::text("the secret half of the code", secret_half));
    secrets.push(Secret::text("the secret half of the code, bare", &bare));
    for (name, token) in [("the admin key", &admin_token), ("the new key", &new_token)] {
        secrets.push(Secret::text(name, token.rsplit_once('_').unwrap().1));
    }
    for (name, text) in [("the key of the laptop", key_of(&laptop)), ("the key of the other", key_of(&other))]
    {
        secrets.push(Secret::text(name, String::from_utf8(text).unwrap().trim()));
    }
    let link_key = std::fs::read_to_string(server.data().join("link.key")).unwrap();
    let own = Secret::text("the key of the server", link_key.trim());

    // Where each may be: where it was made, and nowhere else.
    let made_here = ["POST /v1/invites invite", "POST /v1/keys key"];
    for place in made_here {
        let first = heard.iter().position(|(name, _)| name == place).unwrap();
        let (_, answer) = heard.remove(first);
        assert!(secrets.iter().any(|secret| secret.is_in(&answer)), "{place} holds one");
    }
    let mut places = heard;
    places.extend(agents);
    places.push(("the server's standard error".to_owned(), server_said.into_bytes()));
    files(&server.data(), &["admin.key", "link.key"], &mut places);
    assert!(places.len() > 60, "{}", places.len());
    for (place, content) in &places {
        for secret in secrets.iter().chain([&own]) {
            assert!(!secret.is_in(content), "{} is in {place}", secret.name);
        }
    }
    // A client keeps its own key and the pairs it is part of, but no invite and nobody else's key.
    for client in [&laptop, &other] {
        let mut kept = Vec::new();
        files(&client.state, &["key"], &mut kept);
        for (place, content) in &kept {
            for secret in secrets.iter().filter(|secret| !secret.name.contains("code")).chain([&own]) {
                assert!(!secret.is_in(content), "{} is in {place}", secret.name);
            }
        }
    }
}
