//! The lives of servers, clients and links: strangers, losses, replacements, credentials, codes, shutdown.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use underpass_tests::bytes::{dial, echo, echoes, service};
use underpass_tests::tap::Tap;
use underpass_tests::{Client, Done, Process, Server, Store, eventually, free_address, now, run};

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The files of a client, without those of its running agent, in a folder beside it.
fn copied(client: &Client, name: &str) -> Client {
    let state = client.state.parent().unwrap().join(name);
    fs::create_dir(&state).unwrap();
    chmod(&state, 0o700);
    for name in ["key", "server.toml", "shares.json"] {
        if client.state.join(name).exists() {
            fs::copy(client.state.join(name), state.join(name)).unwrap();
        }
    }
    Client { state }
}

/// Leads a client to its server by another way.
fn by_way_of(client: &Client, address: SocketAddr) {
    let path = client.state.join("server.toml");
    let file = fs::read_to_string(&path).unwrap();
    let rest: Vec<&str> = file.lines().filter(|line| !line.starts_with("addresses")).collect();
    fs::write(&path, format!("addresses = [\"{address}\"]\n{}\n", rest.join("\n"))).unwrap();
}

fn api_client(server: &Server, name: &str) -> Value {
    let page = server.api().get("/v1/clients?limit=500");
    let items = page["items"].as_array().unwrap();
    items.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name}: {page}")).clone()
}

