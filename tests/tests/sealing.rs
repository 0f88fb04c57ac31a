//! What somebody on the way can read of a tunnel, and what comes of meddling with it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use underpass_tests::bytes::{dial, echo, echoes, service};
use underpass_tests::tap::Way as Direction;
use underpass_tests::tap::{DATA_HELLO_BYTES, MEDDLED_MIN, Meddle, Tap};
use underpass_tests::ways::{KINDS, Kind, Way};
use underpass_tests::{Server, Store, eventually, now};

/// Nobody sends this by chance.
const MARKER: &[u8] = b"<< the marker 7f3a9c51 that nobody may read >>";

/// A way whose clients reach the server through a tap.
fn tapped(kind: Kind, target: SocketAddr) -> (Tap, Way) {
    let tap = Tap::new();
    let server = Server::start_with(Store::Memory, &[("server.advertise", &tap.address.to_string())]);
    tap.leads_to(server.listen);
    let way = Way::over(server, kind, target);
    (tap, way)
}

/// Sends the marker there and back: first thing, in the middle of something, and in bulk.
fn show_marker(address: SocketAddr) {
    for around in [0, 1000, 200_000] {
        let mut stream = dial(address).unwrap();
        let message = [&vec![b'.'; around], MARKER, &vec![b'.'; around]].concat();
        let mut reader = stream.try_clone().unwrap();
        let reading = std::thread::spawn(move || {
            let mut answer = Vec::new();
            reader.read_to_end(&mut answer).unwrap();
            answer
        });
        stream.write_all(&message).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(reading.join().unwrap() == message, "the echo is another");
    }
}

#[test]
fn c32_a_marker_in_a_sealed_tunnel_is_in_no_capture() {
    for kind in [Kind::Public, Kind::Private] {
        let (tap, way) = tapped(kind, echo());
        show_marker(way.address);
        let data = tap.passages().iter().filter(|passage| passage.is_data()).count();
        // Of a private tunnel both halves of the way pass here.
        assert!(data >= if kind == Kind::Private { 2 } else { 1 }, "{kind:?}: {data} data channels");
        assert!(tap.recorded() > 2 * 400_000, "{kind:?}: the tunnels did not pass here");
        assert_eq!(tap.saw(MARKER), 0, "{kind:?}");
        // Nor does a capture show what lets somebody in, or what is said over links.
        for word in [&b"laptop"[..], b"127.0.0.1", b"hello"] {
            assert_eq!(tap.saw(word), 0, "{kind:?}: {}", String::from_utf8_lossy(word));
        }
    }
}

/// The same capture does show the marker where nothing is sealed: so the test above can fail.
#[test]
fn c32_a_marker_in_an_unsealed_tunnel_is_in_the_capture() {
    let (tap, way) = tapped(Kind::Plain, echo());
    show_marker(way.address);
    assert!(tap.saw(MARKER) > 0);

    // A private way, made by the administrator and switched to plain.
    let (tap, way) = tapped(Kind::Public, echo());
    let api = way.server.api();
    let _listening = way.other.up();
    let (target, listen) = (api.mapping("way")["target"].clone(), underpass_tests::free_address());
    api.post(
        "/v1/mappings",
        &json!({"name": "open", "ingress": "client", "listen_client": api.client_id("other"),
            "listen": listen.to_string(), "target_client": api.client_id("laptop"), "target": target,
            "seal": "off"}),
    );
    eventually("the other client listens", || echoes(listen));
    show_marker(listen);
    assert!(tap.saw(MARKER) >= 2, "on both halves of the way");
}

/// C32: switched from plain to sealed while it is used, nothing more is shown.
#[test]
fn c32_a_mapping_that_is_sealed_later_shows_nothing_from_then_on() {
    let (tap, way) = tapped(Kind::Plain, echo());
    let api = way.server.api();
    let path = format!("/v1/mappings/{}", api.mapping("way")["id"].as_str().unwrap());
    assert_eq!(api.call(Method::PATCH, &path, Some(&json!({"seal": "on"}))).0, 200);
    eventually("it is served sealed", || echoes(way.address));
    show_marker(way.address);
    assert_eq!(tap.saw(MARKER), 0);
}

/// A service that echoes, and keeps what it was sent on each connection.
fn keeping() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let kept = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
    let keeper = Arc::clone(&kept);
    let address = service(move |mut stream| {
        let number = {
            let mut kept = keeper.lock().unwrap();
            kept.push(Vec::new());
            kept.len() - 1
        };
        let mut chunk = [0; 16_384];
        while let Ok(read @ 1..) = stream.read(&mut chunk) {
            keeper.lock().unwrap()[number].extend_from_slice(&chunk[..read]);
            if stream.write_all(&chunk[..read]).is_err() {
                return;
            }
        }
    });
    (address, kept)
}

/// Numbered lines, each of which is one write and one record.
fn piece(number: u32) -> Vec<u8> {
    let line = format!("{number:08} ");
    line.repeat(2 * MEDDLED_MIN / line.len()).into_bytes()
}

/// What a caller got whose tunnel somebody meddles with.
struct Fared {
    sent: Vec<u8>,
    got: Vec<u8>,
    /// Whether the connection was cut.
    cut: bool,
}

