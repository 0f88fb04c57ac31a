//! The node in the middle: it passes what it can't read, and knows where a tunnel ends.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Net, Pattern, Spied, WAYS, Way, ends, pair, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use underpass_pipeline::{Opener, Sealer, record};
use underpass_relay::{Counters, Duplex, Ended, How, Options, RecordChannel, forward};

const SOON: Duration = Duration::from_secs(10);

type Middle = JoinSet<(Ended, RecordChannel, RecordChannel)>;

fn middle(mut a: RecordChannel, mut b: RecordChannel, options: Options) -> Middle {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let ended = forward(&mut a, &mut b, &options, &Counters::default()).await;
        (ended, a, b)
    });
    tasks
}

async fn ended(mut middle: Middle) -> (Ended, RecordChannel, RecordChannel) {
    timeout(SOON, middle.join_next()).await.expect("in time").unwrap().unwrap()
}

async fn through(net: Net, way: Way, bytes: usize) {
    let (mut caller, near_plain) = pair(net).await;
    let (mut target, far_plain) = pair(net).await;
    let (near, a) = pair(net).await;
    let (b, far) = pair(net).await;
    let [near_ends, far_ends] = ends(way, 0);
    let near = run(near_plain, RecordChannel::new(near), near_ends, Options::default());
    let far = run(far_plain, RecordChannel::new(far), far_ends, Options::default());
    let middle = middle(RecordChannel::new(a), RecordChannel::new(b), Options::default());

    let (there, back) = (Pattern::new(1), Pattern::new(2));
    let asked = async {
        there.write(&mut caller, bytes).await.unwrap();
        caller.shutdown().await.unwrap();
    };
    let ((), arrived) = tokio::join!(asked, there.check(&mut target));
    assert_eq!(arrived.unwrap(), bytes);
    let answered = async {
        back.write(&mut target, bytes / 2).await.unwrap();
        target.shutdown().await.unwrap();
    };
    let ((), arrived) = tokio::join!(answered, back.check(&mut caller));
    assert_eq!(arrived.unwrap(), bytes / 2);

    let (passed, a, b) = ended(middle).await;
    let raw = net == Net::Tcp && way == Way::Plain && bytes > 4 * 1024 * 1024;
    assert!(
        matches!(passed.how, How::Finished { channel_reusable } if channel_reusable != raw),
        "{way:?} over {net:?}: {passed:?}"
    );
    assert_eq!((a.is_spent(), b.is_spent()), (raw, raw));
    if way == Way::Plain {
        assert_eq!((passed.in_bytes, passed.out_bytes), (bytes as u64, bytes as u64 / 2));
    } else {
        assert!(bytes == 0 || passed.in_bytes > bytes as u64, "tags pass too");
    }
    for (end, _) in [near.ended().await, far.ended().await] {
        assert!(matches!(end.how, How::Finished { .. }), "{end:?}");
    }
}

/// C24 and C25 through a node that can't open a record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_pass_unopened_in_both_directions() {
    for way in WAYS {
        for bytes in [0, 1, 100_000, 32 * 1024 * 1024] {
            through(Net::Tcp, way, bytes).await;
        }
        through(Net::Memory, way, 3 * 1024 * 1024).await;
    }
}

