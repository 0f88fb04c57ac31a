//! Who gets no tunnel, how soon it is told so, and what ends a tunnel that runs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use underpass_tests::bytes::{Reached, call, dial, echo, echoes, service};
use underpass_tests::ways::{KINDS, Kind, Way};
use underpass_tests::{Server, Store, eventually, free_address, now, torture};

/// A caller is told within a second. A busy machine gets more, but less than any time-out on the way has
/// (the nearest is the 10 s of the dial), so that waiting for one shows.
const TOLD: Duration = Duration::from_secs(5);

/// The caller is reset, and soon.
#[track_caller]
fn is_reset_soon(address: SocketAddr, what: &str) {
    let started = now();
    assert_eq!(call(address), Reached::Reset, "{what}");
    assert!(started.elapsed() < TOLD, "{what}: told after {:?}", started.elapsed());
}

#[test]
fn c27_a_caller_is_reset_soon_when_the_target_refuses_and_served_when_it_does_not() {
    for kind in KINDS {
        let target = free_address();
        let mut way = Way::to(kind, target);
        for round in 0..3 {
            is_reset_soon(way.address, &format!("{kind:?}, nobody listens at the target, round {round}"));
        }
        let refused = way.offering.expect("tunnel_refused");
        assert_eq!(refused["code"], "target.refused", "{refused}");

        // Success is told when the target is connected, and not before.
        let listener = TcpListener::bind(target).unwrap();
        let mut caller = dial(way.address).unwrap();
        caller.write_all(b"hello").unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        way.offering.expect("tunnel_opened");
        let mut heard = [0; 5];
        accepted.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello", "what came before the target was connected is not lost");
        let early = way.offering.event_within("tunnel_opened", Duration::ZERO);
        assert!(early.is_none(), "one target connected, two tunnels: {early:?}");
    }
}

#[test]
fn c27_a_caller_is_reset_soon_when_the_target_client_is_offline() {
    for kind in KINDS {
        let mut way = Way::to(kind, echo());
        assert_eq!(call(way.address), Reached::Answers, "{kind:?}");
        way.offering.end();
        eventually("the client is gone", || match call(way.address) {
            Reached::Reset => Ok(()),
            other => Err(format!("{other:?}")),
        });
        is_reset_soon(way.address, &format!("{kind:?}, the target's client is offline"));
        let _back = way.laptop.up();
        eventually("it serves again", || echoes(way.address));
    }
}

/// C29: so many callers at once, and exactly as many tunnels as are allowed.
#[test]
fn c29_of_a_thousand_callers_at_once_exactly_as_many_as_allowed_get_in() {
    const ALLOWED: usize = 10;
    const THREADS: usize = 20;
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let target = echo().to_string();
    let (_agent, public) = laptop.expose(&[&target, "--name", "few", "--max-connections", "10"]);
    // Another mapping of the same client has room of its own.
    let (_other, roomy) = laptop.expose(&[&target, "--name", "roomy"]);

    for round in 0..=torture() {
        let start = Arc::new(std::sync::Barrier::new(THREADS));
        let racers: Vec<_> = (0..THREADS)
            .map(|_| {
                let start = Arc::clone(&start);
                std::thread::spawn(move || {
                    start.wait();
                    let callers: Vec<TcpStream> =
                        (0..1000 / THREADS).filter_map(|_| dial(public).ok()).collect();
                    // Who got in stays in until everybody knows how it fared.
                    let fared: Vec<_> = callers.into_iter().map(gets_in).collect();
                    fared.into_iter().flatten().collect::<Vec<_>>()
                })
            })
            .collect();
        let inside: Vec<_> = racers.into_iter().flat_map(|racer| racer.join().unwrap()).collect();
        assert_eq!(inside.len(), ALLOWED, "round {round}");
        assert_eq!(call(public), Reached::Reset, "one more is one too many");
        assert_eq!(call(roomy), Reached::Answers, "the limit is of one mapping");
        let mut inside = inside.into_iter();
        // One leaves: there is room for one, and for one only.
        drop(inside.next());
        let mut next = None;
        eventually("room is given back", || {
            next = dial(public).ok().and_then(gets_in);
            next.is_some().then_some(()).ok_or_else(|| "still full".to_owned())
        });
        assert_eq!(call(public), Reached::Reset, "room for one is no room for two");
        drop((next, inside));
        let mut all: Vec<TcpStream> = Vec::new();
        eventually("all room is given back", || {
            all.extend(dial(public).ok().and_then(gets_in));
            if all.len() == ALLOWED { Ok(()) } else { Err(format!("{} in", all.len())) }
        });
        assert_eq!(call(public), Reached::Reset, "and not more than all");
        drop(all);
        eventually("it is empty for the next round", || {
            let running = server.api().mapping("few")["live"]["tunnels"].as_u64().unwrap();
            if running == 0 { Ok(()) } else { Err(format!("{running} tunnels run")) }
        });
    }
}

