//! Real services behind NAT: redis, nginx, PostgreSQL and ssh, each through a public port and through a shared code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;

use underpass_tests::bytes::{dial, drain, pour};
use underpass_tests::services::{
    Redis, Reply, Service, fed, newest_postgres, nginx, postgres, program, redis, said, sshd, tool,
};
use underpass_tests::{Process, Server, Store, eventually, torture};

const MIB: u64 = 1 << 20;

/// A service that is reached in both ways.
struct Reached {
    /// The public port of the server, and the local port of another client.
    ways: [(&'static str, SocketAddr); 2],
    server: Server,
    running: Vec<Process>,
}

fn reach(service: &Service) -> Reached {
    let server = Server::start(Store::RocksDb);
    let (laptop, other) = (server.client("laptop"), server.client("other"));
    let target = service.address.to_string();
    let (exposing, public) = laptop.expose(&[&target, "--name", "service"]);
    let (sharing, code) = laptop.share(&target);
    let (connecting, private) = other.connect(&code);
    assert!(public != service.address && private != service.address && public != private);
    Reached {
        ways: [("public", public), ("private", private)],
        server,
        running: vec![connecting, sharing, exposing],
    }
}

impl Reached {
    /// Everything ends well, the log is whole, and what passed was counted for each way.
    fn ends_well(mut self, bytes_min: u64) {
        for process in &mut self.running {
            assert_eq!(process.end(), 0, "{}", process.stderr());
        }
        assert_eq!(self.server.process.end(), 0, "{}", self.server.process.stderr());
        self.server.verified();
        // What was counted last is written down at a clean stop, and there after a restart.
        self.server.restart();
        let api = self.server.api();
        let mappings = api.get("/v1/mappings")["items"].as_array().unwrap().clone();
        assert_eq!(mappings.len(), 2, "{mappings:?}");
        for mapping in mappings {
            let usage = &api.get(&format!("/v1/mappings/{}", mapping["id"].as_str().unwrap()))["usage"];
            let passed = usage["bytes_in"].as_u64().unwrap() + usage["bytes_out"].as_u64().unwrap();
            assert!(passed >= bytes_min, "{mapping}: {usage} of {bytes_min}");
        }
        assert_eq!(self.server.process.end(), 0, "{}", self.server.process.stderr());
    }
}

#[test]
fn redis_answers_commands_pipelines_and_large_values() {
    let service = redis();
    let reached = reach(&service);
    let mut value = Vec::new();
    pour(&mut value, 11, 32 * MIB).unwrap();
    let pipelined = 10_000 * i64::from(torture());
    for (way, address) in reached.ways {
        let mut redis = Redis::open(address);
        assert_eq!(redis.call(&[b"SET", b"greeting", way.as_bytes()]), Reply::Simple("OK".to_owned()));
        assert_eq!(redis.call(&[b"GET", b"greeting"]), Reply::Bulk(way.into()));
        assert_eq!(redis.call(&[b"GET", b"nothing"]), Reply::Nil);

        let counter = format!("counter-{way}").into_bytes();
        let commands: Vec<_> = (0..pipelined).map(|_| vec![b"INCR".to_vec(), counter.clone()]).collect();
        let expected: Vec<_> = (1..=pipelined).map(Reply::Number).collect();
        assert!(redis.pipeline(&commands) == expected, "{way}: answers come in order");

        assert_eq!(redis.call(&[b"SET", way.as_bytes(), &value]), Reply::Simple("OK".to_owned()));
        assert!(redis.call(&[b"GET", way.as_bytes()]) == Reply::Bulk(value.clone()), "{way}");
    }
    // What went in through one way comes out of the other, and out of the service itself.
    let (_, private) = reached.ways[1];
    for address in [private, service.address] {
        let mut redis = Redis::open(address);
        assert!(redis.call(&[b"GET", b"public"]) == Reply::Bulk(value.clone()));
        assert_eq!(redis.call(&[b"GET", b"counter-public"]), Reply::Bulk(pipelined.to_string().into()));
    }
    reached.ends_well(64 * MIB);
}

fn curl(arguments: &[&str]) -> Vec<u8> {
    said(
        tool(&program("curl")).args(["-sS", "--fail", "--max-time", "100", "--noproxy", "*"]).args(arguments),
    )
}

fn hash_of(file: &std::path::Path) -> (u64, String) {
    drain(File::open(file).unwrap()).unwrap()
}

/// Many requests at once, a connection each: answers that were whole.
fn short_requests(address: SocketAddr, callers: usize, requests: usize) -> usize {
    let call = move || -> std::io::Result<bool> {
        let mut stream = dial(address)?;
        write!(stream, "GET / HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nhello from behind NAT\n"))
    };
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            std::thread::spawn(move || {
                (0..requests)
                    .filter(|_| match call() {
                        Ok(whole) => whole,
                        Err(error) => panic!("{error}"),
                    })
                    .count()
            })
        })
        .collect();
    callers.into_iter().map(|caller| caller.join().unwrap()).sum()
}

