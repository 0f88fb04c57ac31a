//! Where a mapping listens, and what a change of one mapping means to the others and to tunnels that run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use underpass_tests::bytes::{Reached, call, dial, echo, echoes};
use underpass_tests::{Client, Server, Store, eventually, free_address, now};

/// Tunnels of what is over end within two seconds; a busy machine gets more.
const ENDED: Duration = Duration::from_secs(10);

/// A tunnel that echoes, and stays.
struct Tunnel(TcpStream);

impl Tunnel {
    #[track_caller]
    fn through(address: SocketAddr) -> Self {
        let mut tunnel = Self(dial(address).unwrap());
        tunnel.lives();
        tunnel
    }

    #[track_caller]
    fn lives(&mut self) {
        let mut answer = [0; 4];
        self.0.write_all(b"here").unwrap();
        self.0.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"here");
    }

    /// Fails the test unless it is cut soon.
    #[track_caller]
    fn is_cut(&mut self, what: &str) {
        self.0.set_read_timeout(Some(ENDED)).unwrap();
        match self.0.read(&mut [0; 1]) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// Nobody gets through any more: sent away at the target or, with the listener gone, before.
#[track_caller]
fn is_closed(address: SocketAddr, what: &str) {
    eventually(what, || match call(address) {
        Reached::Nobody => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// `expose` by a running agent.
#[track_caller]
fn expose(client: &Client, target: SocketAddr, name: &str) -> SocketAddr {
    let done = client.run(&["expose", &target.to_string(), "--name", name, "--detach"]);
    done.text("public").parse().unwrap()
}

/// A mapping of this kind made by the administrator: `other` listens, `laptop` dials.
fn private(server: &Server, name: &str, listen: SocketAddr, target: SocketAddr) -> String {
    let api = server.api();
    let made = api.post(
        "/v1/mappings",
        &json!({"name": name, "ingress": "client", "listen_client": api.client_id("other"),
            "listen": listen.to_string(), "target_client": api.client_id("laptop"),
            "target": target.to_string()}),
    );
    made["id"].as_str().unwrap().to_owned()
}

fn on(ip: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port)
}

#[test]
fn c22_a_listener_binds_exactly_the_address_asked_for() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let target = echo();
    // The server listens on 127.0.0.1, and so do its public ports.
    let (_exposing, public) = laptop.expose(&[&target.to_string(), "--name", "web"]);
    assert_eq!(call(public), Reached::Answers);
    assert_eq!(call(on([127, 0, 0, 2], public.port())), Reached::Nobody);

    let (_sharing, code) = laptop.share(&target.to_string());
    let wanted = on([127, 0, 0, 3], free_address().port());
    let mut connecting = other.start(&["connect", &code, "--listen", &wanted.to_string()]);
    assert_eq!(connecting.expect("open")["listen"], wanted.to_string());
    assert_eq!(call(wanted), Reached::Answers);
    for elsewhere in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        assert_eq!(call(on(elsewhere, wanted.port())), Reached::Nobody);
    }
}

/// The row of `ls` with this name.
#[track_caller]
fn row(client: &Client, name: &str) -> Value {
    let listed = client.run(&["ls"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    listed.lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{listed:?}")).clone()
}

#[test]
fn c22_a_public_port_in_use_is_reported_hurts_nobody_else_and_recovers() {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let target = echo();
    let mut agent = laptop.up();
    let first = expose(&laptop, target, "first");
    // The server would have picked the next one.
    let (taken, port) = (first.port() + 1..)
        .find_map(|port| TcpListener::bind(on([127, 0, 0, 1], port)).ok().map(|taken| (taken, port)))
        .unwrap();
    let done = laptop.run(&[
        "expose",
        &target.to_string(),
        "--name",
        "second",
        "--port",
        &port.to_string(),
        "--detach",
    ]);
    let second: SocketAddr = done.text("public").parse().unwrap();
    assert_eq!(second.port(), port);

    eventually("the API says so", || match server.api().end_state("second", None).as_deref() {
        Some("port_in_use") => Ok(()),
        state => Err(format!("{state:?}")),
    });
    let shown = row(&laptop, "second");
    assert!(shown["problem"].as_str().is_some_and(|problem| problem.contains("in use")), "{shown}");
    assert_eq!(row(&laptop, "first")["problem"], Value::Null);
    assert_eq!(call(first), Reached::Answers, "another mapping of the same client");
    let third = expose(&laptop, target, "third");
    assert_eq!(call(third), Reached::Answers, "a mapping made after it");

    drop(taken);
    eventually("it listens when the port is free", || echoes(second));
    assert_eq!(server.api().end_state("second", None).as_deref(), Some("listening"));
    eventually("and `ls` has nothing to say of it", || match &row(&laptop, "second")["problem"] {
        Value::Null => Ok(()),
        problem => Err(problem.to_string()),
    });
    assert_eq!(agent.end(), 0);
}

#[test]
fn c22_a_local_port_in_use_is_reported_hurts_nobody_else_and_recovers() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let target = echo();
    let mut offering = laptop.start(&["up", "--allow", &target.to_string()]);
    offering.expect("connected");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (busy, free) = (taken.local_addr().unwrap(), free_address());
    private(&server, "free", free, target);
    private(&server, "busy", busy, target);

    let mut listening = other.start(&["up"]);
    let failed = listening.expect("mapping_failed");
    assert_eq!(failed["code"], "listen.in_use", "{failed}");
    let other_id = server.api().client_id("other");
    eventually("the API says so", || match server.api().end_state("busy", Some(&other_id)).as_deref() {
        Some("port_in_use") => Ok(()),
        state => Err(format!("{state:?}")),
    });
    let shown = row(&other, "busy");
    assert!(shown["problem"].as_str().is_some_and(|problem| problem.contains("in use")), "{shown}");
    eventually("the other mapping works", || echoes(free));

    drop(taken);
    eventually("it listens when the port is free", || echoes(busy));
    assert_eq!(server.api().end_state("busy", Some(&other_id)).as_deref(), Some("listening"));
    echoes(free).unwrap();

    // Who asks for a port in use on the command line is told at once, and the code is not spent.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let shared = laptop.run(&["share", &target.to_string(), "--detach"]);
    let code = shared.text("code");
    let listen = taken.local_addr().unwrap().to_string();
    other.run(&["connect", &code, "--listen", &listen, "--detach"]).failed(1, "listen.in_use");
    drop(taken);
    let done = other.run(&["connect", &code, "--listen", &listen, "--detach"]);
    assert_eq!(done.text("listen"), listen);
    echoes(listen.parse().unwrap()).unwrap();
}

#[test]
fn c19_adding_and_removing_mappings_leaves_the_others_and_their_tunnels_alone() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let target = echo();
    let _offering = laptop.up();
    let _listening = other.up();
    let stays = expose(&laptop, target, "stays");
    let private_stays = free_address();
    private(&server, "private", private_stays, target);
    eventually("both ways work", || echoes(stays).and_then(|()| echoes(private_stays)));
    let mut tunnels = [Tunnel::through(stays), Tunnel::through(private_stays)];

    for round in 0..10 {
        let name = format!("more-{round}");
        let more = expose(&laptop, target, &name);
        let listen = free_address();
        let private_more = private(&server, &format!("private-{round}"), listen, target);
        eventually("the new ones work", || echoes(more).and_then(|()| echoes(listen)));
        let mut ends = [Tunnel::through(more), Tunnel::through(listen)];
        // The others never stop to listen, not for a moment: a caller now is a caller served.
        let (watched, over) = (stays, std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let watching = std::thread::spawn({
            let over = std::sync::Arc::clone(&over);
            move || {
                let mut calls = 0;
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(call(watched), Reached::Answers);
                    assert_eq!(call(private_stays), Reached::Answers);
                    calls += 1;
                }
                calls
            }
        });
        assert_eq!(laptop.run(&["rm", &name]).code, 0);
        let (status, _) = server.api().call(Method::DELETE, &format!("/v1/mappings/{private_more}"), None);
        assert_eq!(status, 200);
        for tunnel in &mut ends {
            tunnel.is_cut("a tunnel of a removed mapping");
        }
        is_closed(more, "the removed port");
        is_closed(listen, "the removed local port");
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(watching.join().unwrap() > 0);
        for tunnel in &mut tunnels {
            tunnel.lives();
        }
    }
}

#[test]
fn c20_a_client_that_was_away_has_the_right_set_after_it_is_back() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let target = echo();
    let allow = target.to_string();
    let mut offering = laptop.start(&["up", "--allow", &allow]);
    offering.expect("connected");
    let mut listening = other.up();
    let (kept, gone) = (expose(&laptop, target, "kept"), expose(&laptop, target, "gone"));
    let (kept_listen, gone_listen) = (free_address(), free_address());
    private(&server, "kept-private", kept_listen, target);
    let gone_private = private(&server, "gone-private", gone_listen, target);
    for address in [kept, gone, kept_listen, gone_listen] {
        eventually("all is served", || echoes(address));
    }

    // Both are away, one of them without a goodbye.
    offering.kill();
    assert_eq!(listening.end(), 0);
    let api = server.api();
    for id in [api.mapping("gone")["id"].as_str().unwrap(), &gone_private] {
        assert_eq!(api.call(Method::DELETE, &format!("/v1/mappings/{id}"), None).0, 200);
    }
    let new = api.post(
        "/v1/mappings",
        &json!({"name": "new", "ingress": "port", "target_client": api.client_id("laptop"),
            "target": allow}),
    );
    let new = on([127, 0, 0, 1], u16::try_from(new["port"].as_u64().unwrap()).unwrap());
    let new_listen = free_address();
    private(&server, "new-private", new_listen, target);

    let mut offering = laptop.start(&["up", "--allow", &allow]);
    offering.expect("connected");
    let mut listening = other.up();
    for address in [kept, new, kept_listen, new_listen] {
        eventually("the right ones are served", || echoes(address));
    }
    for address in [gone, gone_listen] {
        assert_eq!(call(address), Reached::Nobody, "{address}");
    }
    assert_eq!((offering.end(), listening.end()), (0, 0));
}

