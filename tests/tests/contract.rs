//! The command line as other programs are written against it: the lines of every verb, its exit codes, and how
//! verbs share one agent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::Value;
use underpass_tests::bytes::{echo, echoes};
use underpass_tests::{Done, Process, Server, Store, eventually, free_address, free_port, run};

#[track_caller]
fn text(line: &Value, key: &str) -> String {
    line[key].as_str().unwrap_or_else(|| panic!("`{key}` is no text in {line}")).to_owned()
}

#[track_caller]
fn id(line: &Value, key: &str, prefix: &str) {
    let id = text(line, key);
    let tail =
        id.strip_prefix(prefix).unwrap_or_else(|| panic!("`{key}` does not begin with {prefix}: {line}"));
    assert_eq!(tail.len(), 26, "a TypeID: {line}");
}

#[track_caller]
fn rfc3339(line: &Value, key: &str) {
    let time = text(line, key);
    let digits = time.replace(|c: char| c.is_ascii_digit(), "0");
    assert!(digits.starts_with("0000-00-00T00:00:00") && digits.ends_with('Z'), "{time}");
}

#[track_caller]
fn address(line: &Value, key: &str) -> SocketAddr {
    text(line, key).parse().unwrap_or_else(|_| panic!("`{key}` is no ADDR:PORT in {line}"))
}

/// Exactly one line, as a verb that does one thing says it.
#[track_caller]
fn only(done: &Done) -> &Value {
    assert_eq!((done.code, done.lines.len()), (0, 1), "{done:?}");
    &done.lines[0]
}

