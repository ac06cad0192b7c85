//! Speed of the engine in memory, compared with searchers of `aho-corasick` that search for the same literals in
//! the same buffer and discard what they find.
//!
//! `cargo bench --bench scan_engine [FOLDER]`, or `-- hostile` for texts that are made to be slow. The text consists of
//! the folder's files, up to 64 MiB of them; by default, they are the sources of the crates that cargo downloaded. The
//! two searchers run in turn, and the median of the ratios of all pairs of runs is printed.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aho_corasick::{AhoCorasick, AhoCorasickKind, packed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use memchr::memmem;
use rescind::keyformat::FormatSet;
use rescind::scan::{Encodings, Engine};

const LARGE: usize = 64 << 20;
const SMALL: usize = 1 << 20;
const ROUNDS: usize = 15;

/// Numbers of formats in the further sets, whose prefixes are random brands.
const MANY: [usize; 6] = [13, 26, 102, 300, 1000, 3000];

/// Maximum number of literals that a packed searcher accepts.
const MOST_PACKED: usize = 64;

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "hostile") {
        hostile();
        return ExitCode::SUCCESS;
    }
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
    let cached = &source[source.len() / 2..][..SMALL];
    println!("formats                                        GB/s   of the peer");
    for (name, text) in [
        ("source code", source.as_slice()),
        ("random bytes", &random),
        ("source code, in cache", cached),
    ] {
        println!("\n{name}, {} KiB", text.len() >> 10);
        for (label, prefixes, formats) in sets() {
            let engine = Engine::new(&formats, Encodings::ALL);
            let literals = literals(&prefixes);
            if literals.len() <= MOST_PACKED {
                let peer = packed::Searcher::new(&literals).expect("it takes so many literals");
                let peer = |text: &[u8]| peer.find_iter(text).count();
                compare(&label, "packed", text, |text| engine.scan(text).len(), peer);
            } else {
                let kind = Some(AhoCorasickKind::ContiguousNFA);
                let peer = AhoCorasick::builder().kind(kind).build(&literals);
                let peer = peer.expect("it takes so many literals");
                let sample = &text[..text.len().min(SMALL)];
                let peer = |text: &[u8]| peer.find_iter(text).count();
                compare(
                    &label,
                    "AhoCorasick",
                    sample,
                    |text| engine.scan(text).len(),
                    peer,
                );
            }
        }
    }
    ExitCode::SUCCESS
}

/// Prints the speed in texts that are full of what looks like keys at first, with the shipped formats.
fn hostile() {
    let formats = FormatSet::builtin();
    let engine = Engine::new(&formats, Encodings::ALL);
    let format = formats.get("rescind_secret").expect("it is shipped");
    let key = format.mint().expect("there is randomness");
    let hex = "0123456789abcdef".repeat(5);
    println!("text, repeated                                  MB/s");
    for (label, text) in [
        ("prefix", "rsc_sk_".to_owned()),
        (
            "prefix and all but a checksum",
            format!("rsc_sk_{}", &hex[..36]),
        ),
        ("anchor", "574ck4u7h".to_owned()),
        (
            "anchor and all but a checksum",
            format!("sk_{}user0574ck4u7h{}", &hex[..77], &hex[..8]),
        ),
        ("keys", key.expose().to_owned()),
    ] {
        let wide = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let base64 = STANDARD_NO_PAD.encode(text.repeat(3)).into_bytes();
        for (encoding, bytes) in [
            ("", text.into_bytes()),
            (", UTF-16", wide),
            (", base64", base64),
        ] {
            speed(&engine, &format!("{label}{encoding}"), &bytes);
        }
    }
    // Parts by which literals in base64 are found.
    for part in ["zR1N", "c2Nf", "NTc0"] {
        speed(&engine, &format!("part {part}"), part.as_bytes());
    }
}

fn speed(engine: &Engine, label: &str, piece: &[u8]) {
    let text = piece.repeat(4 * SMALL / piece.len());
    let mut times: Vec<f64> = (0..5)
        .map(|_| timed(1, || engine.scan(black_box(&text)).len()).as_secs_f64())
        .collect();
    let bytes = u32::try_from(text.len()).map_or(f64::NAN, f64::from);
    println!("{label:45} {:6.0}", bytes / median(&mut times) / 1e6);
}