/// C32: what the node sees holds nothing of what is said.
#[tokio::test]
async fn a_marker_is_never_visible_in_the_middle() {
    for way in WAYS {
        let marker = b"the marker that the node may not see";
        let seen = Arc::new(Mutex::new(Vec::new()));
        let spy = |inner| Duplex::other(Spied { inner, seen: Arc::clone(&seen) });
        let (mut caller, near_plain) = pair(Net::Tcp).await;
        let (mut target, far_plain) = pair(Net::Tcp).await;
        let (near, a) = pair(Net::Tcp).await;
        let (b, far) = pair(Net::Tcp).await;
        let [near_ends, far_ends] = ends(way, 0);
        let near = run(near_plain, RecordChannel::new(near), near_ends, Options::default());
        let far = run(far_plain, RecordChannel::new(far), far_ends, Options::default());
        let middle = middle(RecordChannel::new(spy(a)), RecordChannel::new(spy(b)), Options::default());
        for _ in 0..10 {
            caller.write_all(marker).await.unwrap();
            target.read_exact(&mut [0; 36]).await.unwrap();
            target.write_all(marker).await.unwrap();
            caller.read_exact(&mut [0; 36]).await.unwrap();
        }
        caller.shutdown().await.unwrap();
        target.shutdown().await.unwrap();
        let (passed, ..) = ended(middle).await;
        assert!(passed.channel_reusable());
        near.ended().await;
        far.ended().await;
        let seen = seen.lock().unwrap();
        let visible = seen.windows(marker.len()).filter(|window| window == marker).count();
        assert_eq!(visible, if way == Way::Plain { 20 } else { 0 });
        assert!(seen.len() > 20 * marker.len());
    }
}

