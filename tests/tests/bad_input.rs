//! The list of bad input: each is answered by a clear sentence that says what to do, a stable code and an exit
//! code; nothing is lost, and nothing half done.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use underpass_tests::bytes::{dial, echo, echoes};
use underpass_tests::{Done, Server, Store, eventually, free_address, run};

/// `serve` on this folder and addresses of its own, which must not start.
fn serve(data: &Path, more: &[&str]) -> Done {
    let (listen, api) = (free_address().to_string(), free_address().to_string());
    let data = data.display().to_string();
    run(&[&["serve", "--data", &data, "--listen", &listen, "--api", &api], more].concat())
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The content of every file below, by path.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.extend(files(&path));
        } else if kind.is_file() {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// Bytes that look random, the same for the same seed.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn invites_that_are_wrong_used_expired_or_revoked_let_nobody_in() {
    let server = Server::start(Store::Memory);
    let folder = server.data().parent().unwrap().to_owned();
    let join = |name: &str, invite: &str| {
        run(&["join", invite, "--state", &folder.join(name).display().to_string()])
    };
    let good = server.invite();
    let mut mistyped = good.clone();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == 'b' { 'c' } else { 'b' });
    for wrong in ["", "x", "127.0.0.1:1#", "#", mistyped.as_str(), &good[..good.len() - 5]] {
        join("wrong", wrong).failed(2, "invite.invalid");
    }
    // A good invite of another server, with this one's address: its key is another.
    let other = Server::start(Store::Memory);
    let (_, key) = other.invite().split_once('#').map(|(a, k)| (a.to_owned(), k.to_owned())).unwrap();
    join("stranger", &format!("{}#{key}", server.listen)).failed(5, "link.unreachable");

    let short = run(&["invite", "--data", &server.data_text(), "--ttl", "1s"]).text("invite");
    let revoked = server.api().post("/v1/invites", &json!({}));
    let id = revoked["id"].as_str().unwrap();
    let (status, _) = server.api().call(Method::DELETE, &format!("/v1/invites/{id}"), None);
    assert!((200..300).contains(&status));
    assert_eq!(join("first", &good).code, 0);
    std::thread::sleep(Duration::from_millis(1500));
    join("used", &good).failed(10, "link.refused");
    join("expired", &short).failed(10, "link.refused");
    join("revoked", revoked["invite"].as_str().unwrap()).failed(10, "link.refused");
    // Nothing half done: one client is known, and the folders that were refused can join with a good one.
    assert_eq!(server.api().get("/v1/clients")["items"].as_array().unwrap().len(), 1);
    assert_eq!(join("used", &server.invite()).code, 0);
    // The first client's folder belongs to its server.
    join("first", &other.invite()).failed(3, "state.joined");
}

#[test]
fn codes_that_are_wrong_make_no_mapping() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let (_sharing, code) = laptop.share(&echo().to_string());
    let mut mistyped = code.clone();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == '2' { '3' } else { '2' });
    for wrong in ["", "x", &code[..11], mistyped.as_str()] {
        other.run(&["connect", wrong]).failed(2, "code.invalid");
    }
    // Of another server: well made, and unknown here.
    let elsewhere = Server::start(Store::Memory);
    let (_also_sharing, foreign) = elsewhere.client("laptop").share("22");
    other.run(&["connect", &foreign]).failed(4, "code.unknown");
    assert_eq!(server.api().get("/v1/mappings")["items"], json!([]));
    // None of it used the code up; case and spaces don't matter.
    let (_connecting, listen) = other.connect(&code.to_uppercase().replace('.', " . "));
    echoes(listen).unwrap();
}

