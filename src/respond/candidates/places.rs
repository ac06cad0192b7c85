//! Places that candidates share, and the form in which they are stored.

use std::sync::Arc;

use super::super::clean::{LOOKED_AT_MAX, NOT_LOOKED_AT, stored_form};
use crate::offload;
use crate::store::Place;

/// Place of candidates in a form that is cheap to create, since most candidates are unknown to the key store.
pub trait Placed {
    /// Returns the memory that the place takes, in bytes.
    fn bytes(&self) -> usize;

    /// Returns the place in the form in which it is stored: without keys, though its texts may be a little too long.
    fn to_shared(&self) -> SharedPlace;

    /// Returns the name of the source.
    fn source(&self) -> &str;
}

impl Placed for SharedPlace {
    fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let Place {
            source,
            url,
            repository,
            commit,
            path,
            ..
        } = &self.place;
        let texts = source.len() + text(url) + text(repository) + text(commit) + text(path);
        size_of::<Self>() + texts
    }

    fn to_shared(&self) -> SharedPlace {
        self.clone()
    }

    fn source(&self) -> &str {
        &self.place.source
    }
}

/// Place shared by candidates, without the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedPlace {
    /// Place without its line, with texts truncated as for storage.
    pub place: Place,
    /// Separator of link and line, such as `#L`. `None` if links have no lines.
    pub fragment: Option<&'static str>,
}

/// Place of candidates of which some are known keys.
pub(super) struct Rendered {
    shared: SharedPlace,
    /// Form in which it is stored without a line.
    pub(super) stored: Arc<Place>,
}

impl Rendered {
    fn of(shared: SharedPlace) -> Self {
        Self {
            stored: Arc::new(stored_form(&shared.place, str::to_owned)),
            shared,
        }
    }

    /// Returns the form in which the place is stored with a line.
    pub(super) fn at(&self, line: Line) -> Place {
        let SharedPlace {
            mut place,
            fragment,
        } = self.shared.clone();
        if let (Some(url), Some(fragment)) = (&mut place.url, fragment) {
            url.push_str(fragment);
            url.push_str(&line.linked.to_string());
        }
        place.line = line.recorded;
        stored_form(&place, str::to_owned)
    }
}

/// Line on which a candidate starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Line used in the link.
    pub linked: u64,
    /// Line that is recorded, if people can look it up.
    pub recorded: Option<u64>,
}

/// Returns a place in the form in which it is stored, unless more than is searched of one message was searched already.
/// Adds its size to `looked_at`.
pub(super) async fn rendered(place: &impl Placed, looked_at: &mut usize) -> Rendered {
    let bytes = place.bytes();
    if *looked_at + bytes > LOOKED_AT_MAX {
        let source = place.source();
        tracing::warn!(
            source,
            "a message or a push names keys of ours in so many places that some are stored without their texts"
        );
        return Rendered::of(nameless(source));
    }
    *looked_at += bytes;
    offload::in_turn(bytes, || Rendered::of(place.to_shared())).await
}

/// Returns a place that was not searched for keys.
fn nameless(source: &str) -> SharedPlace {
    SharedPlace {
        place: Place {
            url: Some(NOT_LOOKED_AT.to_owned()),
            ..Place::of_source(source)
        },
        fragment: None,
    }
}