#[test]
fn c6_a_thousand_silent_peers_delay_nobody_and_are_closed() {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let silent: Vec<TcpStream> = (0..1000).map(|_| dial(server.listen).unwrap()).collect();
    // And some that speak one byte a second.
    let slow: Vec<TcpStream> = (0..20).map(|_| dial(server.listen).unwrap()).collect();
    let slowly = slow.iter().map(|stream| stream.try_clone().unwrap()).collect::<Vec<_>>();
    let speaking = std::thread::spawn(move || {
        for byte in b"UPSS\x01\x01".iter().chain(&[7; 60]) {
            for mut stream in &slowly {
                let _ = stream.write_all(&[*byte]);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    // A real client is let in at once; how long a debug build takes on a busy machine is not the point.
    let begun = now();
    let mut agent = laptop.up();
    let took = now() - begun;
    assert!(took < Duration::from_secs(5), "{took:?} with a thousand silent peers");
    for mut stream in silent.into_iter().chain(slow) {
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        match stream.read(&mut [0; 64]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("a stranger should have been closed: {other:?}"),
        }
    }
    assert!(agent.runs());
    assert_eq!(laptop.run(&["status"]).last()["agent_running"], true);
    drop(speaking);
}

/// The bytes behind base 32 text of Underpass, whatever its alphabet: windows of it, as text.
fn text_parts(secret: &str) -> Vec<&str> {
    (0..secret.len().saturating_sub(12)).step_by(4).map(|at| &secret[at..at + 12]).collect()
}

#[test]
fn c7_a_capture_shows_no_invite_code_key_or_payload() {
    let tap = Tap::new();
    let server = Server::start_with(Store::Memory, &[("server.advertise", &tap.address.to_string())]);
    tap.leads_to(server.listen);
    let marker = b"the-payload-that-nobody-else-may-read";
    let state = |name: &str| server.data().parent().unwrap().join(name);
    let invite = server.invite();
    assert!(invite.starts_with(&tap.address.to_string()));
    for (name, invite) in [("laptop", invite.clone()), ("other", server.invite())] {
        let done = run(&["join", &invite, "--state", &state(name).display().to_string(), "--name", name]);
        assert_eq!(done.code, 0, "{done:?}");
    }
    let (laptop, other) = (Client { state: state("laptop") }, Client { state: state("other") });
    let target = echo().to_string();
    let send = |address: SocketAddr| {
        let mut stream = dial(address).unwrap();
        stream.write_all(marker).unwrap();
        let mut answer = vec![0; marker.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, marker);
    };
    let (_exposing, public) = laptop.expose(&[&target, "--name", "sealed"]);
    send(public);
    let (_sharing, code) = laptop.share(&target);
    let (_connecting, private) = other.connect(&code);
    send(private);

    assert!(tap.recorded() > 4 * marker.len());
    assert_eq!(tap.saw(marker), 0, "a payload");
    let (_, secret) = invite.split_once('#').unwrap();
    for part in text_parts(secret) {
        assert_eq!(tap.saw(part.as_bytes()), 0, "a part of the invite");
    }
    assert_eq!(tap.saw(code.as_bytes()), 0);
    for part in code.split('.') {
        assert_eq!(tap.saw(part.as_bytes()), 0, "a part of the code");
        assert_eq!(tap.saw(part.replace('-', "").as_bytes()), 0, "a part of the code");
    }
    let keys = [laptop.state.join("key"), other.state.join("key"), server.data().join("link.key")];
    for path in keys {
        let text = fs::read_to_string(path).unwrap();
        let encoded = text.trim().rsplit(':').next().unwrap();
        assert_eq!(tap.saw(encoded.as_bytes()), 0, "a key");
        let raw = base64url(encoded);
        assert_eq!(raw.len(), 32);
        assert_eq!(tap.saw(&raw), 0, "a key");
        assert_eq!(tap.saw(&raw[..12]), 0, "a part of a key");
    }
    // The capture does see what is not sealed.
    let (_plain, public) = laptop.expose(&[&target, "--name", "plain", "--seal", "off"]);
    send(public);
    assert_eq!(tap.saw(marker), 1);
}

fn base64url(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for symbol in text.bytes() {
        let value = alphabet.iter().position(|known| *known == symbol).unwrap();
        bits = bits << 6 | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    out
}

/// Reasons that the activity log gives for failed authentications.
fn reasons(server: &Server) -> Vec<String> {
    let done = run(&[
        "log",
        "show",
        "--log-name",
        "activity",
        "--types",
        "auth.failed",
        "--data",
        &server.data_text(),
    ]);
    assert_eq!(done.code, 0, "{done:?}");
    done.lines.iter().map(|line| line["payload"]["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// C8: one way of being refused. `fails` gets a server and a client that was let in; the log must then say `why`.
fn refused_for(why: &str, fails: impl FnOnce(&Server, &Client) -> Done) -> Value {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let done = fails(&server, &laptop);
    done.failed(10, "link.refused");
    let said = eventually("the reason is written down", || {
        reasons(&server).pop().ok_or_else(|| "nothing yet".to_owned())
    });
    assert!(said.contains(why), "the log says `{said}`, not `{why}`");
    done.error
}

#[test]
fn c8_every_refusal_is_the_same_to_the_client_and_precise_in_the_log() {
    let join = |server: &Server, invite: &str| {
        let state = server.data().parent().unwrap().join("newcomer");
        run(&["join", invite, "--state", &state.display().to_string()])
    };
    let used = refused_for("used", |server, _| {
        let invite = server.invite();
        let state = server.data().parent().unwrap().join("faster");
        assert_eq!(run(&["join", &invite, "--state", &state.display().to_string()]).code, 0);
        join(server, &invite)
    });
    let expired = refused_for("expired", |server, _| {
        let invite = run(&["invite", "--data", &server.data_text(), "--ttl", "1s"]).text("invite");
        std::thread::sleep(Duration::from_millis(1200));
        join(server, &invite)
    });
    let revoked = refused_for("revoked", |server, _| {
        let made = server.api().post("/v1/invites", &json!({}));
        let path = format!("/v1/invites/{}", made["id"].as_str().unwrap());
        server.api().call(Method::DELETE, &path, None);
        join(server, made["invite"].as_str().unwrap())
    });
    assert_eq!(used, expired);
    assert_eq!(used, revoked);
    let unknown = refused_for("unknown key", |_, laptop| {
        // Another server's client looks just like one whose key is wrong.
        let elsewhere = Server::start(Store::Memory);
        let stranger = elsewhere.client("stranger");
        fs::copy(stranger.state.join("key"), laptop.state.join("key")).unwrap();
        laptop.run(&["up"])
    });
    let blocked = refused_for("blocked", |server, laptop| {
        let id = api_client(server, "laptop")["id"].as_str().unwrap().to_owned();
        server.api().post(&format!("/v1/clients/{id}/block"), &json!({"reason": "a test"}));
        laptop.run(&["up"])
    });
    assert_eq!(unknown, blocked);
}

#[test]
fn c14_a_second_link_replaces_the_first_also_when_that_one_is_black_holed() {
    for black_holed in [false, true] {
        let tap = Tap::new();
        let server = Server::start(Store::Memory);
        tap.leads_to(server.listen);
        let laptop = server.client("laptop");
        by_way_of(&laptop, tap.address);
        let target = echo().to_string();
        let (mut first, public) = laptop.expose(&[&target, "--name", "web"]);
        echoes(public).unwrap();
        let second = copied(&laptop, "second");
        by_way_of(&second, server.listen);
        if black_holed {
            tap.swallow();
        }
        let mut agent = second.start(&["up"]);
        agent.expect("connected");
        let begun = now();
        eventually("the port is back", || echoes(public));
        let took = now() - begun;
        assert!(took < Duration::from_secs(5), "{took:?}");
        if !black_holed {
            // The first is told, and does not fight back.
            assert_eq!(first.wait().code(), Some(1));
            assert!(first.stderr().contains("link.replaced"), "{}", first.stderr());
            assert!(agent.event_within("disconnected", Duration::from_secs(1)).is_none());
        }
        assert!(api_client(&server, "laptop")["link"]["address"].is_string());
        echoes(public).unwrap();
        assert_eq!(agent.end(), 0);
    }
}

/// Silence is thirty seconds. Both ways of falling silent are waited for at once.
// C15
#[test]
fn c15_silence_is_noticed_by_both_sides() {
    std::thread::scope(|scope| {
        scope.spawn(a_link_in_a_black_hole_is_given_up);
        scope.spawn(a_server_that_stands_still_is_noticed);
    });
}

fn a_link_in_a_black_hole_is_given_up() {
    let tap = Tap::new();
    let server = Server::start_with(Store::Memory, &[("server.presence_ttl_s", "2")]);
    tap.leads_to(server.listen);
    let laptop = server.client("laptop");
    by_way_of(&laptop, tap.address);
    let mut agent = laptop.up();
    assert!(api_client(&server, "laptop")["link"].is_object());
    // Nobody closes the connection.
    tap.swallow();
    let noticed = agent.event_within("disconnected", Duration::from_mins(1));
    assert!(noticed.is_some(), "the client did not notice: {}", agent.stderr());
    eventually("the server notices", || match &api_client(&server, "laptop")["link"] {
        Value::Null => Ok(()),
        link => Err(link.to_string()),
    });
    let id = api_client(&server, "laptop")["id"].as_str().unwrap().to_owned();
    let sessions = server.api().get(&format!("/v1/clients/{id}/sessions"));
    let all = sessions["items"].as_array().unwrap();
    assert!(!all.is_empty() && all.iter().all(|session| session["open"] == false), "{sessions}");
    // By another way it is back.
    assert_eq!(agent.end(), 0);
    by_way_of(&laptop, server.listen);
    assert_eq!(laptop.up().end(), 0);
}

fn a_server_that_stands_still_is_noticed() {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let mut agent = laptop.up();
    server.process.signal(Signal::STOP);
    let noticed = agent.event_within("disconnected", Duration::from_mins(1));
    server.process.signal(Signal::CONT);
    assert!(noticed.is_some(), "{}", agent.stderr());
    // It may take some attempts that nobody answered.
    assert!(agent.event_within("connected", Duration::from_mins(1)).is_some(), "{}", agent.stderr());
    assert_eq!(agent.end(), 0);
}

// C17
#[test]
fn c17_a_crowd_of_clients_is_back_after_a_restart() {
    let crowd = 50 * underpass_tests::torture().min(20);
    let mut server = Server::start(Store::RocksDb);
    let api = server.api();
    let mut agents: Vec<Process> = (0..crowd)
        .map(|nth| {
            let invite = api.post("/v1/invites", &json!({}))["invite"].as_str().unwrap().to_owned();
            let state = server.data().parent().unwrap().join(format!("client-{nth}"));
            let client = Client { state };
            let joined = client.run(&["join", &invite]);
            assert_eq!(joined.code, 0, "{joined:?}");
            client.start(&["up"])
        })
        .collect();
    for agent in &mut agents {
        agent.expect("connected");
    }
    server.kill();
    for agent in &mut agents {
        agent.expect("disconnected");
    }
    server.restart();
    let begun = now();
    for agent in &mut agents {
        let left = Duration::from_mins(1).saturating_sub(now() - begun);
        assert!(agent.event_within("connected", left).is_some(), "{}", agent.stderr());
    }
    let took = now() - begun;
    assert!(took < Duration::from_secs(30), "all were back after {took:?}");
}

// C17
#[test]
fn c17_a_client_that_is_blocked_ends_with_the_exit_code_of_bad_credentials() {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let mut agent = laptop.up();
    let id = api_client(&server, "laptop")["id"].as_str().unwrap().to_owned();
    server.api().post(&format!("/v1/clients/{id}/block"), &json!({"reason": "stolen"}));
    assert_eq!(agent.wait().code(), Some(10), "{}", agent.stderr());
    laptop.run(&["up"]).failed(10, "link.refused");
    laptop.run(&["expose", "22"]).failed(10, "link.refused");
    server.api().post(&format!("/v1/clients/{id}/unblock"), &json!({}));
    assert_eq!(laptop.up().end(), 0);
}

fn serve(data: &Path) -> Done {
    let (listen, api) = (free_address().to_string(), free_address().to_string());
    run(&["serve", "--data", &data.display().to_string(), "--listen", &listen, "--api", &api])
}

#[test]
fn c18_secrets_that_are_open_to_others_are_refused_with_the_command_that_mends_it() {
    let mut server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    assert_eq!(server.process.end(), 0);
    let data = server.data();
    for (path, good, looser) in [
        (data.clone(), 0o700, [0o755, 0o750]),
        (data.join("link.key"), 0o600, [0o644, 0o660]),
        (data.join("admin.key"), 0o600, [0o604, 0o640]),
    ] {
        for mode in looser {
            chmod(&path, mode);
            let done = serve(&data);
            done.failed(1, "data.mode");
            let hint = format!("chmod {good:o} {}", path.display());
            assert!(done.error["hint"].as_str().unwrap().contains(&hint), "{done:?}");
        }
        chmod(&path, good);
    }
    for (path, good, looser) in [
        (laptop.state.clone(), 0o700, [0o755, 0o710]),
        (laptop.state.join("key"), 0o600, [0o644, 0o606]),
        (laptop.state.join("server.toml"), 0o600, [0o644, 0o640]),
    ] {
        for mode in looser {
            chmod(&path, mode);
            for verb in [["up"].as_slice(), &["ls"], &["expose", "22"]] {
                let done = laptop.run(verb);
                done.failed(1, "state.mode");
                let hint = format!("chmod {good:o} {}", path.display());
                assert!(done.error["hint"].as_str().unwrap().contains(&hint), "{done:?}");
            }
        }
        chmod(&path, good);
    }
    server.restart();
    assert_eq!(laptop.up().end(), 0);
}

#[test]
fn c18_a_link_key_that_is_empty_short_or_constant_is_refused() {
    let mut server = Server::start(Store::RocksDb);
    assert_eq!(server.process.end(), 0);
    let path = server.data().join("link.key");
    let good = fs::read_to_string(&path).unwrap();
    let zeros = format!("underpass-link-key-1:{}\n", "A".repeat(43));
    for bad in ["", "\n", "secret", &good[..good.len() - 9], "underpass-link-key-1:\n", zeros.as_str()] {
        fs::write(&path, bad).unwrap();
        serve(&server.data()).failed(1, "data.bad_key");
        assert_eq!(fs::read_to_string(&path).unwrap(), bad, "a key is never replaced in silence");
    }
    fs::write(&path, good).unwrap();
    server.restart();
}

#[test]
fn a_link_key_that_is_missing_is_made_anew_only_when_asked_for() {
    let mut server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    assert_eq!(server.process.end(), 0);
    let path = server.data().join("link.key");
    let good = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    serve(&server.data()).failed(1, "data.key_missing");
    run(&["invite", "--data", &server.data_text()]).failed(1, "data.key_missing");
    assert!(!path.exists(), "a key is never made in passing");
    // The key from the backup: everything is as it was.
    fs::write(&path, &good).unwrap();
    chmod(&path, 0o600);
    server.restart();
    assert_eq!(laptop.up().end(), 0);
    assert_eq!(server.process.end(), 0);
    // Lost for good: the client notices that this is another server.
    fs::remove_file(&path).unwrap();
    server.restart_with(&["--new-link-key"]);
    assert_ne!(fs::read_to_string(&path).unwrap(), good);
    laptop.run(&["expose", "3000"]).failed(5, "link.unreachable");
    let anew = server.client("anew");
    assert_eq!(anew.up().end(), 0);
}

// C47
#[test]
fn c47_a_port_in_use_at_the_start_leaves_nothing_half_started() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, parent) =
        (taken.local_addr().map(|address| (taken, address)).unwrap(), tempfile::tempdir().unwrap());
    let (free, data) = (free_address(), parent.path().join("data"));
    for (listen, api) in [(taken.1, free), (free, taken.1)] {
        let data_text = data.display().to_string();
        let done =
            run(&["serve", "--data", &data_text, "--listen", &listen.to_string(), "--api", &api.to_string()]);
        done.failed(1, "listen.in_use");
        let message = done.error["message"].as_str().unwrap();
        assert!(message.contains(&taken.1.to_string()), "{message}");
        assert!(!data.exists(), "a data folder was left behind");
        assert!(TcpListener::bind(free).is_ok(), "the other port is still held");
    }
}

#[test]
fn c48_of_many_that_redeem_a_code_at_once_one_wins() {
    const CALLERS: usize = 20;
    let server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let target = echo().to_string();
    let (_sharing, code) = laptop.share(&target);
    let mut agents = Vec::new();
    let clients: Vec<Client> = (0..CALLERS)
        .map(|nth| {
            let client = server.client(&format!("client-{nth}"));
            agents.push(client.start(&["up"]));
            client
        })
        .collect();
    for agent in &mut agents {
        agent.expect("connected");
    }
    let done: Vec<Done> = std::thread::scope(|scope| {
        let racing: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(|| client.run(&["connect", &code, "--detach"])))
            .collect();
        racing.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = done.iter().partition(|done| done.code == 0);
    assert_eq!(won.len(), 1, "{done:?}");
    for loser in lost {
        loser.failed(3, "code.used");
    }
    let mappings = server.api().get("/v1/mappings");
    assert_eq!(mappings["items"].as_array().unwrap().len(), 1);
    assert_eq!(mappings["items"][0]["id"], won[0].last()["mapping"]);
    let listen = won[0].text("listen").parse().unwrap();
    eventually("the winner's tunnel", || echoes(listen));
}

#[test]
fn c49_codes_that_can_not_be_redeemed_say_why_and_make_no_mapping() {
    let server = Server::start(Store::Memory);
    let (laptop, other, third) = (server.client("laptop"), server.client("other"), server.client("third"));
    let target = echo().to_string();
    let _agent = laptop.up();
    let code = |more: &[&str]| laptop.run(&[&["share", &target, "--detach"], more].concat()).text("code");

    let (expired, revoked, used) = (code(&["--activation", "10s"]), code(&[]), code(&[]));
    let begun = now();
    let codes = server.api().get("/v1/codes");
    let lookup = revoked.split('.').next().unwrap().to_owned();
    let known = codes["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["lookup"].as_str().unwrap().replace('-', "") == lookup.replace('-', ""));
    let path = format!("/v1/codes/{}", known.unwrap()["id"].as_str().unwrap());
    let (status, _) = server.api().call(Method::DELETE, &path, None);
    assert!((200..300).contains(&status));
    let (mut connecting, _) = other.connect(&used);
    assert_eq!(connecting.end(), 0);
    let elsewhere = Server::start(Store::Memory);
    let (_sharing, unknown) = elsewhere.client("laptop").share("22");

    third.run(&["connect", &revoked]).failed(3, "code.revoked");
    third.run(&["connect", &used]).failed(3, "code.used");
    third.run(&["connect", &unknown]).failed(4, "code.unknown");
    std::thread::sleep(Duration::from_millis(10_500).saturating_sub(now() - begun));
    third.run(&["connect", &expired]).failed(3, "code.expired");
    assert_eq!(
        server.api().get("/v1/mappings")["items"].as_array().unwrap().len(),
        1,
        "of the used one only"
    );

    // Times off the limits.
    for times in [["--activation", "9s"], ["--activation", "2d"], ["--access", "30s"], ["--access", "400d"]] {
        laptop.run(&["share", &target, "--detach", times[0], times[1]]).failed(3, "invalid");
    }
    assert_eq!(server.api().get("/v1/codes")["items"].as_array().unwrap().len(), 3);
}

fn readyz(server: &Server) -> Option<u16> {
    let http = reqwest::blocking::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    let answer = http.get(format!("http://{}/readyz", server.api_address)).send().ok()?;
    Some(answer.status().as_u16())
}

#[test]
fn c68_a_server_that_is_told_to_stop_lets_tunnels_finish() {
    let mut server = Server::start_with(Store::RocksDb, &[("server.shutdown_grace_s", "60")]);
    let laptop = server.client("laptop");
    let target = service(|stream| {
        // Answers one line with another, and ends.
        let mut line = [0; 5];
        while (&stream).read_exact(&mut line).is_ok() {
            let _ = (&stream).write_all(&line);
        }
    });
    let (_exposing, public) = laptop.expose(&[&target.to_string(), "--name", "web"]);
    let mut running = dial(public).unwrap();
    let mut say = |word: &[u8; 5]| {
        running.write_all(word).unwrap();
        let mut answer = [0; 5];
        running.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, word);
    };
    say(b"hello");
    assert_eq!(readyz(&server), Some(200));
    server.process.signal(Signal::TERM);
    eventually("not ready", || match readyz(&server) {
        Some(503) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // No new tunnels.
    eventually("the public port is closed", || match TcpStream::connect(public) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
    eventually("no new clients", || match TcpStream::connect(server.listen) {
        Err(_) => Ok(()),
        Ok(_) => Err("it still listens".to_owned()),
    });
    // What runs goes on.
    std::thread::sleep(Duration::from_secs(1));
    say(b"still");
    assert!(server.process.runs());
    assert_eq!(readyz(&server), Some(503));
    drop(running);
    let begun = now();
    assert_eq!(server.process.wait().code(), Some(0), "{}", server.process.stderr());
    assert!(now() - begun < Duration::from_secs(20), "it did not wait for the whole grace time");
    let verify = run(&["log", "verify", "--data", &server.data_text()]);
    assert_eq!(verify.last()["ok"], true);
    // Nothing is lost: the tunnel that ended in the drain is counted.
    server.restart();
    let usage = server.api().mapping("web")["usage"].clone();
    assert_eq!((&usage["tunnels"], &usage["bytes_in"]), (&json!(1), &json!(10)), "{usage}");
}

#[test]
fn c68_the_grace_time_has_an_end_and_a_second_signal_ends_at_once() {
    // Tunnels that don't end are cut off.
    let mut server = Server::start_with(Store::Memory, &[("server.shutdown_grace_s", "1")]);
    let laptop = server.client("laptop");
    let (_exposing, public) = laptop.expose(&[&echo().to_string()]);
    echoes(public).unwrap();
    let mut held = dial(public).unwrap();
    held.write_all(b"x").unwrap();
    held.read_exact(&mut [0]).unwrap();
    assert_eq!(server.process.end(), 0);
    assert!(matches!(held.read(&mut [0]), Ok(0) | Err(_)));

    let mut server = Server::start_with(Store::RocksDb, &[("server.shutdown_grace_s", "600")]);
    let laptop = server.client("laptop");
    let (_exposing, public) = laptop.expose(&[&echo().to_string()]);
    let mut held = dial(public).unwrap();
    held.write_all(b"x").unwrap();
    held.read_exact(&mut [0]).unwrap();
    server.process.signal(Signal::TERM);
    eventually("not ready", || if readyz(&server) == Some(503) { Ok(()) } else { Err("ready".to_owned()) });
    assert!(server.process.runs());
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait().code(), Some(130), "at once, and not as if all were well");
    server.restart();
    server.verified();
}