/// Three parties, two channels, thirty tunnels in a row, some of them cut off.
#[tokio::test]
async fn channels_outlive_their_tunnels_in_the_middle_too() {
    for way in WAYS {
        let (near, a) = pair(Net::Tcp).await;
        let (b, far) = pair(Net::Tcp).await;
        let [mut near, mut a, mut b, mut far] = [near, a, b, far].map(RecordChannel::new);
        for number in 0..30_u64 {
            let (mut caller, near_plain) = pair(Net::Tcp).await;
            let (mut target, far_plain) = pair(Net::Tcp).await;
            near.queue(&mut Sealer::plain(), record::DIAL, &number.to_be_bytes()).unwrap();
            let [near_ends, far_ends] = ends(way, number);
            let near_end = run(near_plain, near, near_ends, Options::default());
            let dial = a.recv(&mut Opener::plain()).await.unwrap().unwrap();
            assert_eq!((dial.kind, &dial.body[..]), (record::DIAL, &number.to_be_bytes()[..]), "{number}");
            b.queue(&mut Sealer::plain(), record::OPEN, &dial.body).unwrap();
            let middle = middle(a, b, Options::default());
            let open = far.recv(&mut Opener::plain()).await.unwrap().unwrap();
            assert_eq!((open.kind, &open.body[..]), (record::OPEN, &number.to_be_bytes()[..]), "{number}");
            let far_end = run(far_plain, far, far_ends, Options::default());

            caller.write_u64(number).await.unwrap();
            assert_eq!(target.read_u64().await.unwrap(), number);
            let cut_off = number % 5 == 4;
            if cut_off {
                target.tcp().unwrap().set_zero_linger().unwrap();
            } else {
                caller.shutdown().await.unwrap();
                assert_eq!(target.read(&mut [0; 8]).await.unwrap(), 0);
                target.write_u64(!number).await.unwrap();
            }
            drop(target);
            if cut_off {
                assert_eq!(caller.read_u64().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            } else {
                assert_eq!(caller.read_u64().await.unwrap(), !number);
            }
            let (passed, a_back, b_back) = ended(middle).await;
            assert!(passed.channel_reusable(), "{number}: {passed:?}");
            assert_eq!(matches!(passed.how, How::Reset), cut_off, "{number}: {passed:?}");
            let (near_ended, near_back) = near_end.ended().await;
            let (far_ended, far_back) = far_end.ended().await;
            assert!(near_ended.channel_reusable() && far_ended.channel_reusable());
            (near, a, b, far) = (near_back, a_back, b_back, far_back);
        }
    }
}

/// A reset that follows an end passes too.
#[tokio::test]
async fn a_caller_that_goes_away_is_heard_through_the_middle() {
    let (mut caller, near_plain) = pair(Net::Tcp).await;
    let (mut target, far_plain) = pair(Net::Tcp).await;
    let (near, a) = pair(Net::Tcp).await;
    let (b, far) = pair(Net::Tcp).await;
    let [near_ends, far_ends] = ends(Way::Aes, 0);
    let near = run(near_plain, RecordChannel::new(near), near_ends, Options::default());
    let far = run(far_plain, RecordChannel::new(far), far_ends, Options::default());
    let middle = middle(RecordChannel::new(a), RecordChannel::new(b), Options::default());
    caller.shutdown().await.unwrap();
    assert_eq!(target.read(&mut [0; 8]).await.unwrap(), 0);
    drop(caller);
    let message = vec![1; 65_536];
    timeout(SOON, async { while target.write_all(&message).await.is_ok() {} }).await.expect("in time");
    let (passed, ..) = ended(middle).await;
    assert!(matches!(passed.how, How::Reset) && passed.channel_reusable(), "{passed:?}");
    assert!(near.ended().await.0.channel_reusable());
    let (far_ended, _) = far.ended().await;
    assert!(matches!(far_ended.how, How::Reset) && far_ended.channel_reusable(), "{far_ended:?}");
}

/// Whatever ends the tunnel in the middle is a reset at both ends.
#[tokio::test]
async fn a_node_that_stops_cuts_both_ends_off() {
    for (way, bulk) in [(Way::Aes, false), (Way::Plain, true)] {
        let stop = CancellationToken::new();
        let (mut caller, near_plain) = pair(Net::Tcp).await;
        let (mut target, far_plain) = pair(Net::Tcp).await;
        let (near, a) = pair(Net::Tcp).await;
        let (b, far) = pair(Net::Tcp).await;
        let [near_ends, far_ends] = ends(way, 0);
        let near = run(near_plain, RecordChannel::new(near), near_ends, Options::default());
        let far = run(far_plain, RecordChannel::new(far), far_ends, Options::default());
        let options = Options { stop: stop.clone(), ..Options::default() };
        let middle = middle(RecordChannel::new(a), RecordChannel::new(b), options);
        let bytes = if bulk { 4 * 1024 * 1024 } else { 10 };
        let (mut buffer, message) = (vec![0; bytes], vec![1; bytes]);
        let (sent, read) = tokio::join!(caller.write_all(&message), target.read_exact(&mut buffer));
        sent.unwrap();
        read.unwrap();
        stop.cancel();
        let (passed, a, b) = ended(middle).await;
        assert!(matches!(passed.how, How::Stopped) && a.is_spent() && b.is_spent(), "{passed:?}");
        drop((a, b));
        for stream in [&mut caller, &mut target] {
            let end = timeout(SOON, stream.read(&mut [0; 8])).await.expect("in time");
            assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "{way:?}");
        }
        for (end, _) in [near.ended().await, far.ended().await] {
            assert!(matches!(end.how, How::ChannelFailed(_)), "{end:?}");
        }
    }
}

/// C2, C5: what isn't records is not passed on.
#[tokio::test]
async fn garbage_is_not_passed_on() {
    let (mut near, a) = tokio::io::duplex(4096);
    let (b, mut far) = tokio::io::duplex(4096);
    let middle = middle(
        RecordChannel::new(Duplex::other(a)),
        RecordChannel::new(Duplex::other(b)),
        Options::default(),
    );
    near.write_all(b"\0\0\0\0\x02okGET / HTTP/1.1\r\n\r\n").await.unwrap();
    let (passed, a, b) = ended(middle).await;
    assert!(
        matches!(&passed.how, How::ChannelFailed(failure) if failure.kind() == ErrorKind::InvalidData),
        "{passed:?}"
    );
    drop((a, b));
    let mut arrived = Vec::new();
    far.read_to_end(&mut arrived).await.unwrap();
    assert!(arrived.is_empty() || arrived == b"\0\0\0\0\x02ok", "{arrived:?}");
}
