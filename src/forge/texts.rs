//! Texts in a JSON message: every string in it, at any level.
//!
//! The fields that contain human-written text change with each version of each forge. So all strings are
//! scanned, including names of fields; this costs little, since the engine is faster than the parser.

mod strings;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::scan::{Candidate, Engine, Scanner};
use strings::Strings;

/// Maximum nesting depth of a message. `serde_json` itself stops at 128.
const MAX_DEPTH: u8 = 100;

/// Maximum length of a link that is kept, in bytes.
const MAX_LINK: usize = 8 << 10;

/// Maximum number of candidates that wait for the end of the enclosing object, which may contain their
/// link.
const MAX_PENDING: usize = 4096;

/// A link that goes with a text of a message, or another word of where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// First 8 KiB of the link.
    pub text: String,
    /// `true` if the link was truncated.
    pub cut: bool,
}

impl Link {
    /// Returns what is looked at of a text.
    pub fn of(text: &str) -> Self {
        let end = text.floor_char_boundary(MAX_LINK);
        Self {
            text: text[..end].to_owned(),
            cut: end < text.len(),
        }
    }
}

/// Scans every string of a JSON text; calls `found` with each candidate, and the nearest link that goes with it: the
/// `html_url` (or Bitbucket's `links.html.href`, or else GitLab's `url`) of the object that the string stands in, or of
/// one around it. Ends early, without an error, when `found` breaks off.
///
/// No string is scanned more than twice. Nothing is built of the text, whatever is in it; of more than 4,096 candidates
/// some come without the links that stand behind them.
///
/// # Errors
/// Returns the parser's error, which does not quote the JSON. Candidates before the error were not
/// reported.
pub fn scan_texts(
    engine: &Engine,
    json: &[u8],
    mut found: impl FnMut(Candidate, Option<&Arc<Link>>) -> ControlFlow<()>,
) -> Result<(), serde_json::Error> {
    // Nearly all messages hold no candidate: for them one pass without links is enough.
    let mut any = false;
    let mut scanner = Scanner::new(engine);
    let strings = Strings {
        depth: 0,
        each: &mut |text: &str| {
            if !any {
                scanner.scan_text(text.as_bytes(), &mut |_| any = true);
            }
        },
    };
    let mut reader = serde_json::Deserializer::from_slice(json);
    strings.deserialize(&mut reader)?;
    reader.end()?;
    if any {
        let mut linking = Linking {
            scanner,
            pending: Vec::new(),
            wanted: ControlFlow::Continue(()),
            found: &mut found,
        };
        let mut reader = serde_json::Deserializer::from_slice(json);
        let read = linking.value(0, Wanted::Nothing).deserialize(&mut reader);
        if linking.wanted.is_continue() {
            read?;
            linking.deliver();
        }
    }
    Ok(())
}

/// Scans a text that is no JSON after all, as [`scan_texts`] does.
pub fn scan_plain(
    engine: &Engine,
    text: &[u8],
    mut found: impl FnMut(Candidate, Option<&Arc<Link>>) -> ControlFlow<()>,
) {
    let mut wanted = ControlFlow::Continue(());
    Scanner::new(engine).scan_text(text, &mut |candidate| {
        if wanted.is_continue() {
            wanted = found(candidate, None);
        }
    });
}

/// Whoever wants candidates, until he breaks off.
type Taker<'t> = dyn FnMut(Candidate, Option<&Arc<Link>>) -> ControlFlow<()> + 't;

/// Candidates on their way to whoever wants them, each with the link that was found for it so far.
struct Linking<'e> {
    scanner: Scanner<'e>,
    pending: Vec<(Candidate, Option<Arc<Link>>)>,
    /// `Break` once no more candidates are wanted.
    wanted: ControlFlow<()>,
    found: &'e mut Taker<'e>,
}

impl<'e> Linking<'e> {
    fn value(&mut self, depth: u8, wanted: Wanted) -> Value<'_, 'e> {
        Value {
            linking: self,
            depth,
            wanted,
        }
    }

