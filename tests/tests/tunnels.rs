//! What goes through a tunnel: every byte, both ways at once, to the very end of each direction.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use underpass_tests::bytes::{dial, drain, echoes, pour, service};
use underpass_tests::ways::{KINDS, Kind, Way};
use underpass_tests::{SOON, eventually, torture};

const MIB: u64 = 1 << 20;

/// What a service was sent by one caller: how much, and its hash.
type Heard = Receiver<(u64, String)>;

/// A service that sends `total` bytes while it reads what the caller sends, to the end.
fn talker(total: u64) -> (SocketAddr, Heard) {
    let (tell, heard) = sync_channel(1);
    let address = service(move |stream| {
        let writer = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            let _ = pour(&writer, 2, total);
            let _ = writer.shutdown(Shutdown::Write);
        });
        if let Ok(all) = drain(&stream) {
            let _ = tell.send(all);
        }
        writing.join().unwrap();
    });
    (address, heard)
}

/// What [`pour`] sends of `total` bytes.
fn hash(seed: u64, total: u64) -> String {
    pour(std::io::sink(), seed, total).unwrap()
}

/// C24: as much each way at once, compared by hash.
#[track_caller]
fn all_arrives_both_ways(kind: Kind, total: u64) {
    let (target, heard) = talker(total);
    let way = Way::to(kind, target);
    let stream = dial(way.address).unwrap();
    let reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || drain(reader).unwrap());
    let sent = pour(&stream, 1, total).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reading.join().unwrap(), (total, hash(2, total)), "{kind:?}: what the caller got");
    let there = heard.recv_timeout(SOON).unwrap();
    assert_eq!(there, (total, sent), "{kind:?}: what the target got");
}

/// So much that bulk is in full flow for a while; all three are a GiB when there is time.
fn bulk() -> u64 {
    if torture() > 1 { 1024 * MIB } else { 256 * MIB }
}

#[test]
fn c24_a_gib_each_way_at_once_arrives_over_a_public_port() {
    all_arrives_both_ways(Kind::Public, 1024 * MIB);
}

#[test]
fn c24_all_arrives_both_ways_at_once_where_the_bare_stream_is_spliced() {
    all_arrives_both_ways(Kind::Plain, bulk());
}

#[test]
fn c24_all_arrives_both_ways_at_once_from_end_to_end() {
    all_arrives_both_ways(Kind::Private, bulk());
}

/// What a half-closed direction still carries the other way.
const AFTER_FIN: u64 = 100 * MIB;

/// Ends its own direction after a greeting, then reads on.
fn early_leaver() -> (SocketAddr, Heard) {
    let (tell, heard) = sync_channel(1);
    let address = service(move |mut stream| {
        let _ = stream.write_all(b"goodbye").and_then(|()| stream.shutdown(Shutdown::Write));
        if let Ok(all) = drain(&stream) {
            let _ = tell.send(all);
        }
    });
    (address, heard)
}

#[test]
fn c25_a_caller_that_ends_early_still_gets_all_that_follows() {
    for kind in KINDS {
        let target = service(|mut stream| {
            let mut request = Vec::new();
            if stream.read_to_end(&mut request).is_ok() && request == b"send me everything" {
                let _ = pour(&stream, 3, AFTER_FIN);
            }
        });
        let way = Way::to(kind, target);
        let mut stream = dial(way.address).unwrap();
        stream.write_all(b"send me everything").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&stream).unwrap(), (AFTER_FIN, hash(3, AFTER_FIN)), "{kind:?}");
    }
}

#[test]
fn c25_a_target_that_ends_early_still_gets_all_that_follows() {
    for kind in KINDS {
        let (target, heard) = early_leaver();
        let mut way = Way::to(kind, target);
        let mut stream = dial(way.address).unwrap();
        let mut greeting = Vec::new();
        stream.read_to_end(&mut greeting).unwrap();
        assert_eq!(greeting, b"goodbye", "{kind:?}");
        let sent = pour(&stream, 4, AFTER_FIN).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let closed = way.offering.expect("tunnel_closed");
        assert_eq!(closed["how"], "finished", "{kind:?}: {closed}");
        assert_eq!(heard.recv_timeout(SOON).unwrap(), (AFTER_FIN, sent), "{kind:?}");
        // Both directions are over: so is the caller's connection.
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "{kind:?}");
    }
}

