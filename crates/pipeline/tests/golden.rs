//! The bytes on the wire, frozen. A change that fails here breaks every program already installed.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::fmt::Write as _;

use bytes::BytesMut;
use underpass_pipeline::{Aead, DirectionKeys, Sealer, Secret, derive, record};

const GOLDEN: &str = include_str!("../../../fixtures/wire/records.hex");

#[test]
fn records_and_keys_are_byte_for_byte_what_they_were() {
    let now = lines();
    let golden: String =
        GOLDEN.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        });
    assert_eq!(now, golden, "the wire format changed; now it would be:\n{now}");
}

fn lines() -> String {
    let mut out = String::new();
    let secret = Secret::new(std::array::from_fn(|at| u8::try_from(at).unwrap()));
    let derived: Secret = derive(&secret, &[b"context", b""], "golden secret");
    line(&mut out, "derived", derived.as_bytes());

    let keys = || derive::<DirectionKeys>(&secret, &[b"tunnel"], "golden direction");
    let sealers = [
        ("plain", Sealer::plain()),
        ("xchacha", Sealer::sealed(Aead::XChaCha20Poly1305, keys())),
        ("aes", Sealer::sealed(Aead::Aes256Gcm, keys())),
    ];
    for (name, mut sealer) in sealers {
        let bodies: [(&str, u8, &[u8]); 4] = [
            ("data", record::DATA, b"first bytes"),
            ("empty", record::DATA, b""),
            ("open", record::OPEN, &[0xff; 40]),
            ("fin", record::FIN, b""),
        ];
        for (kind, number, body) in bodies {
            let mut wire = BytesMut::new();
            sealer.seal(number, body, &mut wire).unwrap();
            line(&mut out, &format!("{name}.{kind}"), &wire);
        }
    }
    out
}

fn line(out: &mut String, name: &str, bytes: &[u8]) {
    write!(out, "{name} ").unwrap();
    for byte in bytes {
        write!(out, "{byte:02x}").unwrap();
    }
    out.push('\n');
}
