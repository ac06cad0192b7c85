use std::fmt::Write as _;

use serde_json::{Value, json};

use super::*;
use crate::fetch::RepositoryName;
use crate::forge::Remote;
use crate::keyformat::{FormatSet, KeyFormat, KeyValue};
use crate::respond::{CleanSighting, Known};
use crate::scan::{Encodings, SCANNED};

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

    fn gatherer(&self) -> Gatherer<'_> {
        Gatherer::new("feed", &self.redactor, &self.engine, Timestamp::UNIX_EPOCH)
    }

    /// The sightings of what is ours in a message, and how many messages were gathered as malformed.
    fn seen(&self, message: &Value, ours: &str) -> (Vec<CleanSighting>, u64) {
        let (seen, gatherer) = Self::seen_by(self.gatherer(), message, ours);
        (seen, gatherer.gathered.malformed)
    }

    fn seen_by<'g>(
        mut gatherer: Gatherer<'g>,
        message: &Value,
        ours: &str,
    ) -> (Vec<CleanSighting>, Gatherer<'g>) {
        let json = message.to_string();
        let known = Known::these([KeyValue::new(ours).sha256()]);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut seen = Vec::new();
        let mut look_up = |gathered: &mut Gathered| -> Result<(), Infallible> {
            let candidates = &mut gathered.candidates;
            assert!(candidates.len() <= MAX_CANDIDATES);
            seen.extend(candidates.sightings(&known, runtime.handle()));
            candidates.clear(&known);
            Ok(())
        };
        let Ok(()) = gatherer
            .texts(json.as_bytes(), Some("acme/app"), &mut look_up)
            .unwrap();
        let Ok(()) = look_up(&mut gatherer.gathered);
        (seen, gatherer)
    }
}

/// A look-up for messages that need none.
fn none(_: &mut Gathered) -> Result<(), Infallible> {
    panic!("nothing has to be looked up");
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
        let (seen, malformed) = rig.seen(&message, &ours);
        assert_eq!((seen.len(), malformed), (1, 0));
    }
}

/// However often what is held has to be looked up.
#[test]
fn no_text_is_scanned_more_than_twice() {
    let rig = Rig::new();
    let keys: Vec<_> = (0..2 * MAX_CANDIDATES + 2).map(|_| rig.key()).collect();
    let linked = |count: usize, key: &dyn Fn(usize) -> String| -> Vec<Value> {
        let link = |n| format!("https://forge.example/{n}/{}", "x".repeat(2_000));
        let object = |n| json!({"html_url": link(n), "body": key(n)});
        (0..count).map(object).collect()
    };
    for (message, look_ups) in [
        (json!([keys.join(" ")]), 2),
        (json!([keys]), 2),
        (json!(linked(2_000, &|n| keys[n].clone())), 3),
        // Links of what is known to be nobody's, or was seen often enough, take no room.
        (json!(linked(2_000, &|_| keys[0].clone())), 0),
    ] {
        let texts = message.to_string();
        let plain = keys.join("\n");
        let before = SCANNED.get();
        let mut looked_up = 0;
        let mut look_up = |gathered: &mut Gathered| -> Result<(), Infallible> {
            looked_up += 1;
            gathered.candidates.clear(&Known::default());
            Ok(())
        };
        let mut gatherer = rig.gatherer();
        let Ok(()) = gatherer
            .texts(texts.as_bytes(), None, &mut look_up)
            .unwrap();
        assert!(SCANNED.get() - before <= 2 * texts.len());
        let before = SCANNED.get();
        let mut gatherer = rig.gatherer();
        let Ok(()) = gatherer.plain_text(plain.as_bytes(), None, &mut look_up);
        assert_eq!(SCANNED.get() - before, plain.len());
        assert_eq!(looked_up, look_ups + 2);
        assert_eq!(
            (gatherer.gathered.texts, gatherer.gathered.malformed),
            (1, 0)
        );
    }
}

#[test]
fn a_failed_look_up_ends_the_scan() {
    let rig = Rig::new();
    let keys: Vec<_> = (0..=MAX_CANDIDATES).map(|_| rig.key()).collect();
    let mut gatherer = rig.gatherer();
    let failed = gatherer.texts(json!(keys).to_string().as_bytes(), None, |_| Err("failed"));
    assert_eq!(failed.unwrap(), Err("failed"));
    let failed = gatherer.plain_text(keys[0].as_bytes(), None, |_| Err("failed"));
    assert_eq!(failed, Err("failed"));
    assert_eq!(gatherer.gathered.texts, 0);
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
    let mut gatherer = rig.gatherer();
    let Ok(()) = gatherer.texts(message.as_bytes(), None, none).unwrap();
    assert_eq!(gatherer.gathered.candidates.len(), 600);
}

#[test]
fn more_than_is_looked_up_of_one_message_is_left_out_and_counted() {
    let rig = Rig::new();
    let ours = rig.key();
    let many: Vec<_> = (0..20).map(|_| rig.key()).collect();
    let message = json!([many, ours]);
    for (left, expected) in [(20, (0, 1)), (21, (1, 0))] {
        let few = Gatherer {
            of_one_message: left,
            ..rig.gatherer()
        };
        let (seen, gatherer) = Rig::seen_by(few, &message, &ours);
        assert_eq!((seen.len(), gatherer.gathered.malformed), expected);
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
    let (seen, malformed) = rig.seen(&json!({"url": link, "body": ours}), &ours);
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
        let mut gatherer = rig.gatherer();
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
