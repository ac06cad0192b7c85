//! Ranges of real repositories, served by the real upload-pack.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use rescind::fetch::{FetchError, FetchLimits, ObjectId, TextKind};
use rescind::keyformat::{FormatSet, KeyValue};
use rescind::sandbox::git_server::Pushed;
use rescind::scan::{Encodings, Engine};

use super::{Place, fetcher, limits, range, shown};

const NONE: &str = "0000000000000000000000000000000000000000";

fn id(hex: &str) -> ObjectId {
    ObjectId::from_hex(hex.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_push_is_exactly_its_new_blobs_in_one_request() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("old.txt", b"old").unwrap();
    repository.write("dir/kept.txt", b"kept").unwrap();
    repository.commit("first").unwrap();
    repository.push("main").unwrap();

    repository
        .write("dir/sub/secret.env", b"passing by")
        .unwrap();
    let added = repository.commit("add").unwrap();
    std::fs::remove_file(repository.work().join("dir/sub/secret.env")).unwrap();
    repository.write("old.txt", b"new").unwrap();
    let removed = repository.commit("remove and change").unwrap();
    let pushed = repository.push("main").unwrap();

    let before = place.forge.requests();
    let shown = place.fetch(&pushed).await.whole();
    assert_eq!(place.forge.requests() - before, 1);
    assert!(!shown.dropped);
    assert_eq!(
        shown.blobs(),
        ["dir/sub/secret.env: passing by", "old.txt: new"]
    );
    let commits: Vec<_> = shown
        .of(TextKind::Blob)
        .map(|blob| (blob.path.clone().unwrap(), blob.commit.clone().unwrap()))
        .collect();
    assert!(commits.contains(&(b"dir/sub/secret.env".to_vec(), added.to_string())));
    assert!(commits.contains(&(b"old.txt".to_vec(), removed.to_string())));
    let messages: Vec<_> = shown
        .of(TextKind::Commit)
        .map(|commit| String::from_utf8_lossy(&commit.data).into_owned())
        .collect();
    assert_eq!(messages.len(), 2);
    assert!(
        messages
            .iter()
            .any(|text| text.contains("\n\nremove and change"))
    );
}

/// Whatever text is added to one of them has to be added to the other.
#[tokio::test]
async fn a_push_and_a_scan_of_its_repository_have_the_same_texts() {
    let place = Place::new().await;
    let repository = place.repository();
    let keys: Vec<KeyValue> = (0..8).map(|_| crate::scan::secret()).collect();
    let key = |n: usize| keys[n].expose();
    repository.write("first", b"nothing").unwrap();
    let first = repository.commit("Begin").unwrap();
    let path = format!("{}/sub/{}.txt", key(0), key(1));
    repository.write(&path, key(2).as_bytes()).unwrap();
    repository.git(&["add", "--all"]).unwrap();
    let author = format!("{} <a@b>", key(3));
    let commit = [
        "commit",
        "--quiet",
        "--message",
        key(5),
        "--author",
        &author,
    ];
    repository.git(&commit).unwrap();
    repository.git(&["tag", key(4)]).unwrap();
    repository.git(&["branch", "--move", key(6)]).unwrap();
    let tag = ["tag", "--annotate", "v1", "--message", key(7)];
    repository.git(&tag).unwrap();
    let ranges = [
        repository.push_to("HEAD", &format!("refs/heads/{}", key(6))),
        repository.push_to("v1", "refs/tags/v1"),
    ];

    let engine = Engine::new(&FormatSet::builtin(), Encodings::ALL);
    let mut found = BTreeSet::new();
    let mut read = |text: &[u8]| {
        let candidates = engine.scan(text).into_iter();
        found.extend(candidates.map(|candidate| candidate.display));
    };
    for range in ranges {
        for text in place.fetch(&range.unwrap()).await.whole().texts {
            read(&text.data);
            read(text.path.as_deref().unwrap_or_default());
        }
    }
    let pushed = repository.push_to("HEAD", &format!("refs/tags/{}", key(4)));
    let request = place.request(&pushed.unwrap());
    let references = fetcher(limits()).references(&request.clone_url, None).await;
    for (name, _) in references.unwrap().list {
        read(name.as_bytes());
    }
    let all: BTreeSet<_> = keys.iter().map(|key| key.redacted("rsc_sk_")).collect();
    assert_eq!(found, all);

    let scanned = |way: &[&str]| -> BTreeSet<String> {
        let arguments = [way, &["--report", "jsonl"]].concat();
        let output = crate::scan::scan(repository.work(), &arguments);
        let rows = crate::scan::rows(&output);
        let shown = rows.iter().map(|row| row["candidate"].as_str());
        shown
            .map(|shown| shown.expect("a text").to_owned())
            .collect()
    };
    assert_eq!(scanned(&["--git", "."]), all);
    // Tags lead to the range, and not the other way round.
    let of_tags = [4, 7].map(|n| keys[n].redacted("rsc_sk_"));
    let without_tags = all.into_iter().filter(|shown| !of_tags.contains(shown));
    let since = scanned(&["--since", &first.to_string()]);
    assert_eq!(since, without_tags.collect());
}

#[tokio::test]
async fn the_first_push_of_a_repository_is_its_whole_history() {
    let place = Place::new().await;
    let repository = place.repository();
    for n in 0..5 {
        repository
            .write("file.txt", format!("version {n}").as_bytes())
            .unwrap();
        repository.commit("step").unwrap();
    }
    let pushed = repository.push("main").unwrap();
    assert!(pushed.before.is_null());
    let shown = place.fetch(&pushed).await.whole();
    assert_eq!(shown.blobs().len(), 5);
}

/// Neither a detached `HEAD` nor one that is no branch is read on its own.
#[tokio::test]
async fn what_nobody_reads_is_not_taken_for_read() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("first.txt", b"first").unwrap();
    repository.commit("first").unwrap();
    repository.write("second.txt", b"second").unwrap();
    repository.commit("second").unwrap();
    let mut pushed = repository.push("main").unwrap();
    let head = repository.bare().join("HEAD");
    let all = ["first.txt: first", "second.txt: second"];
    std::fs::write(&head, format!("{}\n", pushed.after)).unwrap();
    assert_eq!(place.fetch(&pushed).await.whole().blobs(), all);
    repository.push_to("HEAD", "refs/deployed/now").unwrap();
    std::fs::write(&head, "ref: refs/deployed/now\n").unwrap();
    assert_eq!(place.fetch(&pushed).await.whole().blobs(), all);
    // A name that is not known to the letter may be that of the default branch.
    std::fs::write(&head, "ref: refs/heads/main\n").unwrap();
    pushed.reference.clear();
    assert_eq!(place.fetch(&pushed).await.whole().blobs(), all);
}

