//! How tunnels end when something fails: told to both sides, soon, and never as an end of stream.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use common::{Endless, Net, Pattern, Rig, WAYS, Way, ends, pair, rig, rig_over, run, tcp_pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use underpass_pipeline::{Opener, Sealer, record};
use underpass_relay::{BULK_AFTER, Duplex, How, LINGER, Options, RecordChannel, RecordError};

static MESSAGE: [u8; 65_536] = [1; 65_536];

/// Nothing is left of a tunnel two seconds after either end died; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(10);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.expect("in time")
}

async fn is_reset(stream: &mut Duplex) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match soon(stream.read(&mut buffer)).await {
            Ok(0) => return false,
            Ok(_) => {}
            Err(failure) => return failure.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// The close that follows is a reset.
fn reset(stream: &Duplex) {
    stream.tcp().unwrap().set_zero_linger().unwrap();
}

/// A reset of one side is a reset of the other; what carried records carries the next tunnel.
#[tokio::test]
async fn a_reset_passes_through_in_both_directions() {
    for way in WAYS {
        for caller_resets in [true, false] {
            let Rig { mut caller, mut target, near, far } = rig(Net::Tcp, way, Options::default()).await;
            caller.write_all(b"hello").await.unwrap();
            target.read_exact(&mut [0; 5]).await.unwrap();
            let (first, mut second, first_end, second_end) =
                if caller_resets { (caller, target, near, far) } else { (target, caller, far, near) };
            reset(&first);
            drop(first);
            assert!(is_reset(&mut second).await, "{way:?}");
            let (first_ended, _) = soon(first_end.ended()).await;
            let (second_ended, _) = soon(second_end.ended()).await;
            assert!(matches!(first_ended.how, How::PlainFailed(_)), "{first_ended:?}");
            assert!(matches!(second_ended.how, How::Reset), "{second_ended:?}");
            assert!(first_ended.channel_reusable() && second_ended.channel_reusable());
        }
    }
}

/// The same in the middle of bulk, with both directions full; raw, where the way is plain. A socket
/// tells of its reset once, to whoever asks first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_in_the_middle_of_bulk_is_never_an_end_of_stream() {
    for way in WAYS {
        let Rig { mut caller, target, near, far } = rig(Net::Tcp, way, Options::default()).await;
        let (mut target_read, mut target_write) = tokio::io::split(target);
        let pattern = Pattern::new(1);
        let send = async {
            let _ = pattern.write(&mut caller, 2 * usize::try_from(BULK_AFTER).unwrap() + 77_777).await;
            reset(&caller);
            drop(caller);
        };
        let check = pattern.check(&mut target_read);
        let talk = async {
            loop {
                if let Err(failure) = target_write.write_all(&[7; 10_000]).await {
                    return failure;
                }
            }
        };
        let ((), received, talked) = soon(async { tokio::join!(send, check, talk) }).await;
        let heard = [received.map_err(|failure| failure.kind()), Err(talked.kind())];
        assert!(heard.contains(&Err(ErrorKind::ConnectionReset)), "{way:?}: {heard:?}");
        let (near_ended, _) = soon(near.ended()).await;
        let (far_ended, _) = soon(far.ended()).await;
        assert!(!matches!(near_ended.how, How::Finished { .. }), "{near_ended:?}");
        assert!(!matches!(far_ended.how, How::Finished { .. }), "{far_ended:?}");
    }
}