#[test]
fn a_port_in_use_is_told() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let target = echo();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holder = TcpListener::bind(taken).unwrap();
    let (_sharing, code) = laptop.share(&target.to_string());
    other.run(&["connect", &code, "--listen", &taken.to_string()]).failed(1, "listen.in_use");
    // The code is not lost by it: the same client gets its mapping elsewhere.
    let mut connecting = other.start(&["connect", &code, "--listen", "127.0.0.1:0"]);
    let open = connecting.expect("open");
    echoes(open["listen"].as_str().unwrap().parse().unwrap()).unwrap();
}

#[test]
fn a_target_that_refuses_is_told_to_both_sides_and_nothing_else_suffers() {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let target = free_address();
    let (mut exposing, public) = laptop.expose(&[&target.to_string(), "--name", "later"]);
    let mut caller = dial(public).unwrap();
    // The kernel accepted before the target was tried: refusal is an end without a byte.
    assert!(matches!(caller.read(&mut [0; 1]), Ok(0) | Err(_)));
    let refused = exposing.event_within("tunnel_refused", Duration::from_secs(10));
    let refused = refused.expect("the agent says so");
    assert_eq!(refused["code"], "target.refused");
    // And then the service starts.
    let listener = TcpListener::bind(target).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut &stream);
        }
    });
    echoes(public).unwrap();
    assert_eq!(exposing.end(), 0);
}

#[test]
fn foreign_newer_and_busy_folders_are_refused_and_left_alone() {
    let mut server = Server::start(Store::RocksDb);
    let parent = server.data().parent().unwrap().to_owned();
    // In use by another process: the first goes on.
    serve(&server.data(), &[]).failed(1, "data.in_use");
    let laptop = server.client("laptop");
    assert_eq!(server.process.end(), 0);

    let foreign = parent.join("foreign");
    fs::create_dir(&foreign).unwrap();
    chmod(&foreign, 0o700);
    fs::write(foreign.join("thesis.txt"), "mine").unwrap();
    let before = files(&foreign);
    serve(&foreign, &[]).failed(1, "data.foreign");
    run(&["log", "verify", "--data", &foreign.display().to_string()]).failed(1, "data.foreign");
    assert_eq!(files(&foreign), before);

    let newer = parent.join("newer");
    copy(&server.data(), &newer);
    fs::write(newer.join("UNDERPASS"), "underpass data folder, format 2\n").unwrap();
    let before = files(&newer);
    serve(&newer, &[]).failed(1, "data.newer");
    assert_eq!(files(&newer), before);

    let file = parent.join("file");
    fs::write(&file, "a file").unwrap();
    chmod(&file, 0o600);
    let done = serve(&file, &[]);
    assert_eq!(done.code, 1, "{done:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "a file");

    // After all of this the first folder is as it was.
    server.restart();
    server.verified();
    assert_eq!(laptop.up().end(), 0);
}

/// What it is called, the files of the data folder it happens to, and what happens to each.
type Accident = (String, Vec<PathBuf>, fn(&Path));

#[test]
fn broken_and_truncated_stores_are_refused_and_not_made_worse() {
    let mut server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let (mut exposing, _) = laptop.expose(&["22", "--name", "ssh"]);
    assert_eq!(exposing.end(), 0);
    let (_, head) = (server.verified(), server.verified().0);
    assert_eq!(server.process.end(), 0);
    // A second run, so that there are tables and not only a write-ahead log.
    server.restart();
    assert_eq!(server.process.end(), 0);
    let parent = server.data().parent().unwrap().to_owned();

    let stores: Vec<PathBuf> =
        files(&server.data().join("store")).into_iter().map(|(path, _)| path).collect();
    let named = |part: &str| -> Vec<PathBuf> {
        let hits = stores.iter().filter(|path| path.file_name().unwrap().to_string_lossy().contains(part));
        hits.map(|path| path.strip_prefix(server.data()).unwrap().to_owned()).collect()
    };
    let mut accidents: Vec<Accident> = Vec::new();
    let truncate: fn(&Path) = |path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        let half = file.metadata().unwrap().len() / 2;
        file.set_len(half).unwrap();
    };
    let remove: fn(&Path) = |path| fs::remove_file(path).unwrap();
    let scribble: fn(&Path) = |path| {
        let size = fs::metadata(path).unwrap().len();
        fs::write(path, noise(size, usize::try_from(size).unwrap())).unwrap();
    };
    for (kind, part) in [("manifest", "MANIFEST"), ("pointer", "CURRENT"), ("table", ".sst")] {
        for (how, act) in [("truncated", truncate), ("removed", remove), ("scribbled", scribble)] {
            let which = named(part);
            if !which.is_empty() {
                accidents.push((format!("{kind} {how}"), which, act));
            }
        }
    }
    assert!(accidents.len() >= 6, "{stores:?}");
    for (what, which, act) in accidents {
        let copied = parent.join(what.replace(' ', "-"));
        copy(&server.data(), &copied);
        for file in &which {
            act(&copied.join(file));
        }
        let damaged: Vec<_> = which.iter().map(|file| fs::read(copied.join(file)).ok()).collect();
        let done = serve(&copied, &[]);
        let code = done.error["code"].as_str().unwrap_or_default().to_owned();
        assert!(
            ["store.corrupt", "store.rolled_back", "log.bad", "data.foreign"].contains(&code.as_str()),
            "{what}: {done:?}"
        );
        done.failed(1, &code);
        let after: Vec<_> = which.iter().map(|file| fs::read(copied.join(file)).ok()).collect();
        assert!(damaged == after, "{what}: what is left must be left for whoever repairs it");
        // `log verify` says it too, and does not call it good.
        let verify = run(&["log", "verify", "--data", &copied.display().to_string()]);
        assert_eq!(verify.code, 1, "{what}: {verify:?}");
        assert!(!verify.lines.iter().any(|line| line["ok"] == true), "{what}: {verify:?}");
        fs::remove_dir_all(&copied).unwrap();
    }

    // The folder that was put back is whole.
    server.restart();
    assert!(server.verified().0 >= head);
    let done = laptop.run(&["ls"]);
    assert_eq!(done.last()["name"], "ssh");
}