#[tokio::test]
async fn a_new_branch_is_what_the_default_branch_lacks() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("main.txt", b"on main").unwrap();
    repository.commit("first").unwrap();
    repository.push("main").unwrap();
    repository.write("feature.txt", b"on the branch").unwrap();
    repository.commit("feature").unwrap();
    let pushed = repository.push("feature").unwrap();
    assert!(pushed.before.is_null());
    let shown = place.fetch(&pushed).await.whole();
    assert_eq!(shown.blobs(), ["feature.txt: on the branch"]);
}

#[tokio::test]
async fn an_unknown_before_does_not_make_it_the_whole_history() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("main.txt", b"on main").unwrap();
    repository.commit("first").unwrap();
    repository.push("main").unwrap();
    repository.write("feature.txt", b"on the branch").unwrap();
    repository.commit("feature").unwrap();
    let mut pushed = repository.push("feature").unwrap();
    pushed.before = id("1234567890123456789012345678901234567890");
    let shown = place.fetch(&pushed).await.whole();
    assert_eq!(shown.blobs(), ["feature.txt: on the branch"]);
}

#[tokio::test]
async fn an_unknown_before_of_the_default_branch_loses_nothing() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("main.txt", b"on main").unwrap();
    repository.commit("first").unwrap();
    let mut pushed = repository.push("main").unwrap();
    pushed.before = id("1234567890123456789012345678901234567890");
    let shown = place.fetch(&pushed).await.whole();
    assert_eq!(shown.blobs(), ["main.txt: on main"]);
}