/// C25: neither side says anything before the other has ended, many times over the same channels.
#[test]
fn c25_short_tunnels_end_in_order_one_after_another() {
    for kind in KINDS {
        let target = service(|mut stream| {
            let mut request = Vec::new();
            let _ = stream.read_to_end(&mut request);
            let _ = stream.write_all(&request);
        });
        let way = Way::to(kind, target);
        for round in 0..50 * torture() {
            let mut stream = dial(way.address).unwrap();
            let request = format!("{kind:?} {round}");
            stream.write_all(request.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, request);
        }
    }
}

/// The memory of a process, in bytes.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// C35: what one reader does not take stays with its sender, and does not stop or slow the others.
#[test]
fn c35_a_reader_that_stalls_costs_its_own_tunnel_only() {
    const MUCH: u64 = 256 * MIB;
    const OTHERS: u64 = 64 * MIB;
    let target = service(|mut stream| {
        let mut which = [0; 1];
        if stream.read_exact(&mut which).is_ok() {
            let _ = pour(&stream, 5, if which == *b"s" { MUCH } else { OTHERS });
        }
    });
    for kind in KINDS {
        let way = Way::to(kind, target);
        let ask = |which: &[u8]| -> TcpStream {
            let mut stream = dial(way.address).unwrap();
            stream.write_all(which).unwrap();
            stream
        };
        // Warm, so that what is measured is not the first use of anything.
        drop(drain(ask(b"o")).unwrap());
        let before = resident(way.server.process.id()) + resident(way.offering.id());
        let stalled = ask(b"s");
        let fast: Vec<_> = (0..2)
            .map(|_| ask(b"o"))
            .map(|stream| std::thread::spawn(move || drain(stream).unwrap()))
            .collect();
        for one in fast {
            assert_eq!(one.join().unwrap(), (OTHERS, hash(5, OTHERS)), "{kind:?}: beside the stalled one");
        }
        let grown = (resident(way.server.process.id()) + resident(way.offering.id())).saturating_sub(before);
        assert!(grown < 48 * MIB, "{kind:?}: {grown} bytes more for a reader that does not read");
        // It was slow, not dead: all is there when it reads at last.
        assert_eq!(drain(stalled).unwrap(), (MUCH, hash(5, MUCH)), "{kind:?}: the stalled one");
    }
}

/// C26, on a small scale: what ends in the middle leaves nothing behind.
#[test]
fn c26_tunnels_that_are_aborted_give_their_sockets_back() {
    let descriptors = |process: u32| std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    for kind in KINDS {
        let target = service(|stream| {
            let _ = pour(&stream, 6, 4 * MIB);
        });
        let way = Way::to(kind, target);
        let mut processes = vec![way.server.process.id(), way.offering.id()];
        processes.extend(way.listening.as_ref().map(underpass_tests::Process::id));
        for _ in 0..100 * torture() {
            let mut stream = dial(way.address).unwrap();
            let _ = stream.read_exact(&mut [0; 1000]);
            // Closed with bytes unread: a reset.
        }
        eventually("the tunnels are gone from the API", || {
            let mapping = &way.server.api().get("/v1/mappings?limit=1")["items"][0]["id"];
            let live = way.server.api().get(&format!("/v1/mappings/{}", mapping.as_str().unwrap()));
            let running = live["live"]["tunnels"].as_u64().unwrap();
            if running == 0 { Ok(()) } else { Err(format!("{running} left")) }
        });
        // A client keeps some channels parked, at most 64 for each role; a tunnel took two sockets and more.
        for process in processes {
            eventually("sockets are given back", || {
                let open = descriptors(process);
                if open < 160 { Ok(()) } else { Err(format!("{open} descriptors are open ({kind:?})")) }
            });
        }
        std::thread::sleep(Duration::from_millis(100));
        let target = underpass_tests::bytes::echo();
        let (_again, public) = way.laptop.expose(&[&target.to_string(), "--name", "again"]);
        echoes(public).unwrap();
    }
}