#[test]
fn nginx_serves_downloads_uploads_and_many_short_connections() {
    let service = nginx();
    let www = service.folder.path().join("www");
    let sent = pour(File::create(www.join("large")).unwrap(), 12, 64 * MIB).unwrap();
    let reached = reach(&service);
    let scratch = tempfile::tempdir().unwrap();
    let up = scratch.path().join("up");
    let uploaded = pour(File::create(&up).unwrap(), 13, 32 * MIB).unwrap();
    for (way, address) in reached.ways {
        let url = format!("http://{address}/");
        assert_eq!(curl(&[&url]), b"hello from behind NAT\n", "{way}");

        let head = String::from_utf8(curl(&["--head", &url])).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 22"), "{way}: {head}");

        // Three requests, one connection.
        let written = curl(&[
            "-w",
            "%{num_connects} ",
            "-o",
            "/dev/null",
            "-o",
            "/dev/null",
            "-o",
            "/dev/null",
            &url,
            &url,
            &url,
        ]);
        assert_eq!(String::from_utf8(written).unwrap().trim(), "1 0 0", "{way}");

        let down = scratch.path().join(way);
        curl(&["-o", down.to_str().unwrap(), &format!("{url}large")]);
        assert_eq!(hash_of(&down), (64 * MIB, sent.clone()), "{way}");

        curl(&["-T", up.to_str().unwrap(), &format!("{url}put/{way}")]);
        assert_eq!(hash_of(&www.join("put").join(way)), (32 * MIB, uploaded.clone()), "{way}");

        let requests = 25 * torture() as usize;
        assert_eq!(short_requests(address, 16, requests), 16 * requests, "{way}");
    }
    reached.ends_well(96 * MIB);
}

fn psql(address: SocketAddr) -> Command {
    let mut command = tool(&newest_postgres().join("psql"));
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres"]);
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command
}

fn query(address: SocketAddr, sql: &str) -> String {
    String::from_utf8(said(psql(address).args(["-c", sql]))).unwrap().trim().to_owned()
}

#[test]
fn postgres_copies_a_hundred_thousand_rows_in_and_out() {
    const ROWS: usize = 100_000;
    let service = postgres();
    // It listens before it takes queries.
    eventually("PostgreSQL is up", || {
        let output = psql(service.address).args(["-c", "select 1"]).output().unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    });
    let reached = reach(&service);
    let mut rows = String::new();
    for row in 0..ROWS {
        writeln!(rows, "{row}\t{}", blake3::hash(&row.to_le_bytes())).unwrap();
    }
    let mut sums = Vec::new();
    for (way, address) in reached.ways {
        let table = format!("rows_{way}");
        query(address, &format!("create table {table} (id bigint primary key, sum text not null)"));
        fed(psql(address).args(["-c", &format!("copy {table} from stdin")]), |input| {
            input.write_all(rows.as_bytes()).unwrap();
        });
        assert_eq!(query(address, &format!("select count(*) from {table}")), ROWS.to_string());
        let out =
            said(psql(address).args(["-c", &format!("copy (select * from {table} order by id) to stdout")]));
        assert!(out == rows.as_bytes(), "{way}: the rows come back as they went");
        sums.push(query(
            service.address,
            &format!("select md5(string_agg(id || ':' || sum, ',' order by id)) from {table}"),
        ));
        // A session that fails says so, and the next one works.
        let failed = psql(address).args(["-c", "select * from nowhere"]).output().unwrap();
        assert!(!failed.status.success() && String::from_utf8_lossy(&failed.stderr).contains("nowhere"));
    }
    assert_eq!(sums[0], sums[1]);
    reached.ends_well(2 * rows.len() as u64);
}

/// What ssh, scp and sftp need to get in, strictly.
fn ssh_options(service: &Service) -> Vec<String> {
    let file = |name: &str| service.folder.path().join(name).display().to_string();
    let options = [
        "BatchMode=yes".to_owned(),
        "IdentitiesOnly=yes".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        format!("UserKnownHostsFile={}", file("known_hosts")),
        format!("IdentityFile={}", file("client_key")),
        "ConnectTimeout=30".to_owned(),
    ];
    let mut all = vec!["-F".to_owned(), "/dev/null".to_owned()];
    all.extend(options.into_iter().flat_map(|option| ["-o".to_owned(), option]));
    all
}

#[test]
fn ssh_runs_commands_pipes_bytes_and_copies_files() {
    let service = sshd();
    let reached = reach(&service);
    let options = ssh_options(&service);
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: String| scratch.path().join(name).display().to_string();
    let original = path("original".to_owned());
    let sent = pour(File::create(&original).unwrap(), 14, 8 * MIB).unwrap();
    for (way, address) in reached.ways {
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let ssh = |command: &str| {
            let mut ssh = tool(&program("ssh"));
            ssh.args(&options).args(["-p", &port, &host, command]);
            ssh
        };
        assert_eq!(said(&mut ssh("echo $((6 * 7))")), b"42\n", "{way}");
        assert_eq!(ssh("exit 7").output().unwrap().status.code(), Some(7), "{way}: the exit code arrives");

        let mut poured = String::new();
        let back = fed(&mut ssh("cat"), |input| poured = pour(input, 15, 32 * MIB).unwrap());
        assert_eq!(drain(back.as_slice()).unwrap(), (32 * MIB, poured), "{way}");

        let there = path(format!("scp-{way}"));
        let remote = format!("{host}:{there}");
        said(tool(&program("scp")).args(&options).args(["-q", "-P", &port, &original, &remote]));
        assert_eq!(hash_of(there.as_ref()), (8 * MIB, sent.clone()), "{way}");

        let (there, back) = (path(format!("sftp-{way}")), path(format!("back-{way}")));
        let batch = format!("put {original} {there}\nget {there} {back}\n");
        fed(tool(&program("sftp")).args(&options).args(["-q", "-P", &port, "-b", "-", &host]), |input| {
            input.write_all(batch.as_bytes()).unwrap();
        });
        assert_eq!(hash_of(back.as_ref()), (8 * MIB, sent.clone()), "{way}");
    }
    reached.ends_well(64 * MIB);
}