#[tokio::test]
async fn commits_dropped_by_a_force_push_are_read_too() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("base.txt", b"base").unwrap();
    repository.commit("base").unwrap();
    repository.push("main").unwrap();
    repository.write("dropped.txt", b"dropped").unwrap();
    repository.commit("dropped").unwrap();
    repository.push("main").unwrap();
    repository
        .git(&["reset", "--quiet", "--hard", "HEAD~1"])
        .unwrap();
    repository.write("instead.txt", b"instead").unwrap();
    repository.commit("instead").unwrap();
    let pushed = repository.push("main").unwrap();
    let shown = place.fetch_both(&pushed).await;
    assert_eq!(
        shown.blobs(),
        ["dropped.txt: dropped", "instead.txt: instead"]
    );
}

#[tokio::test]
async fn a_branch_set_back_shows_what_it_dropped() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("base.txt", b"base").unwrap();
    repository.commit("base").unwrap();
    repository.push("main").unwrap();
    repository.write("dropped.txt", b"dropped").unwrap();
    repository.commit("dropped").unwrap();
    repository.push("main").unwrap();
    repository
        .git(&["reset", "--quiet", "--hard", "HEAD~1"])
        .unwrap();
    let pushed = repository.push("main").unwrap();
    let shown = place.fetch_both(&pushed).await;
    assert_eq!(shown.blobs(), ["dropped.txt: dropped"]);
}

#[tokio::test]
async fn a_history_replaced_by_an_unrelated_one_is_read_on_both_sides() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("one.txt", b"one").unwrap();
    repository.commit("one").unwrap();
    repository.push("main").unwrap();
    repository
        .git(&["checkout", "--quiet", "--orphan", "other"])
        .unwrap();
    repository.git(&["rm", "-rfq", "."]).unwrap();
    repository.write("two.txt", b"two").unwrap();
    repository.commit("two").unwrap();
    let pushed = repository.push("main").unwrap();
    let shown = place.fetch_both(&pushed).await;
    assert_eq!(shown.blobs(), ["one.txt: one", "two.txt: two"]);
}

#[tokio::test]
async fn the_dropped_commits_may_be_gone_from_the_server() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("base.txt", b"base").unwrap();
    repository.commit("base").unwrap();
    repository.push("main").unwrap();
    repository.write("feature.txt", b"feature").unwrap();
    repository.commit("feature").unwrap();
    let mut pushed = repository.push("feature").unwrap();
    // The blob is an object that the server has, but not one that anybody has pushed to a branch.
    pushed.before = repository.resolve("HEAD:base.txt").unwrap();
    let shown = place.fetch(&pushed).await;
    assert!(shown.blobs().contains(&"feature.txt: feature".to_owned()));
}

#[tokio::test]
async fn an_annotated_tag_is_a_text() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("a.txt", b"a").unwrap();
    repository.commit("first").unwrap();
    repository.push("main").unwrap();
    repository
        .git(&[
            "tag",
            "--annotate",
            "v1",
            "--message",
            "the words of the tag",
        ])
        .unwrap();
    let pushed = repository.push_to("v1", "refs/tags/v1").unwrap();
    let shown = place.fetch(&pushed).await.whole();
    let tags: Vec<_> = shown.of(TextKind::Tag).collect();
    assert_eq!(tags.len(), 1);
    assert!(String::from_utf8_lossy(&tags[0].data).contains("the words of the tag"));
    assert!(shown.blobs().is_empty());
}

#[tokio::test]
async fn a_deletion_asks_nothing() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.commit("first").unwrap();
    repository.push("main").unwrap();
    repository.push("gone").unwrap();
    let pushed = repository.push_to("", "refs/heads/gone").unwrap();
    assert_eq!(pushed.after, id(NONE));
    let before = place.forge.requests();
    let shown = place.fetch(&pushed).await.whole();
    assert_eq!(place.forge.requests(), before);
    assert!(shown.texts.is_empty());
}

