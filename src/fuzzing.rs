//! Fuzzing on the stable toolchain: inputs are made of the seeds in `fuzz/corpus` by a deterministic mutator. What each
//! target promises is tested next to its code; `fuzz/README.md` tells how to run it for longer.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Number of inputs of a target in an ordinary run of the tests, besides the seeds.
const INPUTS: u64 = 5_000;

/// Maximum length of an input, in bytes.
const LONGEST: usize = 4 << 10;

/// Maximum number of changed inputs that further ones are made of.
const KEPT: usize = 64;

/// Bytes and texts at which parsers often go wrong.
const INTERESTING: &[&[u8]] = &[
    b"\0",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\n",
    b"\r\n",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"-1",
    b"0",
    b"18446744073709551616",
    b"1e999",
    b"null",
    b"0000",
    b"0001",
    b"0004",
    b"ffff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\u0000",
    b"\xf0\x9f\x98\x80",
];

/// Runs `check` on every seed of a target and on inputs made of them. `words` are what the target's inputs consist of.
///
/// With `RESCIND_FUZZ_SECONDS` it runs for that long instead, from another beginning each time, and prints the number
/// of inputs.
///
/// # Panics
/// Panics as `check` does, after the input was written to `fuzz/found`.
pub(crate) fn fuzz(target: &str, words: &[&[u8]], check: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut pool = seeds(&corpus.join(target));
    for seed in &pool {
        try_one(target, seed, &check);
    }
    let seconds = seconds();
    let begun = Instant::now();
    let mut random = StdRng::seed_from_u64(match seconds {
        Some(_) => rand::random(),
        None => 7,
    });
    let (seeds, mut done) = (pool.len(), 0_u64);
    let goes_on = |done| match seconds {
        Some(seconds) => begun.elapsed() < seconds,
        None => done < INPUTS,
    };
    while goes_on(done) {
        let input = mutated(&pool, words, &mut random);
        try_one(target, &input, &check);
        done += 1;
        // Changes pile up in some, while most inputs stay close to the seeds.
        if random.random_ratio(1, 20) {
            if pool.len() >= seeds + KEPT {
                let at = random.random_range(seeds..pool.len());
                pool.swap_remove(at);
            }
            pool.push(input);
        }
    }
    if seconds.is_some() {
        let seconds = begun.elapsed().as_secs();
        eprintln!("fuzz {target}: {seeds} seeds, {done} inputs in {seconds} s");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a flag of the tests, no configuration"
)]
fn seconds() -> Option<Duration> {
    let seconds = std::env::var("RESCIND_FUZZ_SECONDS").ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// Returns the seeds of a target, in the order of their names.
fn seeds(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a target has a folder of seeds");
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "a target has seeds");
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn try_one(target: &str, input: &[u8], check: &impl Fn(&[u8])) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        keep(target, input, panic);
    }
}

/// Writes down an input that failed, and goes on panicking.
fn keep(target: &str, input: &[u8], panic: Box<dyn Any + Send>) -> ! {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/found");
    let name = format!("{target}-{:08x}", crc32fast::hash(input));
    let written = fs::create_dir_all(&found).and_then(|()| fs::write(found.join(&name), input));
    eprintln!("fuzz {target}: fuzz/found/{name} fails ({written:?})");
    resume_unwind(panic)
}

/// Makes an input of those in `pool`, with one to eight changes.
fn mutated(pool: &[Vec<u8>], words: &[&[u8]], random: &mut StdRng) -> Vec<u8> {
    let mut input = pool[random.random_range(0..pool.len())].clone();
    for _ in 0..random.random_range(1..=8) {
        let at = random.random_range(0..=input.len());
        let end = random.random_range(at..=input.len().min(at + 64));
        match random.random_range(0..9) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = random.random(),
            2 => drop(input.drain(at..end)),
            3 => {
                let again = input[at..end].repeat(random.random_range(1..4));
                input.splice(at..at, again);
            }
            4 => drop(input.splice(at..end, of(INTERESTING, random).iter().copied())),
            5 if !words.is_empty() => drop(input.splice(at..at, of(words, random).iter().copied())),
            6 => {
                let other = &pool[random.random_range(0..pool.len())];
                let from = random.random_range(0..=other.len());
                let to = random.random_range(from..=other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
            7 if random.random_ratio(1, 4) => input.truncate(at),
            _ => input.insert(at, random.random()),
        }
        input.truncate(LONGEST);
    }
    input
}

fn of<'a>(all: &[&'a [u8]], random: &mut StdRng) -> &'a [u8] {
    all[random.random_range(0..all.len())]
}