/// A caller that says its end and is gone before the answer is over: the target hears of it at once, in
/// the middle of its bulk, and the channel goes on to the next tunnel.
#[tokio::test]
async fn a_caller_that_goes_away_after_its_end_cuts_the_answer_off() {
    for way in [Way::XChaCha, Way::Aes] {
        let Rig { mut caller, mut target, near, far } = rig(Net::Tcp, way, Options::default()).await;
        caller.write_all(b"all of it, please").await.unwrap();
        caller.shutdown().await.unwrap();
        let mut question = String::new();
        target.read_to_string(&mut question).await.unwrap();
        drop(caller);
        let started = Instant::now();
        soon(async { while target.write_all(&MESSAGE).await.is_ok() {} }).await;
        let (near_ended, _) = soon(near.ended()).await;
        let (far_ended, _) = soon(far.ended()).await;
        assert!(matches!(near_ended.how, How::PlainFailed(_)), "{near_ended:?}");
        assert!(matches!(far_ended.how, How::Reset), "{far_ended:?}");
        assert!(near_ended.channel_reusable() && far_ended.channel_reusable(), "{:?}", started.elapsed());
    }
}

/// C25: the peer has no use for the channel after the tunnel and closes it as soon as it has said and heard
/// the end. Nothing of what came before is lost, and the plain side sees an end, not a reset.
#[tokio::test]
async fn a_channel_that_closes_right_after_both_ends_is_no_failure() {
    for way in WAYS {
        for net in [Net::Memory, Net::Tcp] {
            let (mut peer, channel) = pair(net).await;
            let (plain, mut target) = pair(net).await;
            let [(mut seal, _), far_ends] = ends(way, 0);
            let far = run(plain, RecordChannel::new(channel), far_ends, Options::default());
            target.shutdown().await.unwrap();
            let mut heard = vec![0; record::HEADER_BYTES + seal.tag_bytes()];
            soon(peer.read_exact(&mut heard)).await.unwrap();
            assert_eq!(heard[0], record::FIN);
            let mut last = bytes::BytesMut::new();
            seal.seal(record::DATA, &MESSAGE[..1000], &mut last).unwrap();
            seal.seal(record::FIN, b"", &mut last).unwrap();
            peer.write_all(&last).await.unwrap();
            peer.shutdown().await.unwrap();
            drop(peer);
            let (ended, _) = soon(far.ended()).await;
            assert!(matches!(ended.how, How::Finished { .. }), "{way:?} {net:?}: {ended:?}");
            let mut arrived = Vec::new();
            soon(target.read_to_end(&mut arrived)).await.unwrap();
            assert_eq!(arrived, MESSAGE[..1000], "{way:?} {net:?}");
        }
    }
}

/// When that reset crosses the other's end, nobody can tell whether it was heard: the channel is spent.
#[tokio::test]
async fn a_late_reset_that_crosses_the_end_costs_the_channel() {
    let (near_plain, mut caller) = tokio::io::duplex(64);
    let (channel, mut peer) = tokio::io::duplex(4096);
    let stop = CancellationToken::new();
    let options = Options { stop: stop.clone(), ..Options::default() };
    let channel = RecordChannel::new(Duplex::other(channel));
    let near = run(Duplex::other(near_plain), channel, (Sealer::plain(), Opener::plain()), options);
    caller.shutdown().await.unwrap();
    let mut heard = [0; record::HEADER_BYTES];
    peer.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard[0], record::FIN);
    stop.cancel();
    peer.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard[0], record::RESET);
    peer.write_all(&[record::FIN, 0, 0, 0, 0]).await.unwrap();
    let (ended, channel) = soon(near.ended()).await;
    assert!(matches!(ended.how, How::Stopped) && !ended.channel_reusable() && channel.is_spent());
}

/// A reset is heard at once, though the other direction never has a quiet moment: a target that always
/// has something to say, on a channel that always takes it.
#[tokio::test]
async fn a_direction_in_bulk_never_starves_the_other() {
    for way in WAYS {
        let (mut peer, channel) = tokio::io::duplex(4096);
        let [(mut seal, _), far_ends] = ends(way, 0);
        let channel = RecordChannel::new(Duplex::other(Endless(channel)));
        let far = run(Duplex::other(Endless(tokio::io::empty())), channel, far_ends, Options::default());
        let mut wire = bytes::BytesMut::new();
        seal.seal(record::DATA, b"hello", &mut wire).unwrap();
        seal.seal(record::RESET, b"", &mut wire).unwrap();
        peer.write_all(&wire).await.unwrap();
        let (ended, _) = soon(far.ended()).await;
        assert!(matches!(ended.how, How::Reset) && ended.out_bytes == 5, "{way:?}: {ended:?}");
    }
}

