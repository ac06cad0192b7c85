//! Pushes and deliveries that become more than they are: in memory, or in time.

pub(super) mod builder;
mod rig;

use builder::{
    BLOB, COMMIT, Pack, Push, TAG, TREE, before, candidates, copying, deflate, file, lines, named,
    overlapping,
};
use rescind::fetch::ObjectId;
use rescind::keyformat::KeyValue;
use rig::Rig;

fn number(n: usize) -> ObjectId {
    ObjectId::from_hex(format!("{n:040x}").as_bytes()).unwrap()
}

/// Thousands of candidates in a file whose name has a megabyte, and a key of ours among them.
fn long_name(key: &str, candidates: &[KeyValue]) -> Push {
    let keys = candidates.iter().map(KeyValue::expose);
    file(&vec![b'n'; 1 << 20], &lines(keys.chain([key])))
}

/// Files with candidates, deep in folders with long names.
fn deep_and_long(key: &str, candidates: &[KeyValue]) -> Push {
    let mut pack = Pack::new();
    let mut tree = Vec::new();
    for (n, some) in candidates.chunks(4).enumerate() {
        let blob = pack.object(BLOB, &lines(some.iter().map(KeyValue::expose).chain([key])));
        tree.extend(named("100644", format!("file{n:06}").as_bytes(), blob));
    }
    let mut id = pack.object(TREE, &tree);
    for _ in 0..300 {
        id = pack.object(TREE, &named("40000", &[b'd'; 4000], id));
    }
    pack.push(id)
}

/// Folders in folders, each with a file: looking paths up by walking to the root is quadratic.
fn deep(key: &str, depth: usize) -> Push {
    let mut pack = Pack::new();
    let blob = pack.object(BLOB, key.as_bytes());
    let mut id = pack.object(TREE, &named("100644", b"leak", blob));
    for n in 0..depth {
        let blob = pack.object(BLOB, &n.to_be_bytes());
        let entries = [named("40000", b"d", id), named("100644", b"f", blob)];
        id = pack.object(TREE, &entries.concat());
    }
    pack.push(id)
}

/// Hundreds of thousands of names.
fn many_names(key: &str, each: usize) -> Push {
    let mut pack = Pack::new();
    let blob = pack.object(BLOB, key.as_bytes());
    let mut root = named("100644", b"leak", blob);
    for folder in 0..10 {
        let mut tree = Vec::new();
        for n in 0..each {
            let id = number(folder * each + n + 1);
            tree.extend(named("100644", format!("{n:08}{folder}").as_bytes(), id));
        }
        let tree = pack.object(TREE, &tree);
        root.extend(named("40000", format!("z{folder}").as_bytes(), tree));
    }
    let root = pack.object(TREE, &root);
    pack.push(root)
}

/// Commits with a thousand parents each, and one with many more.
fn many_parents(key: &str, commits: usize) -> Push {
    let mut pack = Pack::new();
    let blob = pack.object(BLOB, key.as_bytes());
    let tree = pack.object(TREE, &named("100644", b"leak", blob));
    let mut parents: Vec<_> = (1..=1000).map(number).collect();
    for _ in 0..commits {
        parents[0] = pack.commit(tree, &parents);
    }
    let octopus: Vec<_> = (1..=commits * 1500)
        .map(number)
        .chain([parents[0], before()])
        .collect();
    let after = pack.commit(tree, &octopus);
    pack.finish(after)
}

/// A few megabytes that inflate to four gigabytes.
fn zlib_bomb() -> Push {
    let mut pack = Pack::new();
    let zeros = deflate(&vec![0; 16 << 20], 6);
    for _ in 0..256 {
        pack.entry(BLOB, b"", &zeros);
    }
    let tree = pack.object(TREE, b"");
    pack.push(tree)
}