#[tokio::test]
async fn an_empty_repository_does_not_have_the_commit() {
    let place = Place::new().await;
    place.repository();
    let pushed = Pushed {
        reference: "refs/heads/main".to_owned(),
        before: id(NONE),
        after: id("1234567890123456789012345678901234567890"),
    };
    let error = fetcher(limits()).fetch(&place.request(&pushed)).await;
    assert!(matches!(error, Err(FetchError::CommitGone)), "{error:?}");
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_gone() {
    let place = Place::new().await;
    let pushed = Pushed {
        reference: "refs/heads/main".to_owned(),
        before: id("2234567890123456789012345678901234567890"),
        after: id("1234567890123456789012345678901234567890"),
    };
    let error = fetcher(limits()).fetch(&place.request(&pushed)).await;
    assert!(
        matches!(error, Err(FetchError::Gone { status: 404 })),
        "{error:?}"
    );
}

#[tokio::test]
async fn binary_contents_and_odd_names_come_through() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.commit("first").unwrap();
    repository.push("main").unwrap();
    let binary: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let name = OsStr::from_bytes(b"caf\xe9/\xff\xfe.bin");
    repository.write(name, &binary).unwrap();
    repository
        .write("with space/\"quoted\"\n.txt", b"quoted")
        .unwrap();
    repository.write("empty", b"").unwrap();
    std::os::unix::fs::symlink("../target", repository.work().join("link")).unwrap();
    repository.commit("odd").unwrap();
    let pushed = repository.push("main").unwrap();
    let shown = place.fetch(&pushed).await.whole();
    let find = |path: &[u8]| {
        let blob = shown
            .of(TextKind::Blob)
            .find(|blob| blob.path.as_deref() == Some(path));
        blob.map(|blob| blob.data.clone())
    };
    assert_eq!(find(name.as_bytes()), Some(binary));
    assert_eq!(
        find(b"with space/\"quoted\"\n.txt"),
        Some(b"quoted".to_vec())
    );
    assert_eq!(find(b"empty"), Some(Vec::new()));
    assert_eq!(find(b"link"), Some(b"../target".to_vec()));
}

#[tokio::test]
async fn long_chains_of_deltas_are_resolved() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.commit("first").unwrap();
    repository.push("main").unwrap();
    let mut text = String::new();
    for line in 0..400 {
        writeln!(text, "line {line} {}", line * 7919 % 1000).unwrap();
    }
    let mut versions = Vec::new();
    for n in 0..120 {
        writeln!(text, "and line {n}").unwrap();
        repository
            .write("deep/down/file.txt", text.as_bytes())
            .unwrap();
        repository.commit("grow").unwrap();
        versions.push(text.clone().into_bytes());
    }
    let pushed = repository.push("main").unwrap();
    // Chains longer than the server would make by itself.
    let repack = ["repack", "-adfq", "--depth=200", "--window=200"];
    let bare = repository.bare().to_string_lossy().into_owned();
    repository
        .git(&[&["--git-dir", &bare][..], &repack].concat())
        .unwrap();
    let shown = place.fetch(&pushed).await.whole();
    let mut contents: Vec<_> = shown
        .of(TextKind::Blob)
        .map(|blob| blob.data.clone())
        .collect();
    contents.sort_by_key(Vec::len);
    assert_eq!(contents, versions);
    assert!(
        shown
            .of(TextKind::Blob)
            .all(|blob| blob.path.as_deref() == Some(b"deep/down/file.txt"))
    );
}

#[tokio::test]
async fn a_blob_over_the_limit_is_counted_and_the_others_are_read() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.commit("first").unwrap();
    repository.push("main").unwrap();
    repository.write("big.bin", &vec![7; 300_000]).unwrap();
    repository.write("small.txt", b"small").unwrap();
    repository.commit("both").unwrap();
    let pushed = repository.push("main").unwrap();
    let tight = FetchLimits {
        max_blob_bytes: 100_000,
        ..limits()
    };
    let fetched = fetcher(tight).fetch(&place.request(&pushed)).await.unwrap();
    let shown = shown(fetched);
    assert_eq!(shown.blobs(), ["small.txt: small"]);
    assert_eq!(shown.left_out.too_big, 1);
}