/// The same with the limit and the stop: neither waits for a quiet moment.
#[tokio::test]
async fn a_tunnel_in_bulk_is_stopped_at_once() {
    let stop = CancellationToken::new();
    let (_peer, channel) = tokio::io::duplex(4096);
    let options = Options { stop: stop.clone(), ..Options::default() };
    let channel = RecordChannel::new(Duplex::other(Endless(channel)));
    let plain = Duplex::other(Endless(tokio::io::empty()));
    let far = run(plain, channel, (Sealer::plain(), Opener::plain()), options);
    sleep(Duration::from_millis(50)).await;
    stop.cancel();
    let (ended, _) = soon(far.ended()).await;
    assert!(matches!(ended.how, How::Stopped), "{ended:?}");
}

/// A caller that has said its end and then breaks is noticed, though nobody reads from it any more.
#[tokio::test]
async fn a_caller_that_breaks_after_its_end_is_noticed() {
    for way in WAYS {
        let Rig { mut caller, mut target, near, far } = rig(Net::Tcp, way, Options::default()).await;
        caller.shutdown().await.unwrap();
        assert_eq!(target.read(&mut [0; 8]).await.unwrap(), 0);
        reset(&caller);
        drop(caller);
        soon(near.ended()).await;
        soon(far.ended()).await;
        let failure = soon(target.read(&mut [0; 8])).await;
        assert!(failure.is_err() || target.write_all(b"anybody?").await.is_err());
    }
}

/// A stalled reader doesn't hide that the writer is gone.
#[tokio::test]
async fn a_caller_that_breaks_while_the_target_stalls_is_noticed() {
    for way in WAYS {
        let Rig { mut caller, mut target, near, far } = rig(Net::Tcp, way, Options::default()).await;
        while timeout(Duration::from_millis(300), caller.write_all(&MESSAGE)).await.is_ok() {}
        reset(&caller);
        drop(caller);
        soon(near.ended()).await;
        soon(far.ended()).await;
        assert!(is_reset(&mut target).await, "{way:?}");
    }
}

#[tokio::test]
async fn a_channel_that_ends_in_the_middle_is_a_reset_for_both() {
    for way in WAYS {
        let (channel_near, middle_near) = tcp_pair().await;
        let (channel_far, middle_far) = tcp_pair().await;
        let channel = (channel_near.into(), channel_far.into());
        let Rig { mut caller, mut target, near, far } =
            rig_over(Net::Tcp, way, Options::default(), channel).await;
        drop((middle_near, middle_far));
        assert!(is_reset(&mut caller).await && is_reset(&mut target).await, "{way:?}");
        for (ended, channel) in [soon(near.ended()).await, soon(far.ended()).await] {
            assert!(matches!(&ended.how, How::ChannelFailed(_)), "{ended:?}");
            assert!(!ended.channel_reusable() && channel.is_spent());
        }
    }
}

/// The channel of a tunnel whose other direction is through is watched too.
#[tokio::test]
async fn a_channel_that_dies_after_the_first_end_is_noticed() {
    let (near, mut raw) = tokio::io::duplex(4096);
    let (mut caller, near_plain) = pair(Net::Tcp).await;
    let [near_ends, (mut seal, _)] = ends(Way::Aes, 0);
    let near = run(near_plain, RecordChannel::new(Duplex::other(near)), near_ends, Options::default());
    let mut wire = bytes::BytesMut::new();
    seal.seal(record::FIN, b"", &mut wire).unwrap();
    raw.write_all(&wire).await.unwrap();
    assert_eq!(caller.read(&mut [0; 8]).await.unwrap(), 0);
    drop(raw);
    let (ended, _) = soon(near.ended()).await;
    assert!(matches!(ended.how, How::ChannelFailed(_)), "{ended:?}");
}