/// Deltas of a few bytes that make 16 MiB each, in a family that is as bad as a family can be: of every two
/// one has two more, so that all of them are wanted at once.
fn delta_bomb(key: &str) -> Push {
    let mut pack = Pack::new();
    let blob = pack.object(BLOB, key.as_bytes());
    let tree = pack.object(TREE, &named("100644", b"leak", blob));
    let mut open = vec![pack.entry(BLOB, b"", &deflate(&vec![0; 1 << 16], 1))];
    let mut size = 1 << 16;
    for _ in 0..10 {
        let delta = copying(size, 256);
        size = 256 << 16;
        let twice = open.iter().flat_map(|base| [*base, *base]);
        let bases: Vec<_> = twice.collect();
        open = bases
            .iter()
            .map(|base| pack.offset_delta(*base, &delta))
            .collect();
    }
    pack.push(tree)
}

/// A key behind copies by the hundred thousand that overlap, of zeros that are too many to be held.
fn overlapping_copies(key: &str) -> Push {
    let mut pack = Pack::new();
    let zeros = 33 << 20;
    let base = pack.entry(BLOB, b"", &deflate(&vec![0; zeros], 6));
    pack.offset_delta(base, &overlapping(zeros, 300_000, key.as_bytes()));
    let tree = pack.object(TREE, b"");
    pack.push(tree)
}

/// As many objects as fit into a small pack.
fn many_objects(key: &str, ref_deltas: bool) -> Push {
    let mut pack = Pack::new();
    let blob = pack.object(BLOB, key.as_bytes());
    let tree = pack.object(TREE, &named("100644", b"leak", blob));
    let empty = deflate(b"", 9);
    let mut n = 0_u64;
    while pack.len() < (4 << 20) - 1000 {
        if ref_deltas {
            n += 1;
            let mut base = [7; 20];
            base[..8].copy_from_slice(&n.to_be_bytes());
            pack.ref_delta(&base, &empty);
        } else {
            pack.entry(BLOB, b"", &empty);
        }
    }
    pack.push(tree)
}

/// Nothing but candidates.
fn only_candidates(key: &str, candidates: &[KeyValue]) -> Push {
    let keys = candidates.iter().map(KeyValue::expose);
    file(b"all", &lines(keys.chain([key])))
}

/// A key of ours at a hundred places in each of many files, between thousands of candidates.
fn everywhere(key: &str, candidates: &[KeyValue]) -> Push {
    let mut pack = Pack::new();
    let mut tree = Vec::new();
    for (n, some) in candidates.chunks(100).enumerate() {
        let keys = some.iter().flat_map(|candidate| [key, candidate.expose()]);
        let blob = pack.object(BLOB, &lines(keys));
        let name = format!("{n:04}{}", "x".repeat(4000));
        tree.extend(named("100644", name.as_bytes(), blob));
    }
    let tree = pack.object(TREE, &tree);
    pack.push(tree)
}

