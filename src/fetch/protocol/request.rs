//! Requests for packs and for lists of references.

use gix_hash::{Kind as HashKind, ObjectId};

use super::dialect::{Dialect, Offers, Version};

const FLUSH: &str = "0000";
const DELIMITER: &str = "0001";
const AGENT: &str = concat!("agent=rescind/", env!("CARGO_PKG_VERSION"));

/// Capabilities of version 0 that are asked for wherever they are offered.
///
/// No `thin-pack`, so that the base of every delta is included. No `include-tag`, so that only what was requested is
/// sent.
const WANTED: [&str; 5] = [
    "no-done",
    "ofs-delta",
    "no-progress",
    "filter",
    "object-format=sha256",
];

fn line(text: &str) -> String {
    format!("{:04x}{text}\n", text.len() + 5)
}

/// Returns a request of version 2.
fn command(hash: HashKind, command: &str, arguments: impl Iterator<Item = String>) -> Vec<u8> {
    let mut body = line(&format!("command={command}"));
    body += &line(AGENT);
    // SHA-1 is what holds if no format is named, and git before 2.28 refuses what it does not know.
    if hash == HashKind::Sha256 {
        body += &line("object-format=sha256");
    }
    body += DELIMITER;
    body.extend(arguments.map(|argument| line(&argument)));
    body += FLUSH;
    body.into_bytes()
}

/// Request for a list of references. In version 0 all are listed, whatever is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fetch) enum List {
    /// The target of `HEAD`.
    Head,
    /// All branches and tags, and the target of `HEAD`.
    All,
}

impl List {
    /// Returns the request in version 2.
    pub(in crate::fetch) fn body(self, hash: HashKind) -> Vec<u8> {
        let arguments: &[&str] = match self {
            Self::Head => &["symrefs", "ref-prefix HEAD"],
            Self::All => &[
                "symrefs",
                "ref-prefix HEAD",
                "ref-prefix refs/heads/",
                "ref-prefix refs/tags/",
            ],
        };
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        command(hash, "ls-refs", arguments)
    }
}

/// Request for a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::fetch) struct Request {
    wants: Vec<ObjectId>,
    haves: Vec<ObjectId>,
    done: bool,
    /// Number of commits in a row, back from what is wanted.
    deepen: Option<u32>,
    /// `true` if commits are wanted without what is in them.
    is_filtered: bool,
}

/// Returns the request for `wants` and everything reachable from them, except what is reachable from `haves`.
///
/// With `done` the server sends a pack in any case, with all of history if it knows none of `haves`.
/// Without it the server first states which of them it knows, and sends the pack in the same answer if
/// they are related.
pub(in crate::fetch) fn fetch(wants: &[ObjectId], haves: &[ObjectId], done: bool) -> Request {
    Request {
        wants: wants.to_vec(),
        haves: haves.to_vec(),
        done,
        deepen: None,
        is_filtered: false,
    }
}

/// Returns the request for `want` and as many commits in a row before it, `count` in all. With `filter`, which not every
/// server takes, without what is in them.
pub(in crate::fetch) fn fetch_latest(want: &ObjectId, count: u32, filter: bool) -> Request {
    Request {
        deepen: Some(count),
        is_filtered: filter,
        ..fetch(&[*want], &[], true)
    }
}

impl Request {
    /// Returns the request as it is sent.
    pub(in crate::fetch) fn body(&self, dialect: Dialect) -> Vec<u8> {
        match dialect.version {
            Version::Two => self.in_version_2(dialect.hash),
            Version::Old(offers) => self.in_version_0(offers),
        }
    }

    fn in_version_2(&self, hash: HashKind) -> Vec<u8> {
        let arguments = ["no-progress".to_owned(), "ofs-delta".to_owned()]
            .into_iter()
            .chain(self.wants.iter().map(|want| format!("want {want}")))
            .chain(self.limits())
            .chain(self.haves.iter().map(|have| format!("have {have}")))
            .chain(self.done.then(|| "done".to_owned()));
        command(hash, "fetch", arguments)
    }

    fn in_version_0(&self, offers: Offers) -> Vec<u8> {
        let mut body = String::new();
        for (at, want) in self.wants.iter().enumerate() {
            body += &if at == 0 {
                line(&format!("want {want} {}", capabilities(offers)))
            } else {
                line(&format!("want {want}"))
            };
        }
        body.extend(self.limits().map(|limit| line(&limit)));
        body += FLUSH;
        let haves = self.haves.iter().map(|have| line(&format!("have {have}")));
        body.extend(haves);
        body += &if self.done {
            line("done")
        } else {
            FLUSH.to_owned()
        };
        body.into_bytes()
    }

    fn limits(&self) -> impl Iterator<Item = String> {
        let deepen = self.deepen.map(|count| format!("deepen {count}"));
        let filter = self.is_filtered.then(|| "filter tree:0".to_owned());
        deepen.into_iter().chain(filter)
    }
}

/// Returns the capabilities that a request of version 0 names. Of two that exclude each other the better one is taken.
fn capabilities(offers: Offers) -> String {
    let first = |of: &[&'static str]| of.iter().copied().find(|name| offers.has(name));
    let mut named: Vec<&str> = Vec::new();
    named.extend(first(&["multi_ack_detailed", "multi_ack"]));
    named.extend(first(&["side-band-64k", "side-band"]));
    named.extend(WANTED.iter().filter(|name| offers.has(name)));
    named.push(AGENT);
    named.join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::tests::id;
    use super::*;

    #[test]
    fn asks_in_one_request() {
        let asked = fetch(&[id('a')], &[id('b')], false);
        let body = String::from_utf8(asked.body(Dialect::USUAL)).unwrap();
        let want = format!("0032want {}\n", id('a'));
        let have = format!("0032have {}\n", id('b'));
        assert!(body.starts_with("0012command=fetch\n"), "{body}");
        assert!(body.contains(&want) && body.contains(&have), "{body}");
        assert!(
            !body.contains("thin-pack") && !body.contains("done") && !body.contains("format"),
            "{body}"
        );
        assert!(body.ends_with("0000"), "{body}");
    }

    #[test]
    fn asks_a_server_of_version_0_for_what_it_offers() {
        let told = format!(
            "00ff{} HEAD\0multi_ack multi_ack_detailed thin-pack side-band side-band-64k shallow filter agent=g",
            id('c')
        );
        let told = told.replacen("00ff", &format!("{:04x}", told.len()), 1);
        let dialect = Dialect::of(told.as_bytes()).unwrap();
        let body = |asked: Request| String::from_utf8(asked.body(dialect)).unwrap();
        let (a, b) = (id('a'), id('b'));
        let asked = body(fetch(&[a, b], &[id('d')], false));
        let offered = format!("want {a} multi_ack_detailed side-band-64k filter {AGENT}\n");
        assert_eq!(asked[4..4 + offered.len()], offered);
        let rest = format!("0032want {b}\n00000032have {}\n0000", id('d'));
        assert!(asked.ends_with(&rest), "{asked}");
        let latest = body(fetch_latest(&a, 8, true));
        let rest = "000ddeepen 8\n0012filter tree:0\n00000009done\n";
        assert!(latest.ends_with(rest), "{latest}");
    }
}