/// Ends the mapping with this path in the API.
type End<'a> = &'a dyn Fn(&str);

/// C21: each row is one way in which a mapping ends or pauses, and whether it can come back.
#[test]
fn c21_tunnels_of_what_is_over_end_soon_and_nobody_gets_in_any_more() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let target = echo();
    let mut offering = laptop.start(&["up", "--allow", &target.to_string()]);
    offering.expect("connected");
    let _listening = other.up();
    let api = server.api();
    let bystander = expose(&laptop, target, "bystander");
    let mut beside = Tunnel::through(bystander);

    let table: [(&str, End, bool); 3] = [
        ("removed", &|id| assert_eq!(api.call(Method::DELETE, id, None).0, 200), false),
        ("disabled", &|id| assert_eq!(api.call(Method::POST, &format!("{id}/disable"), None).0, 200), true),
        (
            "expired",
            &|id| {
                let soon = server_time_in(Duration::from_secs(2));
                let (status, answer) = api.call(Method::PATCH, id, Some(&json!({"expires_at": soon})));
                assert_eq!(status, 200, "{answer}");
            },
            false,
        ),
    ];
    for (what, end, back) in table {
        let public = expose(&laptop, target, &format!("{what}-public"));
        let listen = free_address();
        private(&server, &format!("{what}-private"), listen, target);
        eventually("both are served", || echoes(public).and_then(|()| echoes(listen)));
        for (name, address) in [("public", public), ("private", listen)] {
            let id = api.mapping(&format!("{what}-{name}"))["id"].as_str().unwrap().to_owned();
            let path = format!("/v1/mappings/{id}");
            let mut tunnel = Tunnel::through(address);
            end(&path);
            tunnel.is_cut(&format!("{what} ({name})"));
            is_closed(address, &format!("{what} ({name})"));
            beside.lives();
            if back {
                assert_eq!(api.call(Method::POST, &format!("{path}/enable"), None).0, 200);
                eventually("it is back", || echoes(address));
            }
        }
    }

    // A blocked client serves nothing, on either end.
    let public = expose(&laptop, target, "blocked-public");
    let listen = free_address();
    private(&server, "blocked-private", listen, target);
    eventually("both are served", || echoes(public).and_then(|()| echoes(listen)));
    let mut tunnels = [Tunnel::through(public), Tunnel::through(listen)];
    let laptop_id = api.client_id("laptop");
    let (status, answer) =
        api.call(Method::POST, &format!("/v1/clients/{laptop_id}/block"), Some(&json!({"reason": "a test"})));
    assert_eq!(status, 200, "{answer}");
    for tunnel in &mut tunnels {
        tunnel.is_cut("its client is blocked");
    }
    beside.is_cut("its client is blocked");
    is_closed(public, "the port of a blocked client");
}