#[tokio::test]
async fn history_beyond_the_byte_limit_is_cut_and_says_so() {
    let place = Place::new().await;
    let repository = place.repository();
    let mut state = 1u32;
    for n in 0..20 {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(20_000)
        .collect();
        repository.write(format!("noise{n}"), &noise).unwrap();
    }
    repository.commit("noise").unwrap();
    let pushed = repository.push("main").unwrap();
    let tight = FetchLimits {
        max_fetch_bytes: 100_000,
        ..limits()
    };
    let fetched = fetcher(tight).fetch(&place.request(&pushed)).await.unwrap();
    assert_eq!(fetched.bytes(), 100_000);
    let shown = shown(fetched);
    assert!(shown.left_out.cut);
    assert!(
        (1..20).contains(&shown.blobs().len()),
        "{}",
        shown.blobs().len()
    );
}

/// A commit that cannot be halved is more than what is held at a time.
#[tokio::test]
async fn a_large_commit_is_read_part_by_part() {
    let place = Place::new().await;
    let repository = place.repository();
    let mut state = 7u32;
    for n in 0..60 {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'a' + state.to_be_bytes()[0] % 26
        })
        .take(5_000)
        .collect();
        repository.write(format!("dir{n}/noise"), &noise).unwrap();
    }
    repository.commit("noise").unwrap();
    let pushed = repository.push("main").unwrap();
    for held in [30_000, 50_000, 100_000] {
        let tight = FetchLimits {
            max_held_bytes: held,
            ..limits()
        };
        let fetched = fetcher(tight).fetch(&place.request(&pushed)).await.unwrap();
        assert_eq!(fetched.bytes(), held);
        let shown = tokio::task::spawn_blocking(|| shown(fetched))
            .await
            .unwrap();
        assert_eq!(shown.whole().blobs().len(), 60);
    }
    // Not beyond what may be fetched in all.
    let tight = FetchLimits {
        max_held_bytes: 30_000,
        max_fetch_bytes: 100_000,
        ..limits()
    };
    let fetched = fetcher(tight).fetch(&place.request(&pushed)).await.unwrap();
    let shown = tokio::task::spawn_blocking(|| shown(fetched))
        .await
        .unwrap();
    assert!(shown.left_out.cut);
    assert!((10..60).contains(&shown.blobs().len()));
}

#[tokio::test]
async fn a_small_limit_on_objects_or_inflated_bytes_cuts_too() {
    let place = Place::new().await;
    let repository = place.repository();
    for n in 0..10 {
        repository
            .write(format!("f{n}"), format!("contents {n}").as_bytes())
            .unwrap();
    }
    repository.commit("ten").unwrap();
    let pushed = repository.push("main").unwrap();
    for tight in [
        FetchLimits {
            max_objects: 5,
            ..limits()
        },
        FetchLimits {
            max_inflated_bytes: 450,
            ..limits()
        },
    ] {
        let fetched = fetcher(tight).fetch(&place.request(&pushed)).await.unwrap();
        let shown = shown(fetched);
        assert!(shown.left_out.cut, "{:?}", shown.left_out);
        assert!(shown.blobs().len() < 10);
    }
}

#[tokio::test]
async fn fetches_in_flight_share_their_places() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("a.txt", b"a").unwrap();
    repository.commit("first").unwrap();
    let pushed = repository.push("main").unwrap();
    let fetcher = fetcher(FetchLimits {
        concurrent: 1,
        beside: 0,
        ..limits()
    });
    let request = range(&place.forge.url(), &pushed);
    let first = fetcher.fetch(&request).await.unwrap();
    let mut second = Box::pin(fetcher.fetch(&request));
    let waiting = futures_util::poll!(&mut second);
    assert!(waiting.is_pending());
    drop(first);
    assert_eq!(shown(second.await.unwrap()).blobs(), ["a.txt: a"]);
}