/// The caller again, if there is a tunnel for it.
fn gets_in(mut caller: TcpStream) -> Option<TcpStream> {
    let mut answer = [0; 1];
    match caller.write_all(b"?").and_then(|()| caller.read_exact(&mut answer)) {
        Ok(()) => Some(caller),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => None,
        Err(error) => panic!("neither served nor reset: {error}"),
    }
}

/// C34: silence ends a tunnel, a byte now and then keeps it.
#[test]
fn c34_silent_tunnels_end_at_their_limit_and_active_ones_do_not() {
    for kind in KINDS {
        let way = Way::to(kind, echo());
        let api = way.server.api();
        let mapping = api.get("/v1/mappings")["items"][0]["id"].as_str().unwrap().to_owned();
        let (status, changed) =
            api.call(Method::PATCH, &format!("/v1/mappings/{mapping}"), Some(&json!({"idle_timeout_s": 2})));
        assert_eq!((status, &changed["idle_timeout_s"]), (200, &json!(2)));
        // The change takes a moment to the client; the server goes by it at once.
        std::thread::sleep(Duration::from_millis(300));
        let mut silent = gets_in(dial(way.address).unwrap()).unwrap();
        let mut active = gets_in(dial(way.address).unwrap()).unwrap();
        let started = now();
        let watching = std::thread::spawn(move || {
            let ended = silent.read(&mut [0; 1]);
            (ended, started.elapsed())
        });
        while started.elapsed() < Duration::from_secs(6) {
            active.write_all(b"!").unwrap();
            let mut answer = [0; 1];
            active.read_exact(&mut answer).unwrap();
            std::thread::sleep(Duration::from_millis(250));
        }
        let (ended, after) = watching.join().unwrap();
        assert!(ended.is_err(), "{kind:?}: a cut is a reset, not an end: {ended:?}");
        assert!(after >= Duration::from_millis(1900), "{kind:?}: it ended after {after:?} already");
        assert!(after < Duration::from_secs(12), "{kind:?}: it ended after {after:?}");
        active.write_all(b"!").unwrap();
        active.read_exact(&mut [0; 1]).unwrap_or_else(|error| panic!("{kind:?}: the active one: {error}"));
    }
}

#[test]
fn c34_the_idle_timeout_of_expose_holds() {
    let server = Server::start(Store::Memory);
    let laptop = server.client("laptop");
    let (mut agent, public) = laptop.expose(&[&echo().to_string(), "--name", "web", "--idle-timeout", "1"]);
    let mut silent = gets_in(dial(public).unwrap()).unwrap();
    assert!(silent.read(&mut [0; 1]).is_err());
    let closed = agent.expect("tunnel_closed");
    assert!(["idle", "reset"].contains(&closed["how"].as_str().unwrap()), "{closed}");
}

/// A service that counts its callers.
fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let address = service(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut copy = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut stream, &mut copy);
    });
    (address, count)
}

