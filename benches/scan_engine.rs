//! How fast the engine is in memory, beside `memchr::memmem` looking for one literal in the same buffer.
//!
//! `cargo bench --bench scan_engine [FOLDER]`. The folder's files, up to 64 MiB of them, are the text; by
//! default they are the sources of the crates that cargo downloaded. The two searchers run in turn, and
//! what is printed is the median of the ratio of each pair of runs.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aho_corasick::packed;
use memchr::memmem;
use rescind::keyformat::FormatSet;
use rescind::scan::{Encodings, Engine};

const LARGE: usize = 64 << 20;
const SMALL: usize = 1 << 20;
const ROUNDS: usize = 15;

fn main() -> ExitCode {
    let folder = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let folder = folder.map_or_else(registry_sources, PathBuf::from);
    let mut source = Vec::with_capacity(LARGE);
    gather(&folder, &mut source);
    if source.len() < SMALL {
        eprintln!(
            "{} holds less than 1 MiB: name a larger folder",
            folder.display()
        );
        return ExitCode::FAILURE;
    }
    let random = noise(source.len());
    let own = own_brand();
    let short = others("ghp_ gho_ ghu_ ghs_ ghr_ npm_ glpa xoxb shpa dop_");
    let sets = [
        ("the 2 shipped formats", FormatSet::builtin()),
        ("10 formats, prefixes of 7 to 10 characters", own),
        ("10 formats, prefixes of 4 characters", short),
    ];
    println!("searcher                                       GB/s   of memmem");
    for (name, text) in [
        ("source code", source.as_slice()),
        ("random bytes", &random),
        (
            "source code, in cache",
            &source[source.len() / 2..][..SMALL],
        ),
    ] {
        println!("\n{name}, {} KiB", text.len() >> 10);
        for (label, formats) in &sets {
            let engine = Engine::new(formats, Encodings::ALL);
            compare(label, text, |text| engine.scan(text).len());
        }
        let literals = ["rsc_sk_", "574ck4u7h"];
        let teddy = packed::Searcher::new(literals).expect("Teddy takes two literals");
        compare("(Teddy, 2 literals, no encodings)", text, |text| {
            teddy.find_iter(text).count()
        });
    }
    ExitCode::SUCCESS
}

/// Runs `search` and memmem in turn and prints the speed of the one and its ratio to the other.
fn compare(label: &str, text: &[u8], search: impl Fn(&[u8]) -> usize) {
    let memmem = memmem::Finder::new("rsc_sk_");
    let repeat = (LARGE / text.len()).max(1);
    let mut times = Vec::new();
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let ours = timed(repeat, || search(black_box(text)));
        let theirs = timed(repeat, || memmem.find_iter(black_box(text)).count());
        times.push(ours.as_secs_f64());
        ratios.push(theirs.as_secs_f64() / ours.as_secs_f64());
    }
    let bytes = u32::try_from(text.len() * repeat).map_or(f64::NAN, f64::from);
    println!(
        "{label:45} {:5.2}   {:5.2}",
        bytes / median(&mut times) / 1e9,
        median(&mut ratios)
    );
}

fn timed(repeat: usize, mut work: impl FnMut() -> usize) -> Duration {
    let start = Instant::now();
    for _ in 0..repeat {
        black_box(work());
    }
    start.elapsed()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn registry_sources() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.unwrap_or_default().join("registry/src")
}

/// Appends the files under `folder` in the order of their names, until there is enough.
fn gather(folder: &Path, text: &mut Vec<u8>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if text.len() >= LARGE {
            return;
        }
        if path.is_dir() {
            gather(&path, text);
        } else if let Ok(contents) = std::fs::read(&path) {
            text.extend_from_slice(&contents[..contents.len().min(LARGE - text.len())]);
        }
    }
}

/// Bytes without any pattern, the same in each run (xorshift64*).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    std::iter::repeat_with(|| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

fn own_brand() -> FormatSet {
    others(
        "rsc_sk_ acme_sk_ acme_live_ shop_rk_ foobar_ex_ mail_api_ pay_key_ data_tok_ auth_svc_ edge_sec_",
    )
}

fn others(prefixes: &str) -> FormatSet {
    let mut patterns = String::new();
    for prefix in prefixes.split_whitespace() {
        let id = prefix.trim_end_matches('_');
        writeln!(
            patterns,
            "[[format]]\nid = \"{id}\"\nvisibility = \"secret\"\nprefix = \"{prefix}\"\n\
             body = {{ alphabet = \"base62\", length = 30 }}\n\
             checksum = {{ algorithm = \"crc32\", encoding = \"base62\", length = 6, over = \"body\" }}"
        )
        .expect("a String takes everything");
    }
    FormatSet::parse(&[("bench.toml", &patterns)]).expect("the bench's formats are right")
}
