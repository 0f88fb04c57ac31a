//! Bytes through a tunnel: whole, both ways, ended properly, one tunnel after another.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{Dribble, Net, Pattern, Rig, WAYS, Way, ends, pair, rig, rig_over, run};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use underpass_pipeline::{Opener, Sealer, record};
use underpass_relay::{Duplex, How, Options, RecordChannel};

const MIB: usize = 1024 * 1024;

fn finished(how: &How, reusable: bool) -> bool {
    matches!(how, How::Finished { channel_reusable } if *channel_reusable == reusable)
}

/// C24: 64 MiB each way at once.
async fn both_ways(net: Net, way: Way, allow_raw: bool) {
    let bytes = 64 * MIB;
    let options = Options { allow_raw, ..Options::default() };
    let Rig { caller, target, near, far } = rig(net, way, options).await;
    let (there, back) = (Pattern::new(1), Pattern::new(2));
    let (mut caller_read, mut caller_write) = tokio::io::split(caller);
    let (mut target_read, mut target_write) = tokio::io::split(target);
    let sends = async {
        tokio::join!(
            async {
                there.write(&mut caller_write, bytes).await.unwrap();
                caller_write.shutdown().await.unwrap();
            },
            async {
                back.write(&mut target_write, bytes).await.unwrap();
                target_write.shutdown().await.unwrap();
            }
        )
    };
    let arrived = async { tokio::join!(there.check(&mut target_read), back.check(&mut caller_read)) };
    let (_, (there, back)) = tokio::join!(sends, arrived);
    assert_eq!((there.unwrap(), back.unwrap()), (bytes, bytes));

    let raw = net == Net::Tcp && way == Way::Plain && allow_raw;
    for (end, _) in [near.ended().await, far.ended().await] {
        assert!(finished(&end.how, !raw), "{way:?} over {net:?}: {end:?}");
        assert_eq!((end.in_bytes, end.out_bytes), (bytes as u64, bytes as u64));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_each_way_xchacha() {
    both_ways(Net::Tcp, Way::XChaCha, true).await;
    both_ways(Net::Memory, Way::XChaCha, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_each_way_aes() {
    both_ways(Net::Tcp, Way::Aes, true).await;
    both_ways(Net::Memory, Way::Aes, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_each_way_in_plain_records() {
    both_ways(Net::Tcp, Way::Plain, false).await;
    both_ways(Net::Memory, Way::Plain, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_each_way_raw() {
    both_ways(Net::Tcp, Way::Plain, true).await;
}

/// C25: the side that ends early still gets everything.
async fn half_close(net: Net, way: Way, caller_ends_first: bool) {
    let bytes = 100 * 1000 * 1000;
    let Rig { caller, target, near, far } = rig(net, way, Options::default()).await;
    let (mut early, mut late) = if caller_ends_first { (caller, target) } else { (target, caller) };
    early.write_all(b"all I have to say").await.unwrap();
    early.shutdown().await.unwrap();
    let mut said = String::new();
    late.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "all I have to say");

    let pattern = Pattern::new(3);
    let answer = async {
        pattern.write(&mut late, bytes).await.unwrap();
        late.shutdown().await.unwrap();
    };
    let ((), arrived) = tokio::join!(answer, pattern.check(&mut early));
    assert_eq!(arrived.unwrap(), bytes, "{way:?} over {net:?}");
    let raw = net == Net::Tcp && way == Way::Plain;
    for (end, _) in [near.ended().await, far.ended().await] {
        assert!(finished(&end.how, !raw), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_ends_early_gets_all_that_follows() {
    for way in WAYS {
        half_close(Net::Tcp, way, true).await;
    }
    half_close(Net::Memory, Way::Aes, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_ends_early_gets_all_that_follows() {
    for way in WAYS {
        half_close(Net::Tcp, way, false).await;
    }
    half_close(Net::Memory, Way::Plain, false).await;
}

#[tokio::test]
async fn a_tunnel_without_a_byte_ends_in_order() {
    for way in WAYS {
        let Rig { mut caller, mut target, near, far } = rig(Net::Tcp, way, Options::default()).await;
        caller.shutdown().await.unwrap();
        target.shutdown().await.unwrap();
        assert_eq!(caller.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(target.read(&mut [0; 8]).await.unwrap(), 0);
        for (end, _) in [near.ended().await, far.ended().await] {
            assert!(finished(&end.how, true) && end.channel_reusable(), "{end:?}");
        }
    }
}

/// Single bytes pass at once, in both directions, however often.
#[tokio::test]
async fn every_byte_of_a_conversation_passes_at_once() {
    for (net, way) in [(Net::Tcp, Way::Plain), (Net::Tcp, Way::Aes), (Net::Memory, Way::XChaCha)] {
        let Rig { mut caller, mut target, near, far } = rig(net, way, Options::default()).await;
        for byte in 0..=255 {
            caller.write_u8(byte).await.unwrap();
            assert_eq!(target.read_u8().await.unwrap(), byte);
            target.write_u8(!byte).await.unwrap();
            assert_eq!(caller.read_u8().await.unwrap(), !byte);
        }
        drop((caller, target));
        near.ended().await;
        far.ended().await;
    }
}

/// Bytes taken from the caller beforehand go first, in one write with the record that opens the tunnel.
#[tokio::test]
async fn early_bytes_arrive_first() {
    let early = Bytes::from(vec![b'e'; 600 * 1024]);
    for way in WAYS {
        let options = Options { early: early.clone(), ..Options::default() };
        let (mut caller, near_plain) = pair(Net::Tcp).await;
        let (mut target, far_plain) = pair(Net::Tcp).await;
        let (near, far) = pair(Net::Tcp).await;
        let (mut near, mut far) = (RecordChannel::new(near), RecordChannel::new(far));
        let [near_ends, far_ends] = ends(way, 1);
        near.queue(&mut Sealer::plain(), record::OPEN, b"open").unwrap();
        let near = run(near_plain, near, near_ends, options);
        let open = far.recv(&mut Opener::plain()).await.unwrap().unwrap();
        assert_eq!((open.kind, &open.body[..]), (record::OPEN, &b"open"[..]));
        let far = run(far_plain, far, far_ends, Options::default());

        caller.write_all(b" and the rest").await.unwrap();
        caller.shutdown().await.unwrap();
        let mut arrived = Vec::new();
        target.read_to_end(&mut arrived).await.unwrap();
        assert!(arrived == [&early[..], b" and the rest"].concat(), "{way:?}");
        target.shutdown().await.unwrap();
        assert_eq!(near.ended().await.0.in_bytes, arrived.len() as u64);
        assert!(finished(&far.ended().await.0.how, true));
    }
}

/// One channel, a hundred tunnels, each opened in the same breath in which the last one ended: nothing
/// of one is swallowed by another.
#[tokio::test]
async fn a_channel_carries_a_hundred_tunnels_in_a_row() {
    for (net, way) in [(Net::Tcp, Way::Plain), (Net::Tcp, Way::Aes), (Net::Memory, Way::XChaCha)] {
        let (near, far) = pair(net).await;
        let (mut near, mut far) = (RecordChannel::new(near), RecordChannel::new(far));
        let [(mut near_seal, _), (_, mut far_open)] = ends(way, u64::MAX);
        for number in 0..100_u64 {
            let [near_ends, far_ends] = ends(way, number);
            let (mut caller, near_plain) = pair(net).await;
            let (mut target, far_plain) = pair(net).await;
            near.queue(&mut near_seal, record::OPEN, &number.to_be_bytes()).unwrap();
            let early = Bytes::from(format!("question {number}"));
            let near_end = run(near_plain, near, near_ends, Options { early, ..Options::default() });
            caller.shutdown().await.unwrap();

            let open = far.recv(&mut far_open).await.unwrap().unwrap();
            assert_eq!(open.body[..], number.to_be_bytes(), "{way:?} over {net:?}");
            let far_end = run(far_plain, far, far_ends, Options::default());
            let (mut question, mut answer) = (String::new(), String::new());
            target.read_to_string(&mut question).await.unwrap();
            target.write_all(format!("answer {number}").as_bytes()).await.unwrap();
            target.shutdown().await.unwrap();
            caller.read_to_string(&mut answer).await.unwrap();
            assert_eq!((question, answer), (format!("question {number}"), format!("answer {number}")));

            let (near_ended, near_back) = near_end.ended().await;
            let (far_ended, far_back) = far_end.ended().await;
            assert!(near_ended.channel_reusable() && far_ended.channel_reusable(), "{number}: {far_ended:?}");
            (near, far) = (near_back, far_back);
        }
    }
}

/// What the next tunnel's opener wrote behind a last record is still there for it.
#[tokio::test]
async fn what_follows_the_end_of_a_tunnel_is_kept_for_the_next() {
    for way in WAYS {
        let (mut raw, far) = tokio::io::duplex(4096);
        let (mut target, far_plain) = pair(Net::Tcp).await;
        let [(mut seal, _), far_ends] = ends(way, 1);
        let mut wire = bytes::BytesMut::new();
        seal.seal(record::DATA, b"last words", &mut wire).unwrap();
        seal.seal(record::FIN, b"", &mut wire).unwrap();
        Sealer::plain().seal(record::OPEN, b"next", &mut wire).unwrap();
        raw.write_all(&wire).await.unwrap();

        let far = run(far_plain, RecordChannel::new(Duplex::other(far)), far_ends, Options::default());
        let mut words = String::new();
        target.read_to_string(&mut words).await.unwrap();
        assert_eq!(words, "last words");
        target.shutdown().await.unwrap();
        let (ended, mut channel) = far.ended().await;
        assert!(ended.channel_reusable(), "{ended:?}");
        let next = channel.recv(&mut Opener::plain()).await.unwrap().unwrap();
        assert_eq!((next.kind, &next.body[..]), (record::OPEN, &b"next"[..]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// C1: however the channel cuts what it carries.
    #[test]
    fn any_cutting_carries_the_same_bytes(
        way in prop::sample::select(WAYS.to_vec()),
        bytes in 0_usize..300_000,
        cuts in proptest::collection::vec(0_usize..5_000, 1..20),
    ) {
        prop_assume!(cuts.iter().any(|cut| *cut > 40));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (one, other) = tokio::io::duplex(10_000);
            let dribble = |inner| Duplex::other(Dribble { inner, cuts: cuts.clone(), at: 0 });
            let channel = (dribble(one), dribble(other));
            let Rig { mut caller, mut target, near, far } =
                rig_over(Net::Memory, way, Options::default(), channel).await;
            let pattern = Pattern::new(9);
            let send = async {
                pattern.write(&mut caller, bytes).await.unwrap();
                caller.shutdown().await.unwrap();
            };
            let ((), arrived) = tokio::join!(send, pattern.check(&mut target));
            assert_eq!(arrived.unwrap(), bytes);
            target.shutdown().await.unwrap();
            assert!(near.ended().await.0.channel_reusable());
            assert!(far.ended().await.0.channel_reusable());
        });
    }
}