/// Sends piece after piece, meddles after the third, and goes on until the tunnel ends or `pieces` are echoed.
fn meddled_with(tap: &Tap, address: SocketAddr, way: Direction, meddle: Meddle, pieces: u32) -> Fared {
    let mut stream: TcpStream = dial(address).unwrap();
    let mut fared = Fared { sent: Vec::new(), got: Vec::new(), cut: false };
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for number in 0..3 {
        let piece = piece(number);
        stream.write_all(&piece).unwrap();
        let mut answer = vec![0; piece.len()];
        stream.read_exact(&mut answer).unwrap();
        fared.sent.extend_from_slice(&piece);
        fared.got.extend_from_slice(&answer);
    }
    tap.meddle(way, meddle);
    let mut reader = stream.try_clone().unwrap();
    let got = Arc::new(Mutex::new(fared.got));
    let reading = std::thread::spawn({
        let got = Arc::clone(&got);
        move || {
            let mut chunk = [0; 16_384];
            loop {
                match reader.read(&mut chunk) {
                    Ok(0) => return false,
                    Ok(read) => got.lock().unwrap().extend_from_slice(&chunk[..read]),
                    Err(error) => return error.kind() == ErrorKind::ConnectionReset,
                }
            }
        }
    });
    let deadline = now() + Duration::from_secs(20);
    for number in 3..pieces {
        if reading.is_finished() || now() > deadline {
            break;
        }
        let piece = piece(number);
        if let Err(error) = stream.write_all(&piece) {
            // A socket tells of its reset once, to whoever asks first. After an end it is a broken pipe.
            fared.cut = error.kind() == ErrorKind::ConnectionReset;
            break;
        }
        fared.sent.extend_from_slice(&piece);
        std::thread::sleep(Duration::from_millis(20));
    }
    if !reading.is_finished() {
        let _ = stream.shutdown(Shutdown::Write);
    }
    fared.cut |= reading.join().unwrap();
    fared.got = std::mem::take(&mut got.lock().unwrap());
    fared
}

/// C32: each row is one way to meddle. The tunnel ends, and neither side ever gets a byte that was not sent.
#[test]
fn c32_whatever_is_changed_on_the_way_ends_the_tunnel_and_delivers_nothing_wrong() {
    let table = [
        ("the kind in the header", Meddle::Flip(0)),
        ("the flags in the header", Meddle::Flip(1)),
        ("the length in the header", Meddle::Flip(4)),
        ("the body", Meddle::Flip(700)),
        ("the tag", Meddle::Flip(-1)),
        ("replay", Meddle::Repeat),
        ("reorder", Meddle::Swap),
        ("leave out", Meddle::Drop),
        ("truncate", Meddle::Cut),
    ];
    for kind in [Kind::Public, Kind::Private] {
        let (target, kept) = keeping();
        let (tap, way) = tapped(kind, target);
        for direction in [Direction::ToServer, Direction::ToClient] {
            for (what, meddle) in table {
                let case = format!("{kind:?}, {direction:?}: {what}");
                let before = (tap.meddled(), kept.lock().unwrap().len());
                let fared = meddled_with(&tap, way.address, direction, meddle, 1000);
                assert_eq!(tap.meddled(), before.0 + 1, "{case}");
                assert!(fared.cut, "{case}: the tunnel goes on, or the caller was told an end");
                assert!(fared.sent.starts_with(&fared.got), "{case}: the caller got something else");
                let there = kept.lock().unwrap()[before.1].clone();
                assert!(fared.sent.starts_with(&there), "{case}: the target got something else");
                eventually("the next tunnel is as good as ever", || echoes(way.address));
            }
        }
    }
}

/// The same flip does deliver a wrong byte where nothing is sealed: so the test above can fail.
#[test]
fn c32_a_flip_in_an_unsealed_tunnel_is_delivered() {
    let (target, kept) = keeping();
    let (tap, way) = tapped(Kind::Plain, target);
    let fared = meddled_with(&tap, way.address, Direction::ToClient, Meddle::Flip(700), 10);
    assert_eq!(tap.meddled(), 1);
    let there = kept.lock().unwrap()[0].clone();
    assert_eq!(there.len(), fared.sent.len());
    let wrong = there.iter().zip(&fared.sent).filter(|(got, sent)| got != sent).count();
    assert_eq!(wrong, 1);
}

/// C28: what a captured data channel began with opens no channel, to nobody, and disturbs no tunnel.
#[test]
fn c28_a_ticket_that_was_seen_on_the_way_is_worth_nothing() {
    for kind in KINDS {
        let (tap, way) = tapped(kind, echo());
        let mut running = dial(way.address).unwrap();
        running.write_all(b"before").unwrap();
        running.read_exact(&mut [0; 6]).unwrap();
        let mut shown = 0;
        for passage in tap.passages().iter().filter(|passage| passage.is_data()) {
            let bytes = passage.bytes(Direction::ToServer);
            let Some(hello) = bytes.get(..DATA_HELLO_BYTES) else { continue };
            let mut forged = hello.to_vec();
            forged[DATA_HELLO_BYTES - 1] ^= 1;
            // As it was, with all that followed, and with another proof.
            for opening in [hello, &bytes, &forged] {
                let mut thief = dial(way.server.listen).unwrap();
                thief.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let _ = thief.write_all(opening);
                let mut answer = Vec::new();
                match thief.read_to_end(&mut answer) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{kind:?}"),
                }
                assert_eq!(answer, b"", "{kind:?}: it was answered");
                shown += 1;
            }
        }
        assert!(shown >= 3, "{kind:?}: no ticket was seen");
        running.write_all(b"after!").unwrap();
        let mut answer = [0; 6];
        running.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"after!", "{kind:?}");
        echoes(way.address).unwrap();
    }
}