    /// Scans a string, unless nothing more is wanted: then it is an error, so that nothing more is read.
    fn scan<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        let (pending, wanted) = (&mut self.pending, &mut self.wanted);
        let found = &mut *self.found;
        self.scanner.scan_text(text.as_bytes(), &mut |candidate| {
            if pending.len() >= MAX_PENDING {
                deliver(pending, wanted, found);
            }
            if wanted.is_continue() {
                pending.push((candidate, None));
            }
        });
        match self.wanted {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(E::custom("no more is wanted")),
        }
    }

    /// Assigns the link of the enclosing object to the candidates from `first` on that do not have a link
    /// yet.
    fn link(&mut self, first: usize, link: Link) {
        let link = Arc::new(link);
        for (_, none) in self.pending.iter_mut().skip(first) {
            none.get_or_insert_with(|| Arc::clone(&link));
        }
    }

    fn deliver(&mut self) {
        deliver(&mut self.pending, &mut self.wanted, self.found);
    }
}

/// Hands on what waits, as long as it is wanted.
fn deliver(
    pending: &mut Vec<(Candidate, Option<Arc<Link>>)>,
    wanted: &mut ControlFlow<()>,
    found: &mut Taker<'_>,
) {
    for (candidate, link) in pending.drain(..) {
        if wanted.is_continue() {
            *wanted = found(candidate, link.as_ref());
        }
    }
}

/// Part of a value that is needed, in addition to the candidates in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Nothing,
    /// The text of the value.
    Text,
    /// The field `href` of the value.
    Href,
    /// The field `href` of the value's field `html`.
    HtmlHref,
}

/// Fields that are related to links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    HtmlUrl,
    Links,
    Url,
    Html,
    Href,
    Other,
}

/// Deserializes a value: scans it for candidates, and returns the text that is wanted of it.
struct Value<'l, 'e> {
    linking: &'l mut Linking<'e>,
    depth: u8,
    wanted: Wanted,
}

/// Deserializes the name of a field.
struct Name<'l, 'e>(&'l mut Linking<'e>);

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = Option<Link>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Option<Link>, D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom("nested too deep"));
        }
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = Option<Link>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Option<Link>, E> {
        self.linking.scan(text)?;
        Ok((self.wanted == Wanted::Text).then(|| Link::of(text)))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<Link>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<Link>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<Link>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<Link>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<Link>, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<Link>, A::Error> {
        let depth = self.depth + 1;
        while let Some(_text) =
            items.next_element_seed(self.linking.value(depth, Wanted::Nothing))?
        {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Option<Link>, A::Error> {
        let first = self.linking.pending.len();
        let (mut html_url, mut links, mut url, mut told) = (None, None, None, None);
        while let Some(field) = fields.next_key_seed(Name(self.linking))? {
            let wanted = match (field, self.wanted) {
                (Field::HtmlUrl | Field::Url, _) | (Field::Href, Wanted::Href) => Wanted::Text,
                (Field::Links, _) => Wanted::HtmlHref,
                (Field::Html, Wanted::HtmlHref) => Wanted::Href,
                _ => Wanted::Nothing,
            };
            let text = fields.next_value_seed(self.linking.value(self.depth + 1, wanted))?;
            match (field, self.wanted) {
                (Field::HtmlUrl, _) => html_url = text,
                (Field::Links, _) => links = text,
                (Field::Url, _) => url = text,
                (Field::Html, Wanted::HtmlHref) | (Field::Href, Wanted::Href) => told = text,
                _ => {}
            }
        }
        let is_page = |link: &Link| {
            let mut schemes = ["https://", "http://"].into_iter();
            schemes.any(|scheme| link.text.starts_with(scheme))
        };
        let link: Option<Link> = html_url.or(links).or(url);
        if let Some(link) = link.filter(is_page) {
            self.linking.link(first, link);
        }
        Ok(told)
    }
}

impl<'de> DeserializeSeed<'de> for Name<'_, '_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Field, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_, '_> {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Field, E> {
        self.0.scan(name)?;
        Ok(match name {
            "html_url" => Field::HtmlUrl,
            "links" => Field::Links,
            "url" => Field::Url,
            "html" => Field::Html,
            "href" => Field::Href,
            _ => Field::Other,
        })
    }
}

#[cfg(test)]
mod tests;