#[test]
fn serve_says_where_everything_is() {
    for store in [Store::RocksDb, Store::Memory] {
        let mut server = Server::start(store);
        let ready = server.ready.clone();
        assert_eq!(ready["event"], "ready");
        assert_eq!(address(&ready, "clients"), server.listen);
        assert_eq!(text(&ready, "api"), format!("http://{}", server.api_address));
        assert_eq!(text(&ready, "docs"), format!("http://{}/docs", server.api_address));
        assert_eq!(text(&ready, "store"), store.name());
        // The invite is good.
        let state = server.data().parent().unwrap().join("first");
        let joined = run(&["join", &text(&ready, "invite"), "--state", &state.display().to_string()]);
        assert_eq!(joined.code, 0, "{joined:?}");
        let key = std::fs::metadata(server.data().join("admin.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        assert_eq!(server.process.end(), 0);
    }
}

#[test]
fn invites_are_made_with_the_folder_and_with_a_key() {
    let mut server = Server::start(Store::RocksDb);
    let data = server.data_text();
    let key_file = server.data().join("admin.key").display().to_string();
    let api = format!("http://{}", server.api_address);
    let by_folder = run(&["invite", "--data", &data]);
    let by_key = run(&["invite", "--api", &api, "--key-file", &key_file, "--ttl", "1h"]);
    assert_eq!(server.process.end(), 0);
    let offline = run(&["invite", "--data", &data]);
    server.restart();
    for (nth, done) in [by_folder, by_key, offline].iter().enumerate() {
        let line = only(done);
        rfc3339(line, "expires_at");
        let state = server.data().parent().unwrap().join(format!("client-{nth}"));
        let invite = text(line, "invite");
        let done = run(&["join", &invite, "--state", &state.display().to_string()]);
        let joined = only(&done);
        assert_eq!(joined["event"], "joined");
        id(joined, "client", "client_");
        assert_eq!(address(joined, "server"), server.listen);
    }
}

#[test]
fn up_says_connected_and_after_a_loss_disconnected_and_connected_again() {
    let mut server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let mut agent = laptop.start(&["up"]);
    let first = agent.expect("connected");
    id(&first, "client", "client_");
    id(&first, "node", "node_");
    assert_eq!(text(&first, "transport"), "tcp");
    server.kill();
    assert!(!text(&agent.expect("disconnected"), "reason").is_empty());
    server.restart();
    assert_eq!(agent.expect("connected"), first, "the same client, the same node");
    // A second agent on the folder is refused, and says what to do instead.
    laptop.run(&["up"]).failed(1, "agent.running");
    assert_eq!(agent.end(), 0);
}

#[test]
fn expose_share_and_connect_say_what_they_opened() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let target = echo();

    let mut exposing = laptop.start(&["expose", &target.port().to_string(), "--seal", "on"]);
    let open = exposing.expect("open");
    id(&open, "mapping", "mapping_");
    assert_eq!(address(&open, "target"), target, "a target without a host is 127.0.0.1");
    echoes(address(&open, "public")).unwrap();
    let tunnel = exposing.expect("tunnel_opened");
    assert_eq!(tunnel["mapping"], open["mapping"], "it shows what passes");

    let mut sharing = laptop.start(&["share", &target.to_string()]);
    let shared = sharing.expect("code");
    rfc3339(&shared, "expires_at");

    let listen = free_address();
    let mut connecting = other.start(&["connect", &text(&shared, "code"), "--listen", &listen.to_string()]);
    let open = connecting.expect("open");
    id(&open, "mapping", "mapping_");
    assert_eq!(address(&open, "listen"), listen);
    assert_eq!(text(&open, "sealed"), "end-to-end");
    echoes(listen).unwrap();

    // Codes go by standard input as well.
    let (_sharing, code) = laptop.share(&target.to_string());
    let state = other.state.display().to_string();
    let done =
        underpass_tests::process::run_with_input(&["connect", "-", "--detach", "--state", &state], &code);
    assert_eq!(only(&done)["sealed"], "end-to-end");
}

#[test]
fn log_verify_says_the_head_and_its_hash() {
    let mut server = Server::start(Store::RocksDb);
    server.client("laptop");
    let data = server.data_text();
    let (control, _) = server.verified();
    let running = run(&["log", "verify", "--data", &data]);
    assert_eq!(server.process.end(), 0);
    let stopped = run(&["log", "verify", "--data", &data]);
    for done in [&running, &stopped] {
        let line = done.last();
        assert_eq!((&line["ok"], &line["log"]), (&Value::Bool(true), &Value::from("control")));
        assert!(line["head"].as_u64().unwrap() >= control, "{line}");
        let hash = text(line, "hash");
        assert!(hash.len() == 64 && hash.bytes().all(|symbol| symbol.is_ascii_hexdigit()), "{hash}");
    }
    assert_eq!(running.last()["log"], "control");
}

#[test]
fn failures_have_a_code_a_sentence_a_hint_and_the_exit_code_of_their_kind() {
    let mut server = Server::start(Store::Memory);
    let data = server.data_text();
    let laptop = server.client("laptop");
    let folder = server.data().parent().unwrap().to_owned();
    let nobody = folder.join("nobody").display().to_string();

    // 1: tried, and did not work.
    run(&["up", "--state", &nobody]).failed(1, "state.not_joined");
    run(&["invite", "--data", &nobody]).failed(1, "data.missing");
    // 2: the command line makes no sense.
    run(&["expose", "3000", "--prot", "1", "--state", &nobody]).failed(2, "usage");
    run(&["frobnicate"]).failed(2, "usage");
    run(&["connect", "x", "--listen", "nowhere", "--state", &nobody]).failed(2, "usage");
    laptop.run(&["expose", "no port here"]).failed(2, "target.invalid");
    laptop.run(&["connect", "h4x-w77-pam"]).failed(2, "code.invalid");
    run(&["join", "not an invite", "--state", &nobody]).failed(2, "invite.invalid");
    // 3: refused by the server, with its code.
    let other = server.client("other");
    let port = text(&server.ready, "clients"); // a port outside of the range for mappings
    let outside = port.rsplit(':').next().unwrap();
    other.run(&["expose", "22", "--port", outside]).failed(3, "port.out_of_range");
    let (mut holding, public) = laptop.expose(&["22", "--name", "ssh"]);
    other.run(&["expose", "22", "--port", &public.port().to_string()]).failed(3, "port.taken");
    // 4: there is no such thing.
    laptop.run(&["rm", "web"]).failed(4, "mapping.not_found");
    run(&["rm", "web", "--data", &data]).failed(4, "mapping.not_found");
    run(&["history", "web", "--data", &data]).failed(4, "mapping.not_found");
    assert_eq!(holding.end(), 0);
    // 10: somebody answers and does not accept who we are.
    let wrong = folder.join("wrong.key");
    std::fs::write(&wrong, "up_not_a_key\n").unwrap();
    std::fs::set_permissions(&wrong, PermissionsExt::from_mode(0o600)).unwrap();
    let (wrong, api) = (wrong.display().to_string(), format!("http://{}", server.api_address));
    run(&["invite", "--api", &api, "--key-file", &wrong]).failed(10, "auth.refused");
    let invite = server.invite();
    for name in ["a", "b"] {
        let state = folder.join(name).display().to_string();
        let done = run(&["join", &invite, "--state", &state]);
        if name == "b" {
            done.failed(10, "link.refused");
        }
    }
    // 5: nobody answers.
    let unused = server.invite();
    assert_eq!(server.process.end(), 0);
    run(&["join", &unused, "--state", &nobody]).failed(5, "link.unreachable");
    let key = server.data().join("admin.key").display().to_string();
    run(&["invite", "--api", &api, "--key-file", &key]).failed(5, "api.unreachable");
    laptop.run(&["expose", "3000"]).failed(5, "link.unreachable");
}

#[test]
fn the_same_command_adopts_the_mapping_it_made_before() {
    let mut server = Server::start(Store::RocksDb);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let (target, elsewhere) = (echo().to_string(), echo().to_string());
    let expose = |arguments: &[&str]| {
        let mut process = laptop.start(&[&["expose"], arguments].concat());
        let open = process.expect("open");
        echoes(address(&open, "public")).unwrap();
        assert_eq!(process.end(), 0);
        open
    };
    let (unnamed, named) = (expose(&[&target]), expose(&[&target, "--name", "web"]));
    assert_ne!(unnamed["mapping"], named["mapping"]);
    let (mut sharing, code) = laptop.share(&target);
    let (mut connecting, listen) = other.connect(&code);
    assert_eq!((connecting.end(), sharing.end()), (0, 0));

    server.kill();
    server.restart();
    assert_eq!(expose(&[&target]), unnamed, "same mapping, same port, same name");
    assert_eq!(expose(&[&target, "--name", "web"]), named);
    let moved = expose(&[&elsewhere, "--name", "web"]);
    assert_eq!((&moved["mapping"], &moved["public"]), (&named["mapping"], &named["public"]));
    assert_eq!(moved["target"], elsewhere, "a name can be led somewhere else");

    // The same code again: the same mapping at the same address. The sharer's agent serves it, whatever verb
    // it runs.
    let _agent = laptop.up();
    let (mut connecting, again) = other.connect(&code);
    assert_eq!(again, listen);
    echoes(again).unwrap();
    assert_eq!(connecting.end(), 0);

    // `rm` gives it up: the next one is another.
    assert_eq!(laptop.run(&["rm", "web"]).text("mapping"), text(&named, "mapping"));
    let anew = laptop.run(&["expose", &target, "--name", "web", "--detach"]);
    assert_ne!(anew.last()["mapping"], named["mapping"]);
}

#[test]
fn detach_leaves_the_serving_to_the_running_agent() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let target = echo().to_string();

    // Nobody would serve: nothing is made.
    laptop.run(&["expose", &target, "--detach"]).failed(1, "agent.not_running");
    laptop.run(&["share", &target, "--detach"]).failed(1, "agent.not_running");
    assert_eq!(server.api().get("/v1/mappings")["items"], serde_json::json!([]));
    assert_eq!(server.api().get("/v1/codes")["items"], serde_json::json!([]));

    let (mut agent, mut others_agent) = (laptop.up(), other.up());
    let exposed = laptop.run(&["expose", &target, "--detach"]);
    let public = address(only(&exposed), "public");
    let code = laptop.run(&["share", &target, "--detach"]).text("code");
    let connected = other.run(&["connect", &code, "--detach"]);
    let listen = address(only(&connected), "listen");
    for address in [public, listen] {
        eventually("the agent serves", || echoes(address));
    }
    assert!(agent.runs() && others_agent.runs());
    assert_eq!(laptop.run(&["ls"]).lines.len(), 2, "the exposed and the shared one");
    assert_eq!(laptop.run(&["status"]).last()["agent_running"], true);
    assert_eq!((agent.end(), others_agent.end()), (0, 0));
}

