//! C67, C69: the store goes away and comes back, under traffic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::Method;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};
use underpass_store_etcd::testkit::EtcdServer;
use underpass_tests::bytes::{dial, echo, echoes};
use underpass_tests::{Client, Process, Server, Store, eventually, now, run, torture};

/// Leases of the servers here: the shortest that etcd can do, and a second that our store adds.
const LEASE_S: &str = "2";

const SETTINGS: [(&str, &str); 2] =
    [("server.presence_ttl_s", LEASE_S), ("store.etcd.request_timeout_s", "2")];

/// No answer takes longer. Twice what the server promises, for a busy machine.
const ANSWERED: Duration = Duration::from_secs(20);

/// Changes that a full disk may still take, into room that RocksDB had reserved before.
const CHANGES_MAX: u32 = 200;

/// How long a store is away: longer than leases live; a minute in `make torture`.
fn outage() -> Duration {
    if torture() > 1 { Duration::from_mins(1) } else { Duration::from_secs(7) }
}

/// A tunnel that is never idle: what it carries comes back, or the thread panics.
struct Stream {
    stop: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Stream {
    fn through(address: SocketAddr) -> Self {
        let (stop, carried) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (over, count) = (Arc::clone(&stop), Arc::clone(&carried));
        let thread = std::thread::spawn(move || {
            let mut stream = dial(address).unwrap();
            let mut answer = [0; 1000];
            for nth in 0_u32.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let said = [nth.to_le_bytes()[0]; 1000];
                stream.write_all(&said).unwrap();
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(answer, said);
                count.fetch_add(1000, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, carried, thread }
    }

    fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.carried.load(Ordering::Relaxed)
    }
}

fn get(server: &Server, path: &str) -> (u16, Value) {
    server.api().call(Method::GET, path, None)
}

fn becomes(server: &Server, path: &str, status: u16) -> Value {
    eventually(&format!("{path} says {status}"), || match get(server, path) {
        (is, body) if is == status => Ok(body),
        other => Err(format!("{other:?}")),
    })
}

/// A change that must be refused: 503, with a time to come back, and soon.
fn is_refused(server: &Server, body: &Value) {
    let begun = now();
    let answer = server.api().send(Method::POST, "/v1/mappings", Some(body));
    assert!(begun.elapsed() < ANSWERED, "after {:?}", begun.elapsed());
    let after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let (status, problem) = (answer.status().as_u16(), answer.json::<Value>().unwrap());
    assert_eq!((status, problem["code"].as_str()), (503, Some("store.unavailable")), "{problem}");
    assert!(after.is_some_and(|seconds| seconds.parse::<u64>().unwrap() >= 1));
}

/// A server with two clients: `laptop` with the mapping `web`, `desk` with the mapping `files`.
struct Scene {
    server: Server,
    desk: Client,
    desk_agent: Process,
    _laptop_agent: Process,
    web: SocketAddr,
    files: SocketAddr,
    target: String,
    another: Value,
}

impl Scene {
    fn new(store: Store) -> Self {
        Self::on(Server::start_with(store, &SETTINGS))
    }

    fn on(server: Server) -> Self {
        let target = echo().to_string();
        let (laptop, desk) = (server.client("laptop"), server.client("desk"));
        let up = |client: &Client| {
            let mut agent = client.start(&["up", "--allow", &target]);
            agent.expect("connected");
            agent
        };
        let (laptop_agent, desk_agent) = (up(&laptop), up(&desk));
        let api = server.api();
        let body = |name: &str, client: &str| json!({"name": name, "ingress": "port", "target_client": api.client_id(client), "target": target});
        let make = |name: &str, client: &str| -> SocketAddr {
            let made = api.post("/v1/mappings", &body(name, client));
            ([127, 0, 0, 1], u16::try_from(made["port"].as_u64().unwrap()).unwrap()).into()
        };
        let (web, files) = (make("web", "laptop"), make("files", "desk"));
        eventually("web is served", || echoes(web));
        eventually("files is served", || echoes(files));
        let another = body("another", "laptop");
        Self { server, desk, desk_agent, _laptop_agent: laptop_agent, web, files, target, another }
    }

    /// The agent of `desk`, killed and started again.
    fn desk_restarts(&mut self) {
        self.desk_agent.kill();
        self.desk_agent = self.desk.start(&["up", "--allow", &self.target]);
        self.desk_agent.expect("connected");
        eventually("the client that came back is served", || echoes(self.files));
    }

    /// What happened to the sessions of a client since `after`, in order.
    fn sessions(&self, client: &str, after: u64) -> Vec<(String, String)> {
        let client = self.server.api().client_id(client);
        let after = after.to_string();
        let data = self.server.data_text();
        let done = run(&["log", "show", "--log-name", "activity", "--after", &after, "--data", &data]);
        assert_eq!(done.code, 0, "{done:?}");
        let of_client = done.lines.iter().filter(|line| line["payload"]["client"] == client.as_str());
        of_client
            .map(|line| {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                (text(&line["event"]), text(&line["payload"]["session"]))
            })
            .collect()
    }
}

/// C67 on any store that can be taken `away` and brought `back`.
fn outlasts(store: Store, away: impl Fn(&Server), back: impl Fn(&Server)) {
    let mut scene = Scene::new(store);
    let (_, before) = scene.server.verified();
    let stream = Stream::through(scene.web);

    away(&scene.server);
    let begun = now();
    let (mut calls, mut refused) = (0, 0);
    let mut not_ready = Value::Null;
    while begun.elapsed() < outage() {
        let carried = stream.carried();
        // The first one is asked before anybody knows that the store is away.
        is_refused(&scene.server, &scene.another);
        refused += 1;
        echoes(scene.web).unwrap();
        calls += 1;
        if refused == 1 {
            not_ready = becomes(&scene.server, "/readyz", 503);
            scene.desk_restarts();
        }
        assert_eq!(get(&scene.server, "/healthz").0, 200);
        assert_eq!(get(&scene.server, "/readyz").0, 503);
        assert_eq!(scene.server.api().mapping("web")["serves"], true, "what is resident can be read");
        eventually("bytes flow", || if stream.carried() > carried { Ok(()) } else { Err(String::new()) });
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!((&not_ready["ready"], &not_ready["store_reachable"]), (&json!(false), &json!(false)));
    assert_eq!(get(&scene.server, "/readyz").1["may_write"], false, "the lease has run out");
    scene.desk_restarts();
    back(&scene.server);

    becomes(&scene.server, "/readyz", 200);
    eventually("a change is made", || {
        match scene.server.api().call(Method::POST, "/v1/mappings", Some(&scene.another)) {
            (201, _) => Ok(()),
            // An attempt that was refused may have got through all the same.
            (409, problem) if problem["code"] == "name.taken" || problem["code"] == "mapping.exists" => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    });
    // Two sessions ended and two began, each told once, in order.
    let told = eventually("sessions are in the log", || {
        let told = scene.sessions("desk", before);
        if told.len() >= 4 { Ok(told) } else { Err(format!("{told:?}")) }
    });
    std::thread::sleep(Duration::from_secs(3));
    let told_later = scene.sessions("desk", before);
    assert_eq!(told, told_later, "nothing twice");
    let kinds: Vec<&str> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["session.closed", "session.opened", "session.closed", "session.opened"]);
    assert_eq!(told[1].1, told[2].1, "{told:?}");
    let mut opened = BTreeMap::new();
    for (_, session) in told.iter().filter(|(kind, _)| kind == "session.opened") {
        *opened.entry(session).or_insert(0) += 1;
    }
    assert!(opened.len() == 2 && opened.values().all(|times| *times == 1), "{told:?}");
    assert_eq!(scene.sessions("laptop", before), [], "the other client noticed nothing");

    let carried = stream.end();
    eventually("no tunnel runs", || match scene.server.api().mapping("web")["live"]["tunnels"].as_u64() {
        Some(0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let heads = scene.server.verified();
    assert_eq!(scene.server.process.end(), 0, "{}", scene.server.process.stderr());
    scene.server.restart();
    assert!(scene.server.verified() > heads);
    let usage = scene.server.api().mapping("web")["usage"].clone();
    // Each caller said 14 bytes, the first one before the outage.
    let bytes = carried + (calls + 1) * 14;
    assert_eq!((&usage["bytes_in"], &usage["bytes_out"]), (&json!(bytes), &json!(bytes)), "{usage}");
}

fn only(server: &Server) -> &EtcdServer {
    &server.etcd().members()[0]
}

#[test]
fn c67_a_node_outlasts_an_etcd_that_hangs() {
    outlasts(Store::Etcd, |server| only(server).pause(), |server| only(server).resume());
}

#[test]
fn c67_a_node_outlasts_an_etcd_that_is_down() {
    outlasts(Store::Etcd, |server| only(server).kill(), |server| only(server).restart());
}

/// No file of the server may grow any more: each write fails, as on a full disk.
fn limit_files(server: &Server, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(server.process.id()).unwrap());
    let hard = prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap().maximum;
    assert_eq!(hard, None, "the test needs a file size without a hard limit");
}

#[test]
fn c67_a_node_outlasts_a_full_disk() {
    outlasts(Store::RocksDb, |server| limit_files(server, Some(0)), |server| limit_files(server, None));
}

/// A disk of its own for a data folder, in memory.
const DISK_BYTES: u64 = 64 * 1024 * 1024;

/// Names the folder in which a disk may be mounted: set for a run of this test inside namespaces of its own.
const INSIDE: &str = "UNDERPASS_TESTS_SMALL_DISK";

/// C67, with a file system that is full. The test runs itself again where it may mount one.
#[test]
fn c67_a_node_outlasts_a_disk_that_is_full_and_keeps_what_it_acknowledged() {
    if std::env::var_os(INSIDE).is_some() {
        return a_full_disk();
    }
    let name = "c67_a_node_outlasts_a_disk_that_is_full_and_keeps_what_it_acknowledged";
    let folder = tempfile::tempdir().unwrap();
    let mounts = Command::new("unshare")
        .args(["-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(folder.path())
        .output();
    match mounts {
        Ok(done) if done.status.success() => {
            // Whatever the inner run leaves lies in a folder of this one.
            let inner = Command::new("unshare")
                .arg("-rm")
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .env(INSIDE, "1")
                .env("TMPDIR", folder.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&inner.stdout) + String::from_utf8_lossy(&inner.stderr);
            assert!(inner.status.success() && said.contains("1 passed"), "{said}");
        }
        refused => {
            // Past what the test runner keeps to itself.
            let _ = writeln!(
                std::io::stderr(),
                "\n!! NO FILE SYSTEM CAN BE MOUNTED HERE: {name} runs with a limit of the sizes of files instead \
                 of a full disk ({refused:?})\n"
            );
            fills_up(
                Scene::new(Store::RocksDb),
                |server| limit_files(server, Some(0)),
                |server| {
                    limit_files(server, None);
                },
            );
        }
    }
}

fn a_full_disk() {
    let server = Server::start_in(Store::RocksDb, &SETTINGS, |data| {
        fs::create_dir(data).unwrap();
        let options = format!("size={DISK_BYTES},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(data).status();
        assert!(mounted.unwrap().success());
    });
    let ballast = |server: &Server| server.data().join("ballast");
    fills_up(
        Scene::on(server),
        |server| {
            let mut file = fs::File::create(ballast(server)).unwrap();
            let error = (0..DISK_BYTES).find_map(|_| file.write_all(&[0x55; 4096]).err());
            assert_eq!(error.map(|error| error.kind()), Some(std::io::ErrorKind::StorageFull));
        },
        |server| fs::remove_file(ballast(server)).unwrap(),
    );
}

/// Changes go on until the disk takes no more. What was acknowledged is there, then and after a kill.
fn fills_up(mut scene: Scene, fill: impl Fn(&Server), make_room: impl Fn(&Server)) {
    let mut acknowledged = Vec::new();
    let mut change = |server: &Server| {
        let mut body = scene.another.clone();
        body["name"] = json!(format!("change-{}", acknowledged.len()));
        let answer = server.api().call(Method::POST, "/v1/mappings", Some(&body));
        if answer.0 == 201 {
            acknowledged.push(body["name"].as_str().unwrap().to_owned());
        }
        answer
    };
    for _ in 0..5 {
        assert_eq!(change(&scene.server).0, 201);
    }
    let stream = Stream::through(scene.web);
    fill(&scene.server);
    // RocksDB may have reserved room for its log.
    let mut taken = 0;
    let refused = loop {
        match change(&scene.server) {
            (201, _) if taken < CHANGES_MAX => taken += 1,
            answer => break answer,
        }
    };
    assert_eq!((refused.0, &refused.1["code"]), (503, &json!("store.unavailable")), "{refused:?}");
    becomes(&scene.server, "/readyz", 503);
    let begun = now();
    while begun.elapsed() < outage() {
        let carried = stream.carried();
        is_refused(&scene.server, &scene.another);
        echoes(scene.web).unwrap();
        assert_eq!(
            scene.server.api().mapping("change-4")["name"],
            "change-4",
            "what is resident can be read"
        );
        assert_eq!(measured(&scene.server, "underpass_store_failed"), 1);
        eventually("bytes flow", || if stream.carried() > carried { Ok(()) } else { Err(String::new()) });
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(measured(&scene.server, "underpass_store_failures_total") >= 1);
    make_room(&scene.server);

    becomes(&scene.server, "/readyz", 200);
    eventually("a change is made", || match change(&scene.server) {
        (201, _) => Ok(()),
        // The one that was refused may have been written all the same.
        (409, problem) if problem["code"] == "name.taken" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(scene.server.process.runs(), "without a restart");
    assert_eq!(measured(&scene.server, "underpass_store_failed"), 0);
    assert!(measured(&scene.server, "underpass_store_reopened_total") >= 1);
    stream.end();
    let all_there = |server: &Server| {
        let page = server.api().get("/v1/mappings?limit=500");
        let names: Vec<&str> =
            page["items"].as_array().unwrap().iter().filter_map(|item| item["name"].as_str()).collect();
        for name in &acknowledged {
            assert!(names.contains(&name.as_str()), "{name} was acknowledged: {names:?}");
        }
        server.verified()
    };
    let heads = all_there(&scene.server);
    scene.server.kill();
    scene.server.restart();
    assert!(all_there(&scene.server) >= heads);
    eventually("it is served again", || echoes(scene.files));
}

/// A measurement without labels.
fn measured(server: &Server, name: &str) -> u64 {
    let text = server.api().send(Method::GET, "/metrics", None).text().unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
}

#[test]
fn c67_a_node_stops_without_its_store_and_says_what_it_could_not_record() {
    let mut scene = Scene::new(Store::Etcd);
    only(&scene.server).pause();
    is_refused(&scene.server, &scene.another);
    scene.desk_restarts();
    assert_eq!(scene.server.process.end(), 0, "{}", scene.server.process.stderr());
    let said = scene.server.process.stderr();
    assert!(said.contains("facts that wait for it are not recorded"), "{said}");
    only(&scene.server).resume();
    scene.server.restart();
    eventually("the mapping is served", || echoes(scene.files));
    scene.server.verified();
}

#[test]
fn c67_the_loss_of_the_leader_of_three_etcds_is_a_hiccup() {
    let mut scene = Scene::new(Store::EtcdCluster);
    let stream = Stream::through(scene.web);
    for round in 0..2 {
        let leader = eventually("there is a leader", || {
            let leads = |member: &&EtcdServer| member.is_running() && member.leads();
            scene.server.etcd().members().iter().position(|member| leads(&member)).ok_or_else(String::new)
        });
        let carried = stream.carried();
        scene.server.etcd().members()[leader].kill();
        let mut body = scene.another.clone();
        body["name"] = json!(format!("after-{round}"));
        eventually("changes are made again", || {
            match scene.server.api().call(Method::POST, "/v1/mappings", Some(&body)) {
                (201, _) => Ok(()),
                (409, problem) if problem["code"] == "name.taken" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        echoes(scene.web).unwrap();
        becomes(&scene.server, "/readyz", 200);
        eventually("bytes flow", || if stream.carried() > carried { Ok(()) } else { Err(String::new()) });
        scene.server.etcd().members()[leader].restart();
    }
    stream.end();
    scene.desk_restarts();
    scene.server.verified();
    assert_eq!(scene.server.process.end(), 0);
}

#[test]
fn c69_two_nodes_share_a_log_and_one_that_slept_through_its_lease_writes_only_with_a_new_one() {
    let one = Server::start_with(Store::Etcd, &SETTINGS);
    let two = one.another_node();
    let id = |server: &Server| server.api().get("/v1/server")["node"].as_str().unwrap().to_owned();
    assert_ne!(id(&one), id(&two));
    let client = one.client("laptop");
    let mut agent = client.up();
    let body = |name: &str| json!({"name": name, "ingress": "port", "target_client": one.api().client_id("laptop"), "target": "127.0.0.1:9"});
    for round in 0..2 {
        one.api().post("/v1/mappings", &body(&format!("one-{round}")));
        one.process.signal(Signal::STOP);
        // Longer than the lease with all that etcd adds, while the other node writes.
        std::thread::sleep(Duration::from_secs(6));
        two.api().post(
            "/v1/mappings",
            &json!({"name": format!("two-{round}"), "ingress": "port",
            "target_client": two.api().client_id("laptop"), "target": "127.0.0.1:9"}),
        );
        one.process.signal(Signal::CONT);
        // It doesn't know how long it slept: whatever it is asked first, its old lease is worth nothing.
        eventually("it writes again", || {
            match one.api().call(Method::POST, "/v1/mappings", Some(&body(&format!("late-{round}")))) {
                (201, _) => Ok(()),
                (503, problem) if problem["code"] == "store.unavailable" => Err(format!("{problem}")),
                other => panic!("{other:?}"),
            }
        });
        becomes(&one, "/readyz", 200);
    }
    assert!(agent.runs());
    assert_eq!(agent.end(), 0);
    let heads = one.verified();
    assert!(two.verified() >= heads, "one log");
    let page = two.api().get("/v1/mappings?limit=500");
    assert_eq!(page["items"].as_array().unwrap().len(), 6, "{page}");
}

/// C69: the same id twice is only possible with a copy of the data folder.
#[test]
fn c69_a_node_whose_id_somebody_else_has_taken_goes_down_and_says_so() {
    let mut old = Server::start_with(Store::Etcd, &SETTINGS);
    old.client("laptop");
    old.process.signal(Signal::STOP);
    let new = old.copy();
    assert_eq!(old.data().file_name(), new.data().file_name());
    old.process.signal(Signal::CONT);
    assert_ne!(old.process.wait().code(), Some(0));
    assert!(old.process.stderr().contains("taken over"), "{}", old.process.stderr());
    becomes(&new, "/readyz", 200);
    new.client("desk");
    new.verified();
}