#[test]
fn an_older_copy_of_the_store_is_noticed() {
    let mut server = Server::start(Store::RocksDb);
    server.client("laptop");
    assert_eq!(server.process.end(), 0);
    let (store, old) = (server.data().join("store"), server.data().parent().unwrap().join("old"));
    copy(&store, &old);
    server.restart();
    server.client("other");
    assert_eq!(server.process.end(), 0);
    // The head mark stays beside the database and says that it went further.
    let mark = |folder: &Path| files(folder).into_iter().find(|(path, _)| path.ends_with("HEAD"));
    let newest = mark(&store);
    fs::remove_dir_all(&store).unwrap();
    copy(&old, &store);
    if let Some((path, bytes)) = newest {
        fs::write(path, bytes).unwrap();
    }
    serve(&server.data(), &[]).failed(1, "store.rolled_back");
}

#[test]
fn an_unknown_key_of_the_configuration_is_told_with_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let (config, data) = (folder.path().join("underpass.toml"), folder.path().join("data"));
    let text = config.display().to_string();
    for (content, hint) in [
        ("[server]\nlistn = \"127.0.0.1:0\"\n", "server.listen"),
        ("[stor]\nkind = \"memory\"\n", "store.kind"),
        ("[store]\nkind = \"mysql\"\n", "store.kind"),
        ("[server\n", "underpass.toml"),
    ] {
        fs::write(&config, content).unwrap();
        for verb in [vec!["config", "check"], vec!["config", "show"]] {
            let done = run(&[&verb[..], &["--config", &text]].concat());
            done.failed(1, "config.invalid");
            assert!(done.error["message"].as_str().unwrap().contains(hint), "{done:?}");
        }
        serve(&data, &["--config", &text]).failed(1, "config.invalid");
        assert!(!data.exists(), "nothing was half started");
    }
    // All mistakes at once.
    fs::write(&config, "[server]\nlistn = \"x\"\nnmae = \"y\"\n[api]\nlisten = \"here\"\n").unwrap();
    let done = run(&["config", "check", "--config", &text]);
    let message = done.error["message"].as_str().unwrap().to_owned();
    for part in ["listn", "nmae", "api.listen"] {
        assert!(message.contains(part), "{message}");
    }
    run(&["config", "check", "--config", "/nonexistent.toml"]).failed(1, "config.invalid");
}

