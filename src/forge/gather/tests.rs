use std::fmt::Write as _;

use serde_json::{Value, json};

use super::*;
use crate::fetch::RepositoryName;
use crate::forge::Remote;
use crate::keyformat::{FormatSet, KeyFormat, KeyValue};
use crate::respond::{CleanSighting, Known};
use crate::scan::Encodings;

struct Rig {
    engine: Engine,
    redactor: Redactor,
    format: KeyFormat,
}

impl Rig {
    fn new() -> Self {
        let formats = FormatSet::builtin();
        Self {
            engine: Engine::new(&formats, Encodings::ALL),
            redactor: Redactor::new(&formats),
            format: formats.get("rescind_secret").unwrap().clone(),
        }
    }

    fn key(&self) -> String {
        self.format.mint().unwrap().expose().to_owned()
    }

    /// The sightings of what is ours in a message, and how many parts were gathered as malformed.
    fn seen(&self, message: &Value, ours: &str, rest: Rest) -> (Vec<CleanSighting>, u64) {
        let json = message.to_string();
        let now = Timestamp::UNIX_EPOCH;
        let mut gatherer = Gatherer::new("feed", &self.redactor, &self.engine, now);
        let known = Known::these([KeyValue::new(ours).sha256()]);
        let (mut seen, mut rest) = (Vec::new(), Some(rest));
        while let Some(from) = rest {
            let left = gatherer.texts(json.as_bytes(), Some("acme/app"), from);
            rest = left.unwrap();
            let candidates = &mut gatherer.gathered.candidates;
            assert!(candidates.len() <= MAX_CANDIDATES);
            let runtime = tokio::runtime::Runtime::new().unwrap();
            seen.extend(candidates.sightings(&known, runtime.handle()));
            candidates.clear(&known);
        }
        (seen, gatherer.gathered.malformed)
    }
}

#[test]
fn strangers_candidates_take_no_room_however_many_and_wherever() {
    let rig = Rig::new();
    let ours = rig.key();
    let many: Vec<_> = (0..MAX_CANDIDATES + 2).map(|_| rig.key()).collect();
    let same = vec![rig.key(); OF_ONE_MESSAGE + 1];
    for message in [
        json!([many, ours]),
        json!([ours, many]),
        json!([same, ours]),
    ] {
        let (seen, malformed) = rig.seen(&message, &ours, Rest::default());
        assert_eq!((seen.len(), malformed), (1, 0));
    }
}

#[test]
fn links_that_take_turns_are_held_once() {
    let rig = Rig::new();
    let long = format!("https://forge.example/{}", "x".repeat(8_000));
    let turns: Vec<_> = (0..300)
        .map(|n| {
            let link = format!("https://forge.example/{n}");
            json!([rig.key(), {"url": link, "body": rig.key()}])
        })
        .collect();
    let message = json!({"html_url": long, "texts": turns}).to_string();
    let now = Timestamp::UNIX_EPOCH;
    let mut gatherer = Gatherer::new("feed", &rig.redactor, &rig.engine, now);
    let rest = gatherer.texts(message.as_bytes(), None, Rest::default());
    assert_eq!(rest.unwrap(), None);
    assert_eq!(gatherer.gathered.candidates.len(), 600);
}

#[test]
fn more_than_is_looked_up_of_one_message_is_left_out_and_counted() {
    let rig = Rig::new();
    let ours = rig.key();
    let many: Vec<_> = (0..20).map(|_| rig.key()).collect();
    let message = json!([many, ours]);
    for (left, expected) in [(20, (0, 1)), (21, (1, 0))] {
        let rest = Rest {
            passed: 0,
            held: OF_ONE_MESSAGE - left,
        };
        let (seen, malformed) = rig.seen(&message, &ours, rest);
        assert_eq!((seen.len(), malformed), expected);
    }
}

#[test]
fn a_link_that_is_cut_keeps_no_part_of_a_key_and_is_counted() {
    let rig = Rig::new();
    let ours = rig.key();
    // So many keys that little is left when they are taken out, and one across the end of what is looked at.
    let others: Vec<_> = (0..165).map(|_| rig.key()).collect();
    let across = rig.key().bytes().fold(String::new(), |mut across, byte| {
        let _ = write!(across, "%{byte:02X}");
        across
    });
    let mut link = format!("https://forge.example/{}/", others.join("/"));
    let start = (8 << 10) - across.len() + 6;
    assert!(link.len() < start, "{}", link.len());
    link += &"x".repeat(start - link.len());
    link += &across;
    let (seen, malformed) = rig.seen(&json!({"url": link, "body": ours}), &ours, Rest::default());
    let url = seen[0].place.url.as_deref().unwrap();
    assert!(
        url.starts_with("https://forge.example/rsc_sk_…") && url.ends_with('…'),
        "{url}"
    );
    assert!(!url.contains(&across[..24]), "{url}");
    assert_eq!((seen.len(), malformed), (1, 1));
}

/// Nothing is done with a name that no forge gives: not even searched for keys.
#[test]
fn names_longer_than_any_forges_are_counted_and_lead_nowhere() {
    let rig = Rig::new();
    let remote = |id: &str, path: &str| Remote {
        host: "forge.example".to_owned(),
        repository_id: id.to_owned(),
        repository: crate::fetch::RepositoryName::parse("acme/app").unwrap(),
        clone_url: Some(reqwest::Url::parse(&format!("https://forge.example/{path}")).unwrap()),
    };
    let id = |digit: char| ObjectId::from_hex(digit.to_string().repeat(40).as_bytes()).unwrap();
    let long = "%5C".repeat(URL_MAX);
    for (remote, items) in [
        (remote("1", "acme/app"), 1),
        (remote(&long, "acme/app"), 0),
        (remote("1", &long), 0),
    ] {
        let push = Push {
            remote: Arc::new(remote),
            reference: "refs/heads/main".to_owned(),
            before: id('1'),
            after: id('2'),
        };
        let now = Timestamp::UNIX_EPOCH;
        let mut gatherer = Gatherer::new("feed", &rig.redactor, &rig.engine, now);
        gatherer.push(&push, Priority::Webhook, now);
        let Gathered {
            items: found,
            malformed,
            ..
        } = gatherer.gathered;
        assert_eq!((found.len(), malformed), (items, 1 - items as u64));
    }
}

/// A key may consist of digits, as identifiers do.
#[test]
fn no_key_is_kept_as_the_identifier_of_a_repository() {
    let rig = Rig::new();
    let key = rig.key();
    let now = Timestamp::UNIX_EPOCH;
    let mut gatherer = Gatherer::new("feed", &rig.redactor, &rig.engine, now);
    for id in ["4711".to_owned(), key.clone(), hex::encode(&key)] {
        let announced = Announcement {
            remote: Remote {
                host: "forge.example".to_owned(),
                repository_id: id,
                repository: RepositoryName::parse("acme/app").unwrap(),
                clone_url: None,
            },
            reference: None,
            id: "1".to_owned(),
        };
        gatherer.announce(&announced, Priority::Webhook, now);
    }
    let items = gatherer.gathered.items;
    let items: Vec<_> = items.iter().map(ToldItem::to_item).collect();
    let ids: Vec<&str> = items.iter().map(|item| &*item.repository_id).collect();
    assert_eq!((ids.len(), ids[0]), (3, "4711"));
    assert!(ids.iter().all(|id| !rig.redactor.holds_key(id)), "{ids:?}");
}