/// C32: one changed bit on the way, and the tunnel is over for both.
#[tokio::test]
async fn a_forged_record_ends_the_tunnel() {
    for way in [Way::XChaCha, Way::Aes] {
        let (channel_near, mut middle_near) = tcp_pair().await;
        let (channel_far, mut middle_far) = tcp_pair().await;
        let channel = (channel_near.into(), channel_far.into());
        let Rig { mut caller, mut target, near, far } =
            rig_over(Net::Tcp, way, Options::default(), channel).await;
        caller.write_all(b"pay 10 to Bob").await.unwrap();
        let mut record = [0; record::HEADER_BYTES + 13 + record::TAG_BYTES];
        middle_near.read_exact(&mut record).await.unwrap();
        record[record::HEADER_BYTES + 4] ^= 8;
        middle_far.write_all(&record).await.unwrap();
        assert!(is_reset(&mut target).await, "and not one byte of it arrives");
        let (ended, channel) = soon(far.ended()).await;
        assert!(matches!(ended.how, How::Forged), "{ended:?}");
        assert_eq!(ended.out_bytes, 0);
        assert!(channel.is_spent());
        drop((channel, middle_near, middle_far));
        assert!(is_reset(&mut caller).await);
        soon(near.ended()).await;
    }
}

/// Sealed means sealed: the other end can't turn it off by going raw or plain.
#[tokio::test]
async fn a_sealed_tunnel_takes_nothing_unsealed() {
    for kind in [record::RAW, record::DATA] {
        let (far, mut raw) = tokio::io::duplex(4096);
        let (mut target, far_plain) = pair(Net::Tcp).await;
        let [_, far_ends] = ends(Way::Aes, 0);
        let far = run(far_plain, RecordChannel::new(Duplex::other(far)), far_ends, Options::default());
        let mut wire = bytes::BytesMut::new();
        Sealer::plain().seal(kind, b"", &mut wire).unwrap();
        wire.extend_from_slice(b"raw bytes");
        raw.write_all(&wire).await.unwrap();
        assert!(is_reset(&mut target).await);
        let (ended, _) = soon(far.ended()).await;
        assert!(matches!(ended.how, How::Forged), "{ended:?}");
    }

    // Nor by a raw record that is sealed properly.
    let (far, mut raw) = tokio::io::duplex(4096);
    let (mut target, far_plain) = pair(Net::Tcp).await;
    let [(mut seal, _), far_ends] = ends(Way::Aes, 0);
    let far = run(far_plain, RecordChannel::new(Duplex::other(far)), far_ends, Options::default());
    let mut wire = bytes::BytesMut::new();
    seal.seal(record::RAW, b"", &mut wire).unwrap();
    raw.write_all(&wire).await.unwrap();
    assert!(is_reset(&mut target).await);
    assert!(matches!(soon(far.ended()).await.0.how, How::ChannelFailed(_)));
}

/// C4: a record that has no business in a tunnel ends it, with a reset to the plain side.
#[tokio::test]
async fn an_unknown_record_ends_the_tunnel() {
    for wire in [&[99, 0, 0, 0, 0][..], &[0, 0, 0xff, 0xff, 0xff], &[0, 1, 0, 0, 0]] {
        let (far, mut raw) = tokio::io::duplex(4096);
        let (mut target, far_plain) = pair(Net::Tcp).await;
        let [_, far_ends] = ends(Way::Plain, 0);
        let far = run(far_plain, RecordChannel::new(Duplex::other(far)), far_ends, Options::default());
        raw.write_all(wire).await.unwrap();
        assert!(is_reset(&mut target).await);
        let (ended, _) = soon(far.ended()).await;
        assert!(
            matches!(&ended.how, How::ChannelFailed(f) if f.kind() == ErrorKind::InvalidData),
            "{ended:?}"
        );
    }
}

