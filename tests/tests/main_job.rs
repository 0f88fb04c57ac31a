//! The main job, as a stranger would do it: serve, join, expose, share, connect, with any of the stores.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use underpass_tests::bytes::{dial, drain, echo, echoes, pour};
use underpass_tests::{Server, Store, run};

/// C62: the same scenario on every store, by configuration only.
fn the_main_job_works_on(store: Store) {
    let mut server = Server::start(store);
    assert_eq!(server.ready["store"], store.name());
    let target = echo();
    let (laptop, other) = (server.client("laptop"), server.client("other"));

    let (mut exposing, public) = laptop.expose(&[&target.to_string(), "--name", "web"]);
    echoes(public).unwrap();

    let (mut sharing, code) = laptop.share(&target.to_string());
    let (mut connecting, private) = other.connect(&code);
    echoes(private).unwrap();

    for address in [public, private] {
        let stream = dial(address).unwrap();
        let reader = stream.try_clone().unwrap();
        let reading = std::thread::spawn(move || drain(reader).unwrap());
        let sent = pour(&stream, 7, 16 << 20).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(reading.join().unwrap(), (16 << 20, sent));
    }

    let data = server.data_text();
    let history = run(&["history", "web", "--data", &data]);
    assert_eq!(history.lines[0]["event"], "mapping.created", "{history:?}");
    server.verified();

    assert_eq!((connecting.end(), sharing.end(), exposing.end()), (0, 0, 0));

    // The same command adopts what it made before.
    let (mut again, same) = laptop.expose(&[&target.to_string(), "--name", "web"]);
    assert_eq!(same, public);
    echoes(public).unwrap();
    assert_eq!(again.end(), 0);

    assert_eq!(server.process.end(), 0);
}

#[test]
fn c62_the_main_job_works_on_memory() {
    the_main_job_works_on(Store::Memory);
}

#[test]
fn c62_the_main_job_works_on_rocksdb() {
    the_main_job_works_on(Store::RocksDb);
}

#[test]
fn c62_the_main_job_works_on_etcd() {
    the_main_job_works_on(Store::Etcd);
}

#[test]
fn c62_the_main_job_works_on_three_etcds() {
    the_main_job_works_on(Store::EtcdCluster);
}
