//! Counts before are counts after. Alone in its file: it looks at the whole process.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Net, Pattern, Rig, Way, rig};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use underpass_relay::{BULK_AFTER, Options};

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// One tunnel of bulk, ended in order or cut off.
async fn one(way: Way, round: usize) {
    let Rig { mut caller, mut target, near, far } = rig(Net::Tcp, way, Options::default()).await;
    let bytes = usize::try_from(BULK_AFTER).unwrap() * 2;
    let pattern = Pattern::new(1);
    let send = async {
        let _ = pattern.write(&mut caller, bytes).await;
        match round % 3 {
            0 => caller.shutdown().await.unwrap(),
            1 => caller.tcp().unwrap().set_zero_linger().unwrap(),
            _ => {}
        }
        drop(caller);
    };
    let receive = async {
        let _ = pattern.check(&mut target).await;
        drop(target);
    };
    tokio::join!(send, receive);
    if round % 7 == 6 {
        drop((near, far));
    } else {
        let ends = async { tokio::join!(near.ended(), far.ended()) };
        timeout(Duration::from_secs(10), ends).await.expect("in time");
    }
}

/// C26: tunnels of all kinds, ended in all ways, leave no file open but the few pipes that are kept.
#[tokio::test]
async fn tunnels_leave_no_file_open() {
    for way in [Way::Plain, Way::Aes] {
        one(way, 0).await;
    }
    let before = open_files();
    for round in 0..60 {
        one(if round % 2 == 0 { Way::Plain } else { Way::Aes }, round).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let after = open_files();
    // Four kept pipes of two files each.
    assert!(after <= before + 8, "{before} before, {after} after");
}