#[test]
fn a_waiting_verb_takes_over_when_the_first_one_ends() {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let (first_target, second_target) = (echo().to_string(), echo().to_string());
    // Once in good order, once killed.
    for killed in [false, true] {
        let (mut first, first_public) = laptop.expose(&[&first_target, "--name", "first"]);
        let (mut second, second_public) = laptop.expose(&[&second_target, "--name", "second"]);
        echoes(first_public).unwrap();
        echoes(second_public).unwrap();
        if killed {
            first.kill();
        } else {
            assert_eq!(first.end(), 0);
        }
        second.expect("took_over");
        second.expect("connected");
        // The mappings live on the server and the targets in the folder: both go on.
        echoes(second_public).unwrap();
        echoes(first_public).unwrap();
        assert_eq!(second.end(), 0);
    }
}

#[test]
fn everything_ends_cleanly_on_both_signals() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let target = echo().to_string();
    let ends = |mut process: Process, signal: Signal, what: &str| {
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(0), "{what}: {}", process.stderr());
    };
    for signal in [Signal::INT, Signal::TERM] {
        ends(laptop.up(), signal, "up");
        ends(laptop.expose(&[&target]).0, signal, "expose");
        let (sharing, code) = laptop.share(&target);
        ends(other.connect(&code).0, signal, "connect");
        ends(sharing, signal, "share");
        // With a link that does not stand as well.
        let lonely = other.state.parent().unwrap().join(format!("lonely-{}", signal.as_raw()));
        copy_client(&other.state, &lonely);
        lead_elsewhere(&lonely);
        let mut waiting = Process::start(&["up", "--state", &lonely.display().to_string()]);
        waiting.expect("disconnected");
        ends(waiting, signal, "up without a server");
        let mut short = Server::start(Store::RocksDb);
        short.process.signal(signal);
        assert_eq!(short.process.wait().code(), Some(0), "serve: {}", short.process.stderr());
        assert!(!short.data().join("control.sock").exists());
        // Nothing of theirs is left in the folder.
        assert!(!laptop.state.join("agent.sock").exists());
    }
}

/// The files of a client, without its running agent's.
fn copy_client(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o700)).unwrap();
    for name in ["key", "server.toml"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// Nobody listens where this client looks for its server.
fn lead_elsewhere(state: &std::path::Path) {
    let path = state.join("server.toml");
    let file = std::fs::read_to_string(&path).unwrap();
    let rest: Vec<&str> = file.lines().filter(|line| !line.starts_with("addresses")).collect();
    let mut out = std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    write!(out, "addresses = [\"127.0.0.1:{}\"]\n{}\n", free_port(), rest.join("\n")).unwrap();
}