/// Sends bytes and reads until the other side ends it or says nothing for a moment.
fn throw(stream: &mut (impl Read + Write), bytes: &[u8]) -> Vec<u8> {
    // Who closes early has said what he thinks of it.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.take(64 * 1024).read_to_end(&mut answer);
    answer
}

fn throw_at(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = dial(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    throw(&mut stream, bytes)
}

fn throw_into(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    throw(&mut stream, bytes)
}

#[test]
fn random_bytes_on_every_port_stop_nothing() {
    let mut server = Server::start(Store::RocksDb);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let (mut agent, target) = (laptop.up(), echo().to_string());
    let public: SocketAddr = laptop.run(&["expose", &target, "--detach"]).text("public").parse().unwrap();
    let code = laptop.run(&["share", &target, "--detach"]).text("code");
    let (mut connecting, listen) = other.connect(&code);
    let held = dial(public).unwrap();

    // What begins as it should and goes on as it should not.
    let link = b"UPSS\x01\x01".as_slice();
    let data = b"UPSS\x01\x02".as_slice();
    let peer = b"UPSS\x01\x03".as_slice();
    let http = b"POST /v1/invites HTTP/1.1\r\nHost: x\r\n".as_slice();
    let ask = b"{\"verb\":\"expose\",\"args\":".as_slice();
    for seed in 0..u64::from(underpass_tests::torture()) * 8 {
        for start in [&b""[..], b"UPSS", b"UPSS\x02\x01", link, data, peer, http, ask] {
            // Up to 64 KiB, mostly short.
            let size = 1_usize << (2 * (seed % 9));
            let bytes = [start, &noise(seed, size)].concat();
            for port in [server.listen, server.api_address, listen, public] {
                let mut stream = dial(port).unwrap();
                let _ = stream.write_all(&bytes);
                // Some reset, some end, some are just gone.
                if seed % 2 == 0 {
                    let _ = stream.shutdown(Shutdown::Write);
                }
            }
            for socket in [laptop.state.join("agent.sock"), server.data().join("control.sock")] {
                let mut stream = UnixStream::connect(socket).unwrap();
                let _ = stream.write_all(&bytes);
            }
        }
    }
    // Whoever wants to hear something hears it, and the line stays the owner's.
    assert_eq!(throw_at(server.listen, &noise(1, 4096)), b"", "nothing is said to strangers");
    assert!(throw_at(server.api_address, b"GET / HTTP/9.9\r\n\r\n").starts_with(b"HTTP/1.1 400"));
    let answer = throw_into(&laptop.state.join("agent.sock"), b"{\"verb\":\"frobnicate\"}\n");
    assert!(String::from_utf8_lossy(&answer).contains("agent.local"), "{answer:?}");

    for address in [public, listen] {
        eventually("tunnels go on", || echoes(address));
    }
    let mut held = held;
    held.write_all(b"still here").unwrap();
    let mut answer = [0; 10];
    held.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"still here", "a tunnel that ran goes on");
    assert!(agent.runs() && connecting.runs() && server.process.runs());
    assert_eq!(laptop.run(&["status"]).last()["agent_running"], true);
    server.verified();
    assert_eq!((connecting.end(), agent.end(), server.process.end()), (0, 0, 0));
    server.restart();
    server.verified();
}

