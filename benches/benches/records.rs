//! Records, sealed and plain. Compare ratios within one run, never numbers across machines: `plain` is
//! the yardstick.

#![allow(clippy::expect_used, missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use underpass_pipeline::record::{DATA, HEADER_BYTES, Header};
use underpass_pipeline::{Aead, DirectionKeys, Opener, Sealer};

const SIZES: [usize; 4] = [128, 4 * 1024, 64 * 1024, 256 * 1024];

const WAYS: [(&str, Option<Aead>); 3] =
    [("plain", None), ("aes-256-gcm", Some(Aead::Aes256Gcm)), ("xchacha20", Some(Aead::XChaCha20Poly1305))];

fn keys() -> DirectionKeys {
    DirectionKeys::new([7; 32], [9; 16])
}

/// What each end of a tunnel does for a record, in place, as the relay does it.
fn seal_and_open(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal+open");
    for (name, aead) in WAYS {
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new(name, size), |b| {
                let (mut sealer, mut opener) = match aead {
                    None => (Sealer::plain(), Opener::plain()),
                    Some(aead) => (Sealer::sealed(aead, keys()), Opener::sealed(aead, keys())),
                };
                let mut frame = vec![0x5a; sealer.overhead() + size];
                b.iter(|| {
                    sealer.seal_frame(DATA, black_box(&mut frame)).expect("seals");
                    let (head, body) = frame.split_first_chunk_mut::<HEADER_BYTES>().expect("has a header");
                    let header = Header::parse(head).expect("is a header");
                    opener.open_in_place(header, black_box(body)).expect("opens")
                });
            });
        }
    }
    group.finish();
}

/// What a new tunnel costs before its first byte: both directions' keys, made ready.
fn derive_keys(c: &mut Criterion) {
    use underpass_pipeline::{Secret, derive};
    let secret = Secret::new([3; 32]);
    c.bench_function("derive", |b| {
        b.iter(|| {
            let keys: DirectionKeys = derive(&secret, &[black_box(&[1; 16])], "tunnel a2n");
            Sealer::sealed(Aead::Aes256Gcm, keys)
        });
    });
}

criterion_group!(benches, seal_and_open, derive_keys);
criterion_main!(benches);
