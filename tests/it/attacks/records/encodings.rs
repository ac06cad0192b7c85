//! Keys wherever a report or a request has a text that is kept, in encodings and in encodings within those:
//! the log cannot be cleaned afterward.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rescind::issuer::IssueRequest;
use rescind::keyformat::FormatSet;
use rescind::store::{KeyPatch, Owner, Place, Reason};

use crate::support::databases::on_both_databases;
use crate::support::responder::{issuer, request, responder, sighting};

on_both_databases! {
    async fn no_encoding_brings_a_key_into_the_records(database) {
        let store = database.store().await;
        let (responder, _) = responder(&store);
        let formats = FormatSet::builtin();
        let hidden = formats.get("rescind_secret").unwrap().mint().unwrap();
        for way in ways(hidden.expose()) {
            let wanted = IssueRequest {
                owner: Owner::user(format!("u {way}")),
                notify_emails: vec![format!("{way}@example.com")],
                ..request(&format!("copy of {way}"))
            };
            let (key, value) = issuer(&responder).issue(wanted).await.unwrap();
            let patch = KeyPatch { description: Some(format!("now {way}!")), ..KeyPatch::default() };
            let changed = issuer(&responder).update(key.id, patch).await.unwrap();
            let mut seen = sighting(&responder, &value, 1);
            seen.place = Place {
                source: format!("s:{way}"),
                url: Some(format!("https://example.com/?key={way}&x=1")),
                repository: Some(format!("acme/{way}")),
                commit: Some(way.clone()),
                path: Some(format!("config/{way}.env")),
                line: Some(1),
            };
            let answers = responder.report(vec![seen], Reason::Leaked, "test").await.unwrap();
            let incident = store.incident_of_key(key.id).await.unwrap().unwrap();
            let detail = responder.incident(incident.id).await.unwrap().unwrap();
            let seq = store.log_head().await.unwrap().seq;
            let entry = store.log_entry(seq).await.unwrap().unwrap();
            assert!(entry.occurrence.is_some());
            let kept = format!("{key:?} {changed:?} {answers:?} {detail:?} {entry:?}");
            let (kept, way) = (bare(&kept), bare(&way));
            for at in [way.len() / 3, way.len() / 2, way.len() * 2 / 3 - 16] {
                let trace = &way[at..at + 16];
                assert!(!kept.contains(trace), "{trace} of {way} is in {kept}");
            }
            assert!(kept.contains(&format!("…{}", hidden.last_four())), "{way}: {kept}");
        }
    }
}

/// Returns a text without whitespace and quoting.
fn bare(text: &str) -> String {
    let quoting = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '\\' | '\u{fffd}');
    text.replace("\\r", "")
        .replace("\\n", "")
        .replace("\\t", "")
        .replace(quoting, "")
}

fn each(text: &str, write: fn(&mut String, u8)) -> String {
    text.bytes().fold(String::new(), |mut written, byte| {
        write(&mut written, byte);
        written
    })
}

fn broken(text: &str, by: &str) -> String {
    let lines = text.as_bytes().chunks(11).map(String::from_utf8_lossy);
    lines.collect::<Vec<_>>().join(by)
}

fn ways(key: &str) -> Vec<String> {
    let percent = |text: &str| each(text, |written, byte| _ = write!(written, "%{byte:02x}"));
    let base64 = STANDARD.encode(key);
    let low_first: Vec<u8> = key.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let high_first: Vec<u8> = key.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let four_times = percent(key).replace('%', "%252525");
    vec![
        URL_SAFE_NO_PAD.encode(low_first),
        STANDARD.encode(high_first),
        STANDARD.encode(percent(key)),
        percent(&base64),
        four_times,
        each(key, |written, byte| _ = write!(written, "%u{byte:04x}")),
        each(key, |written, byte| _ = write!(written, "\\u{byte:04x}")),
        each(key, |written, byte| _ = write!(written, "\\x{byte:02X}")),
        each(key, |written, byte| {
            _ = write!(written, "&#{byte};&#x200b;");
        }),
        each(key, |written, byte| _ = write!(written, "&#x{byte:x};")),
        broken(&base64, "\r"),
        broken(&base64, "\n\n"),
        broken(&base64, " \r\n\t\r\n"),
        broken(&base64, " "),
        STANDARD.encode(broken(&STANDARD.encode(&base64), " ")),
        hex::encode(key),
    ]
}