/// A time of the server's clock, which is ours.
fn server_time_in(later: Duration) -> String {
    let epoch = std::process::Command::new("date")
        .args(["-u", "-d", &format!("+{} seconds", later.as_secs()), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .unwrap();
    String::from_utf8(epoch.stdout).unwrap().trim().to_owned()
}

/// C21: access given by a code ends on time, its tunnels with it.
#[test]
fn c21_access_by_a_code_ends_with_its_time() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let (_sharing, code) = laptop.share(&echo().to_string());
    let (mut connecting, listen) = other.connect(&code);
    let api = server.api();
    let mapping = api.get("/v1/mappings")["items"][0].clone();
    // The shortest access is a minute; the administrator may cut it shorter.
    assert!(mapping["expires_at"].is_string() && mapping["code"].is_string(), "{mapping}");
    let mut tunnel = Tunnel::through(listen);
    let path = format!("/v1/mappings/{}", mapping["id"].as_str().unwrap());
    let soon = server_time_in(Duration::from_secs(2));
    assert_eq!(api.call(Method::PATCH, &path, Some(&json!({"expires_at": soon}))).0, 200);
    let started = now();
    tunnel.is_cut("its time is over");
    assert!(started.elapsed() > Duration::from_millis(500), "not before");
    is_closed(listen, "its time is over");
    connecting.expect("mapping_gone");
    assert_eq!(api.call(Method::GET, &path, None).0, 404);
}
