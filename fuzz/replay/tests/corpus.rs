//! The stored corpus, and a million random inputs, on stable.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod seeds;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use underpass_fuzz_replay::{Replay, TARGETS, frame};

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

/// The stored inputs of a target, by name.
fn stored(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = corpus().join(target);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

/// Every stored input, those that once broke something among them. Those called `valid-…` must be accepted:
/// else the target tries nothing but its own door.
#[test]
fn c5_the_stored_corpus_breaks_nothing() {
    for (target, replay) in TARGETS {
        let mut valid = 0;
        for (name, input) in stored(target) {
            let accepted = replay(&input);
            if name.starts_with("valid-") {
                assert!(accepted > 0, "{target}/{name} is refused");
                valid += 1;
            }
        }
        assert!(valid > 0, "{target} has no valid seed");
    }
}

/// Each target has its folder, its cargo-fuzz program and its place in this crate.
#[test]
fn targets_corpus_and_programs_are_the_same() {
    let names = |folder: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap().replace(".rs", "")).collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(corpus()), targets);
    assert_eq!(names(corpus().join("../fuzz_targets")), targets);
    let manifest = fs::read_to_string(corpus().join("../Cargo.toml")).unwrap();
    for target in &targets {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in fuzz/Cargo.toml");
    }
}

/// Writes the seeds anew, when asked to by `UNDERPASS_BLESS=1`; else checks that each has its file.
#[test]
fn every_seed_is_stored() {
    let bless = std::env::var_os("UNDERPASS_BLESS").is_some();
    for (target, name, input) in seeds::all() {
        let path = corpus().join(target).join(format!("valid-{name}"));
        if bless {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, input).unwrap();
        }
        assert!(path.exists(), "{} is missing", path.display());
    }
}

/// The mending knows the format: it changes nothing in what the event log wrote itself.
#[test]
fn mending_leaves_whole_frames_alone() {
    let mut frame = seeds::frame();
    let whole = frame.clone();
    frame::mend_frame(&mut frame);
    assert_eq!(frame, whole);
    let mut head = seeds::head();
    let whole = head.clone();
    frame::mend_head(&mut head);
    assert_eq!(head, whole);
}

/// xorshift64: the same inputs in every run, so that a finding can be found again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() % (limit.max(1) as u64)).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_le_bytes()[3]
    }

    /// Random bytes, or a stored input with a few changes.
    fn input(&mut self, stored: &[(String, Vec<u8>)], input: &mut Vec<u8>) {
        input.clear();
        if self.below(4) == 0 {
            for _ in 0..self.below(64) {
                let byte = self.byte();
                input.push(byte);
            }
            return;
        }
        let seed = self.below(stored.len());
        input.extend_from_slice(&stored[seed].1);
        for _ in 0..=self.below(4) {
            let at = self.below(input.len());
            let byte = self.byte();
            match self.below(5) {
                0 => input.truncate(at),
                1 => input.insert(at.min(input.len()), byte),
                2 if at < input.len() => drop(input.remove(at)),
                // The numbers that lengths go wrong with.
                3 if at < input.len() => input[at] = [0, 0x7f, 0x80, 0xff][usize::from(byte) % 4],
                _ if at < input.len() => input[at] ^= 1 << (byte % 8),
                _ => {}
            }
        }
    }
}

fn random_inputs(target: &str, count: usize) {
    let (_, replay): (&str, Replay) = *TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let stored = stored(target);
    let (mut dice, mut input, mut accepted) = (Dice(0x5eed), Vec::new(), 0_usize);
    for _ in 0..count {
        dice.input(&stored, &mut input);
        accepted += usize::from(replay(&input) > 0);
    }
    // Both ways out of a decoder were taken.
    assert!(accepted > 0 && accepted < count, "{accepted} of {count} accepted");
}

macro_rules! c5 {
    ($($test:ident: $target:literal, $count:expr;)*) => {$(
        /// C5.
        #[test]
        fn $test() {
            random_inputs($target, $count);
        }
    )*};
}

const MILLION: usize = 1_000_000;

c5! {
    c5_a_million_channel_messages_break_nothing: "channel", MILLION;
    c5_a_million_frames_break_nothing: "frame", MILLION;
    // A handshake costs a hundred times what decoding does.
    c5_ten_thousand_handshakes_break_nothing: "handshake", MILLION / 100;
    c5_a_million_link_chunks_break_nothing: "link", MILLION;
    c5_a_million_payloads_break_nothing: "payload", MILLION;
    c5_a_million_records_break_nothing: "records", MILLION;
    c5_a_million_tokens_break_nothing: "tokens", MILLION;
}