/// Returns the sets of formats to search for, with their prefixes or anchors.
fn sets() -> Vec<(String, Vec<String>, FormatSet)> {
    let own = "rsc_sk_ acme_sk_ acme_live_ shop_rk_ foobar_ex_ mail_api_ pay_key_ data_tok_ auth_svc_ edge_sec_";
    let short = "ghp_ gho_ ghu_ ghs_ ghr_ npm_ glpa xoxb shpa dop_";
    let of = |prefixes: &str| prefixes.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let shipped = of("rsc_sk_ 574ck4u7h");
    let mut sets = vec![("the 2 shipped".to_owned(), shipped, FormatSet::builtin())];
    for (label, prefixes) in [
        ("10, prefixes of 7 to 10 characters", of(own)),
        ("10, prefixes of 4 characters", of(short)),
    ] {
        let formats = others(&prefixes);
        sets.push((label.to_owned(), prefixes, formats));
    }
    for (end, label) in [("_", ""), ("_sk_", ", that end alike")] {
        for count in MANY {
            let prefixes = brands(count, end);
            let formats = others(&prefixes);
            sets.push((format!("{count} brands{label}"), prefixes, formats));
        }
    }
    sets
}

/// Returns the literals that a search in all encodings must find for these prefixes.
fn literals(prefixes: &[String]) -> Vec<Vec<u8>> {
    let of_one = |prefix: &String| {
        let plain = prefix.as_bytes();
        let mut utf16: Vec<u8> = plain.iter().flat_map(|byte| [*byte, 0]).collect();
        utf16.pop();
        let base64 = (0..3).map(|before| {
            let text = [&[0; 3][..before], plain].concat();
            let whole = (before * 8).div_ceil(6)..text.len() * 8 / 6;
            STANDARD_NO_PAD.encode(text).as_bytes()[whole].to_vec()
        });
        let forms = [plain.to_vec(), utf16].into_iter().chain(base64);
        forms.collect::<Vec<_>>()
    };
    prefixes.iter().flat_map(of_one).collect()
}

/// Runs both searches in turn, and prints the speed of the engine and its ratios to the peer and to memmem.
fn compare(
    label: &str,
    peer: &str,
    text: &[u8],
    search: impl Fn(&[u8]) -> usize,
    other: impl Fn(&[u8]) -> usize,
) {
    let memmem = memmem::Finder::new("rsc_sk_");
    let repeat = (LARGE / text.len()).clamp(1, 8);
    let mut times = Vec::new();
    let mut ratios = Vec::new();
    let mut of_memmem = Vec::new();
    for _ in 0..ROUNDS {
        let ours = timed(repeat, || search(black_box(text))).as_secs_f64();
        let theirs = timed(repeat, || other(black_box(text))).as_secs_f64();
        let one = timed(repeat, || memmem.find_iter(black_box(text)).count()).as_secs_f64();
        times.push(ours);
        ratios.push(theirs / ours);
        of_memmem.push(one / ours);
    }
    let bytes = u32::try_from(text.len() * repeat).map_or(f64::NAN, f64::from);
    println!(
        "{label:45} {:5.2}   {:5.2} of {peer}, {:.2} of memmem",
        bytes / median(&mut times) / 1e9,
        median(&mut ratios),
        median(&mut of_memmem)
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

/// Appends the files under `folder` in the order of their names, up to the size limit.
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

/// Returns pseudorandom bytes, the same in each run (xorshift64*).
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

/// Prefixes of so many brands, the same in each run.
fn brands(count: usize, end: &str) -> Vec<String> {
    let noise = noise(count * 8 + 8);
    let mut brands = std::collections::BTreeSet::new();
    for bytes in noise.windows(8) {
        let length = 6 + usize::from(bytes[0] % 3);
        let letters = bytes[..length].iter();
        let name: String = letters.map(|byte| char::from(b'a' + byte % 26)).collect();
        brands.insert(format!("{name}{end}"));
        if brands.len() == count {
            break;
        }
    }
    brands.into_iter().collect()
}

fn others(prefixes: &[String]) -> FormatSet {
    let mut patterns = String::new();
    for prefix in prefixes {
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
