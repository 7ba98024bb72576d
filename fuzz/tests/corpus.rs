//! Every file of every corpus, and a few thousand inputs grown from them, through the targets' bodies.

use std::fs;
use std::path::{Path, PathBuf};

use taut_fuzz::{Body, TARGETS};

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let mut names: Vec<String> = fs::read_dir(root())
        .expect("fuzz/corpus")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, TARGETS.map(|(name, _)| name));
    for (name, _) in TARGETS {
        assert!(corpus(name).len() >= 4, "{name}: seeds of every kind");
        let wrapper = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz_targets/{name}.rs"));
        let source = fs::read_to_string(&wrapper).expect("a wrapper for libFuzzer");
        assert!(source.contains(&format!("taut_fuzz::{name}::run")), "{name}");
    }
}

#[test]
fn every_file_of_the_corpora_keeps_the_promises() {
    for (name, body) in TARGETS {
        for (path, data) in corpus(name) {
            held(name, body, &data, &path.display().to_string());
        }
    }
}

#[test]
fn inputs_grown_from_the_corpora_keep_the_promises() {
    for (name, body) in TARGETS {
        let seeds: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, data)| data).collect();
        let mut random = Random(0x5eed_0000_0000_0001);
        let began = std::time::Instant::now();
        // The outbox moves megabytes where the others move kilobytes.
        let inputs = if name == "outbox" { INPUTS / 20 } else { INPUTS };
        for round in 0..inputs {
            let data = random.input(&seeds);
            held(name, body, &data, &format!("round {round}"));
        }
        eprintln!("{name}: {inputs} inputs in {:?}", began.elapsed());
    }
}

/// Runs a body and, should it panic, says on what.
fn held(name: &str, body: Body, data: &[u8], what: &str) {
    if let Err(panic) = std::panic::catch_unwind(|| body(data)) {
        eprintln!("{name}, {what}: {data:02x?}");
        std::panic::resume_unwind(panic);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(root().join(name))
        .expect("a corpus")
        .map(|entry| entry.expect("readable").path())
        .map(|path| (path.clone(), fs::read(&path).expect("readable")))
        .collect();
    files.sort();
    files
}

/// Pseudo-random inputs that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from(mixed >> 32).expect("32 bits")
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() % bound.max(1)
    }

    /// Octets without meaning, or seeds cut, joined and changed in a few places.
    fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        if self.below(8) == 0 {
            let length = self.below(200);
            return (0..length).map(|_| self.next() as u8).collect();
        }
        let mut data = seeds[self.below(seeds.len())].clone();
        if self.below(4) == 0 {
            let other = &seeds[self.below(seeds.len())];
            data.truncate(self.below(data.len() + 1));
            data.extend(&other[self.below(other.len() + 1)..]);
        }
        for _ in 0..self.below(6) {
            let at = self.below(data.len() + 1);
            match self.below(4) {
                0 if at < data.len() => drop(data.remove(at)),
                1 => data.insert(at, self.next() as u8),
                2 if at < data.len() => data[at] ^= 1 << self.below(8),
                _ if at < data.len() => data[at] = self.next() as u8,
                _ => data.extend(b"\xff\0"),
            }
        }
        data
    }
}

/// For each target.
const INPUTS: usize = 3000;
