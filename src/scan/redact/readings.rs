//! Decoding of a text in every way in which it may be encoded.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};

use super::blanks::{join, loosen};
use super::escapes::{Kind, unescape};
use super::lists::unlist;
use super::loose::Loose;
use super::packed::unpack;
use super::view::View;
use super::widths::narrow;

/// Maximum number of layers of escapes that are decoded. A URL in the query of a URL is escaped twice, and some
/// services wrap it once or twice more. Nothing harmless is escaped this often.
const MAX_LAYERS: u8 = 8;

/// Maximum number of layers of escapes around escapes that look like ordinary text: most texts have such readings.
const MAX_LAYERS_AROUND_ODD: u8 = 1;

/// Budget for the total size of all views of a text, in bytes: an amount per byte of the text, and a minimum. A
/// text that uses every kind of escape once, between blanks and plus signs, is read in some dozen views of its
/// length.
const WORK_PER_BYTE: usize = 64;
const LEAST_WORK: usize = 64 << 10;

/// Passes the text and everything that it encodes to `look`, except for views of fewer than `least` bytes.
///
/// Returns the places that could not be decoded completely within the bounds, or `None` if `look` broke off.
pub(super) fn read(
    text: &[u8],
    least: usize,
    loose: &Loose,
    mut look: impl FnMut(&View<'_>) -> ControlFlow<()>,
) -> Option<Vec<Range<usize>>> {
    let mut unread = Vec::new();
    if text.len() < least {
        return Some(unread);
    }
    let Some(view) = View::of(text) else {
        unread.push(0..text.len());
        return Some(unread);
    };
    let mut waiting = Vec::new();
    let mut work = text
        .len()
        .saturating_mul(WORK_PER_BYTE)
        .saturating_add(LEAST_WORK);
    let mut seen = HashSet::new();
    let mut next = Some(view);
    while let Some(view) = next {
        if look(&view).is_break() {
            return None;
        }
        let is_readable = readings(&view, least, loose, &mut |view| {
            // Of a key in a loose view, what is no letter may be missing.
            let is_short = view.bytes.len() < least && !view.is_loose;
            if is_short || !seen.insert(view.fingerprint()) {
                return;
            }
            match work.checked_sub(view.bytes.len()) {
                Some(rest) => {
                    work = rest;
                    waiting.push(view);
                }
                None => unread.push(view.whole()),
            }
        });
        if !is_readable {
            unread.push(view.whole());
        }
        next = waiting.pop();
    }
    Some(unread)
}

/// Passes the views that result from decoding one thing in `view` to `found`. Returns whether these are all of
/// them.
fn readings(
    view: &View<'_>,
    least: usize,
    loose: &Loose,
    found: &mut dyn FnMut(View<'static>),
) -> bool {
    unpack(view, least, found);
    let letters = || loosen(view, |byte| byte.is_ascii_alphanumeric());
    if view.is_loose {
        letters().into_iter().for_each(found);
        return true;
    }
    unlist(view, least, found);
    let apart = loosen(view, |byte| loose.keeps(byte)).or_else(letters);
    apart.into_iter().for_each(&mut *found);
    narrow(view).into_iter().for_each(&mut *found);
    if !view.is_joined {
        for without_plus in [false, true] {
            join(view, without_plus).into_iter().for_each(&mut *found);
        }
    }
    // Escapes were decoded before blanks were removed, unless they are written in UTF-16. What remains are escapes
    // that blanks divided. Within odd escapes there are seldom others.
    if view.odd_layers > 0 || view.is_joined && !view.was_wide {
        let divided = unescape(view, Kind::Numbers).map(|mut undone| {
            undone.is_joined = view.is_joined && join(&undone, false).is_none();
            undone
        });
        if view.layers >= MAX_LAYERS {
            return divided.is_none();
        }
        divided.into_iter().for_each(found);
        return true;
    }
    let numbers = unescape(view, Kind::Numbers);
    let letters = unescape(view, Kind::Letters);
    let both = (numbers.is_some() && letters.is_some()).then(|| unescape(view, Kind::Both));
    let unescaped = [numbers, letters, both.flatten()];
    if view.layers >= MAX_LAYERS {
        return unescaped.iter().all(Option::is_none);
    }
    unescaped.into_iter().flatten().for_each(&mut *found);
    if view.layers <= MAX_LAYERS_AROUND_ODD {
        let odd = [Kind::Octal, Kind::Css, Kind::Marked];
        let unescaped = odd.into_iter().filter_map(|kind| unescape(view, kind));
        unescaped.for_each(found);
    }
    true
}