/// C34: silence ends a tunnel at its limit.
#[tokio::test(start_paused = true)]
async fn an_idle_tunnel_ends_at_its_limit() {
    for way in WAYS {
        let limit = Duration::from_mins(10);
        let options = Options { idle_timeout: Some(limit), ..Options::default() };
        let (near_plain, mut caller) = tokio::io::duplex(4096);
        let (channel, mut peer) = tokio::io::duplex(4096);
        let [near_ends, (mut seal, _)] = ends(way, 0);
        let channel = RecordChannel::new(Duplex::other(channel));
        let near = run(Duplex::other(near_plain), channel, near_ends, options);
        let started = Instant::now();
        let mut answer = bytes::BytesMut::new();
        seal.seal(record::RESET, b"", &mut answer).unwrap();
        assert_eq!(caller.read(&mut [0; 8]).await.unwrap(), 0);
        let took = started.elapsed();
        assert!(took >= limit && took <= limit * 5 / 4 + Duration::from_secs(1), "{took:?}");

        // The other end is told and agrees, so the channel goes on.
        let mut told = vec![0; answer.len()];
        peer.read_exact(&mut told).await.unwrap();
        assert_eq!(told[0], record::RESET);
        peer.write_all(&answer).await.unwrap();
        let (ended, _) = near.ended().await;
        assert!(matches!(ended.how, How::Idle) && ended.channel_reusable(), "{ended:?}");
    }
}

/// C34: a byte now and then, in either direction, keeps it.
#[tokio::test(start_paused = true)]
async fn an_active_tunnel_outlives_the_limit() {
    let limit = Duration::from_mins(1);
    let options = Options { idle_timeout: Some(limit), ..Options::default() };
    let Rig { mut caller, mut target, near, far } = rig(Net::Memory, Way::Aes, options).await;
    for round in 0..100 {
        sleep(limit * 9 / 10).await;
        let (from, to) = if round % 2 == 0 { (&mut caller, &mut target) } else { (&mut target, &mut caller) };
        from.write_u8(round).await.unwrap();
        assert_eq!(to.read_u8().await.unwrap(), round);
    }
    caller.shutdown().await.unwrap();
    target.shutdown().await.unwrap();
    for (ended, _) in [near.ended().await, far.ended().await] {
        assert!(matches!(ended.how, How::Finished { .. }), "{ended:?}");
    }
}