/// A commit of megabytes, a chain of tags, and an empty tree many times.
fn odd_texts(key: &str, size: usize) -> Push {
    let mut pack = Pack::new();
    let blob = pack.object(BLOB, key.as_bytes());
    let tree = pack.object(TREE, &named("120000", b"link", blob));
    let header = format!(
        "tree {tree}\nparent {}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\n",
        before()
    );
    let mut text = header.into_bytes();
    text.resize(size, b'm');
    let mut after = pack.object(COMMIT, &text);
    let mut kind = "commit";
    for n in 0..size >> 9 {
        let text = format!("object {after}\ntype {kind}\ntag t{n}\ntagger A <a@b> 1 +0000\n\nm\n");
        after = pack.object(TAG, text.as_bytes());
        kind = "tag";
    }
    pack.finish(after)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_name_is_not_copied_for_each_candidate() {
    let mut rig = Rig::start().await;
    let candidates = candidates(4000);
    rig.push(long_name(&rig.key(), &candidates)).await;
    rig.wait_for_revocation();
    rig.push(deep_and_long(&rig.key(), &candidates)).await;
    rig.wait_for_revocation();
    rig.still_revokes().await;
    rig.stays_small();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bomb_takes_neither_memory_nor_the_place_of_others() {
    let mut rig = Rig::start().await;
    let key = rig.key();
    rig.push(delta_bomb(&key)).await;
    rig.push(zlib_bomb()).await;
    rig.still_revokes().await;
    rig.still_revokes().await;
    rig.stays_small();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_to_what_is_too_large_is_built_in_time_and_memory() {
    let mut rig = Rig::start().await;
    rig.push(overlapping_copies(&rig.key())).await;
    rig.wait_for_revocation();
    rig.still_revokes().await;
    rig.stays_small();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_of_any_shape_is_read_in_time_and_memory() {
    let mut rig = Rig::start().await;
    rig.push(deep(&rig.key(), 3_000)).await;
    rig.wait_for_revocation();
    rig.push(many_names(&rig.key(), 20_000)).await;
    rig.wait_for_revocation();
    rig.still_revokes().await;
    rig.stays_small();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_of_any_shape_is_read_in_time_and_memory() {
    let mut rig = Rig::start().await;
    rig.push(many_parents(&rig.key(), 40)).await;
    rig.wait_for_revocation();
    rig.push(odd_texts(&rig.key(), 2 << 20)).await;
    rig.wait_for_revocation();
    rig.still_revokes().await;
    rig.stays_small();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn candidates_are_looked_up_as_they_come() {
    let mut rig = Rig::start().await;
    let candidates = candidates(20_000);
    rig.push(everywhere(&rig.key(), &candidates[..4000])).await;
    rig.wait_for_revocation();
    rig.push(only_candidates(&rig.key(), &candidates)).await;
    rig.wait_for_revocation();
    rig.still_revokes().await;
    rig.stays_small();
}

/// Deliveries whose texts are nothing but candidates, with a link that has a megabyte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_is_not_more_than_it_says() {
    let mut rig = Rig::start().await;
    let key = rig.key();
    let page = format!("https://forge.example/{}", "x".repeat(400_000));
    let texts: Vec<_> = candidates(20_000)
        .iter()
        .map(|candidate| candidate.expose().to_owned())
        .collect();
    let issue = serde_json::json!({"html_url": page, "body": key, "texts": texts});
    let repository = serde_json::json!({"id": 1, "full_name": "acme/app"});
    let body = serde_json::json!({"issue": issue, "repository": repository}).to_string();
    assert_eq!(rig.deliver(body).await, 202);
    rig.wait_for_revocation();
    // Objects in arrays in objects, each of next to nothing.
    let numbers = format!("{{\"a\":[{}0]}}", "0,".repeat(2_000_000));
    assert_eq!(rig.deliver(numbers).await, 202);
    let fields = format!("{{{}\"b\":0}}", "\"a\":0,".repeat(600_000));
    assert_eq!(rig.deliver(fields).await, 202);
    rig.still_revokes().await;
    rig.stays_small();
}

/// All of it at once, from one sender.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn everything_at_once_fits_and_others_go_on() {
    let mut rig = Rig::start().await;
    let all = candidates(30_000);
    let few = &all[..4000];
    let key = rig.key();
    let mut pushes = vec![
        zlib_bomb(),
        delta_bomb(&key),
        overlapping_copies(&key),
        long_name(&key, few),
        deep_and_long(&key, few),
        deep(&key, 40_000),
        many_names(&key, 50_000),
        many_parents(&key, 100),
        odd_texts(&key, 8 << 20),
        only_candidates(&key, &all),
        everywhere(&key, &all[..10_000]),
    ];
    for _ in 0..3 {
        pushes.push(many_objects(&key, false));
        pushes.push(many_objects(&key, true));
    }
    for push in pushes {
        rig.push(push).await;
    }
    rig.wait_for_revocation();
    for _ in 0..5 {
        rig.still_revokes().await;
    }
    rig.read_on().await;
    rig.stays_small();
}