#[test]
fn frames_over_the_limit_are_refused_before_they_are_read() {
    let server = Server::start(Store::RocksDb);
    let laptop = server.client("laptop");
    let mut agent = laptop.up();

    // A request of 5 MiB on one line to the agent.
    let long = [b"{\"verb\":\"remove\",\"args\":{\"mapping\":\"".as_slice(), &vec![b'x'; 5 << 20], b"\"}}\n"]
        .concat();
    let _ = throw_into(&laptop.state.join("agent.sock"), &long);
    assert_eq!(laptop.run(&["status"]).last()["agent_running"], true);

    // A body over a mebibyte, with its length and without.
    let big = json!({ "label": "x".repeat(2 << 20) });
    let (status, problem) = server.api().call(Method::POST, "/v1/invites", Some(&big));
    assert_eq!((status, problem["code"].as_str()), (413, Some("request.too_large")));
    let mut stream = TcpStream::connect(server.api_address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let declared = "POST /v1/invites HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n";
    stream.write_all(declared.as_bytes()).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    let start = String::from_utf8_lossy(&start).into_owned();
    assert!(["HTTP/1.1 413", "HTTP/1.1 401"].contains(&start.as_str()), "{start}");

    // Headers without an end.
    let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 4 << 20]].concat();
    let answer = throw_at(server.api_address, &endless);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&answer));

    // Names and targets longer than they may be.
    let name = "n".repeat(300);
    let done = laptop.run(&["expose", "22", "--name", &name, "--detach"]);
    assert_eq!((done.code, done.error["code"].as_str()), (3, Some("invalid")), "{done:?}");
    let host = format!("{}:22", "h".repeat(10_000));
    let done = laptop.run(&["expose", &host, "--detach"]);
    assert!([2, 3].contains(&done.code) && !done.error["code"].is_null(), "{done:?}");

    assert!(agent.runs());
    assert_eq!(server.api().get("/v1/mappings")["items"], json!([]));
    server.verified();
}

#[test]
fn a_damaged_state_folder_is_told_by_file() {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    for (name, content) in
        [("key", "not a key"), ("key", ""), ("server.toml", "addresses = ["), ("server.toml", "")]
    {
        let path = laptop.state.join(name);
        let good = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        let done = laptop.run(&["up"]);
        done.failed(1, "state.damaged");
        assert!(done.error["message"].as_str().unwrap().contains(name), "{done:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content, "it is left for whoever repairs it");
        fs::write(&path, good).unwrap();
    }
    assert_eq!(laptop.up().end(), 0);
}

#[test]
fn wrong_keys_open_nothing_of_the_api() {
    let server = Server::start(Store::Memory);
    let folder = server.data().parent().unwrap().to_owned();
    let api = format!("http://{}", server.api_address);
    let token = fs::read_to_string(server.data().join("admin.key")).unwrap();
    let mut other_secret = token.trim().to_owned();
    let last = other_secret.pop().unwrap();
    other_secret.push(if last == 'a' { 'b' } else { 'a' });
    for (name, content) in [("empty", ""), ("noise", "zzz"), ("secret", other_secret.as_str())] {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        chmod(&path, 0o600);
        let done = run(&["ls", "--api", &api, "--key-file", &path.display().to_string()]);
        assert_eq!(done.code, 10, "{name}: {done:?}");
        assert!(done.error["code"].as_str().unwrap().starts_with("auth."), "{done:?}");
        assert!(!done.error["hint"].as_str().unwrap().is_empty(), "{done:?}");
    }
    let missing = folder.join("missing").display().to_string();
    let done = run(&["ls", "--api", &api, "--key-file", &missing]);
    assert_eq!((done.code, done.error["code"].as_str()), (1, Some("io")), "{done:?}");
    // A key that is open to others may be known to them.
    let loose = server.data().join("admin.key");
    chmod(&loose, 0o644);
    run(&["ls", "--api", &api, "--key-file", &loose.display().to_string()]).failed(1, "key_file.mode");
}