/// Without an idle limit a silent tunnel stays, but not for ever once one side has ended.
#[tokio::test(start_paused = true)]
async fn a_half_closed_tunnel_may_linger_and_no_longer() {
    let Rig { mut caller, mut target, near, far } = rig(Net::Memory, Way::Plain, Options::default()).await;
    sleep(LINGER * 100).await;
    caller.write_all(b"still here").await.unwrap();
    target.read_exact(&mut [0; 10]).await.unwrap();
    caller.shutdown().await.unwrap();
    assert_eq!(target.read(&mut [0; 8]).await.unwrap(), 0);
    for _ in 0..20 {
        sleep(LINGER * 9 / 10).await;
        target.write_u8(1).await.unwrap();
        assert_eq!(caller.read_u8().await.unwrap(), 1);
    }
    let silent = Instant::now();
    assert_eq!(caller.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(silent.elapsed() >= LINGER && silent.elapsed() <= LINGER * 3 / 2, "{:?}", silent.elapsed());
    let ends = [near.ended().await.0.how, far.ended().await.0.how];
    assert!(ends.iter().any(|how| matches!(how, How::Idle)), "{ends:?}");
}

/// C21: a tunnel is told to stop, and is gone.
#[tokio::test]
async fn a_stopped_tunnel_ends_at_once() {
    for way in WAYS {
        let stop = CancellationToken::new();
        let [near_ends, far_ends] = ends(way, 0);
        let (mut caller, near_plain) = pair(Net::Tcp).await;
        let (mut target, far_plain) = pair(Net::Tcp).await;
        let (near, far) = pair(Net::Tcp).await;
        let options = Options { stop: stop.clone(), ..Options::default() };
        let near = run(near_plain, RecordChannel::new(near), near_ends, options);
        let far = run(far_plain, RecordChannel::new(far), far_ends, Options::default());
        caller.write_all(b"hello").await.unwrap();
        target.read_exact(&mut [0; 5]).await.unwrap();
        stop.cancel();
        assert!(is_reset(&mut caller).await && is_reset(&mut target).await, "{way:?}");
        let (near_ended, _) = soon(near.ended()).await;
        let (far_ended, _) = soon(far.ended()).await;
        assert!(matches!(near_ended.how, How::Stopped), "{near_ended:?}");
        assert!(matches!(far_ended.how, How::Reset), "{far_ended:?}");
        assert!(near_ended.channel_reusable() && far_ended.channel_reusable());
    }
}

/// A peer that never agrees costs the channel and a moment, not the tunnel's end.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_settles_costs_its_channel() {
    let stop = CancellationToken::new();
    let (near_plain, _caller) = tokio::io::duplex(64);
    let (channel, _peer) = tokio::io::duplex(64);
    let options = Options { stop: stop.clone(), ..Options::default() };
    let [near_ends, _] = ends(Way::Plain, 0);
    let channel = RecordChannel::new(Duplex::other(channel));
    let near = run(Duplex::other(near_plain), channel, near_ends, options);
    let started = Instant::now();
    stop.cancel();
    let (ended, mut channel) = near.ended().await;
    assert!(matches!(ended.how, How::Stopped) && !ended.channel_reusable(), "{ended:?}");
    assert!(started.elapsed() <= Duration::from_secs(2));
    let refused = channel.recv(&mut Opener::plain()).await;
    assert!(matches!(refused, Err(RecordError::Spent)), "{refused:?}");
}

/// Dropped in the middle: both sides see a reset, not an end.
#[tokio::test]
async fn a_tunnel_that_is_dropped_resets_both_sides() {
    let (mut caller, near_plain) = pair(Net::Tcp).await;
    let (near, mut peer) = pair(Net::Tcp).await;
    let [near_ends, _] = ends(Way::Plain, 0);
    let near = run(near_plain, RecordChannel::new(near), near_ends, Options::default());
    caller.write_all(b"hello").await.unwrap();
    peer.read_exact(&mut [0; 10]).await.unwrap();
    drop(near);
    assert!(is_reset(&mut caller).await && is_reset(&mut peer).await);
}

/// C35: a reader that stalls stops its writer; what the tunnel takes meanwhile is bounded.
#[tokio::test]
async fn a_stalled_reader_stops_its_writer_within_a_bound() {
    for way in WAYS {
        let Rig { mut caller, mut target, near, far } = rig(Net::Memory, way, Options::default()).await;
        let mut taken = 0;
        while let Ok(written) = timeout(Duration::from_millis(300), caller.write(&MESSAGE)).await {
            taken += written.unwrap();
        }
        // Three streams of 64 KiB, and one chunk in each end.
        let bound = 3 * common::MEMORY_BYTES + 2 * underpass_relay::CHUNK_BYTES_MAX;
        assert!(taken <= bound, "{way:?}: {taken}");

        // And it goes on where it stopped.
        let (mut rest, mut buffer) = (taken, vec![0; 65_536]);
        while rest > 0 {
            rest -= soon(target.read(&mut buffer)).await.unwrap();
        }
        drop((caller, target));
        near.ended().await;
        far.ended().await;
    }
}