/// C34: whatever a server names, the agent dials only what its own user has let it.
#[test]
fn c34_a_client_dials_nothing_that_it_never_offered() {
    let server = Server::start(Store::Memory);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let (offered, _) = counting();
    let (secret, callers) = counting();
    let (mut agent, public) = laptop.expose(&[&offered.to_string(), "--name", "web"]);
    let _listening = other.up();
    let api = server.api();
    let laptop_id = api.client_id("laptop");

    // At a public port, at another client, and by turning an exposed mapping round.
    let port = api.post(
        "/v1/mappings",
        &json!({"name": "sly", "ingress": "port", "target_client": laptop_id, "target": secret.to_string()}),
    )["port"]
        .as_u64()
        .unwrap();
    let sly = SocketAddr::new(public.ip(), u16::try_from(port).unwrap());
    let listen = free_address();
    api.post(
        "/v1/mappings",
        &json!({"name": "slyer", "ingress": "client", "listen_client": api.client_id("other"),
            "listen": listen.to_string(), "target_client": laptop_id, "target": secret.to_string()}),
    );
    eventually("the client says no", || match api.end_state("sly", Some(&laptop_id)).as_deref() {
        Some("denied") => Ok(()),
        state => Err(format!("{state:?}")),
    });
    eventually("it says so of the other one", || match api.end_state("slyer", Some(&laptop_id)).as_deref() {
        Some("denied") => Ok(()),
        state => Err(format!("{state:?}")),
    });
    eventually("the port is open", || match call(sly) {
        Reached::Reset => Ok(()),
        other => Err(format!("{other:?}")),
    });
    eventually("so is the other's", || match call(listen) {
        Reached::Reset => Ok(()),
        other => Err(format!("{other:?}")),
    });
    is_reset_soon(sly, "a denied target");
    let refused = agent.event_within("tunnel_refused", Duration::from_secs(1));
    assert!(refused.is_none(), "`expose` shows what concerns its mapping: {refused:?}");

    // The mapping of `expose` keeps its name, and gets another target.
    let web = api.mapping("web");
    let (status, _) = api.call(
        Method::PATCH,
        &format!("/v1/mappings/{}", web["id"].as_str().unwrap()),
        Some(&json!({"target": secret.to_string()})),
    );
    assert_eq!(status, 200);
    eventually("the client sees the change", || match call(public) {
        Reached::Reset => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(callers.load(Ordering::SeqCst), 0, "the target was dialled");

    // The same target, once this client's user wants it.
    drop(agent);
    let mut up = laptop.start(&["up", "--allow", &secret.to_string()]);
    up.expect("connected");
    for address in [sly, listen, public] {
        eventually("it is allowed", || match call(address) {
            Reached::Answers => Ok(()),
            other => Err(format!("{address}: {other:?}")),
        });
    }
    assert!(callers.load(Ordering::SeqCst) >= 3);
}

/// C36: a server out of descriptors refuses or lets wait, and is as before when there are some again.
#[test]
fn c36_a_server_out_of_descriptors_recovers() {
    let way = Way::to(Kind::Public, echo());
    let open = std::fs::read_dir(format!("/proc/{}/fd", way.server.process.id())).unwrap().count();
    let limit = u64::try_from(open + 20).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(way.server.process.id()).unwrap());
    let maximum = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let old = rustix::process::prlimit(
        pid,
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: Some(limit), maximum },
    );
    assert!(old.is_ok(), "{old:?}");
    let hold: Vec<TcpStream> = (0..60).filter_map(|_| TcpStream::connect(way.address).ok()).collect();
    assert!(hold.len() > 20, "the kernel accepts");
    let running = gets_in_within(&hold, Duration::from_millis(500));
    assert!(running < hold.len(), "all of {} got in, so there was no limit", hold.len());
    for caller in hold {
        // Gone for good, and not half-closed, which would leave the server waiting for the target's answer.
        socket2::SockRef::from(&caller).set_linger(Some(Duration::ZERO)).unwrap();
    }
    eventually("there is room again", || echoes(way.address));
}

/// How many of these get an answer in this time.
fn gets_in_within(callers: &[TcpStream], patience: Duration) -> usize {
    let asked = callers.iter().filter(|caller| {
        let mut caller = *caller;
        caller.set_read_timeout(Some(patience / 10)).unwrap();
        caller.write_all(b"?").and_then(|()| caller.read_exact(&mut [0; 1])).is_ok()
    });
    asked.count()
}
