//! Decoding of a text in every way in which it may be encoded.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::{ControlFlow, Range};

use super::blanks::has_blanks;
use super::draft::Draft;
use super::escapes::Kind;
use super::lists::lists;
use super::loose::Loose;
use super::packed::unpack;
use super::view::{Looseness, Step, View};
use super::wide::wides;

/// Maximum length in bytes of a text that is read. Nothing that is stored is as long, and to read longer ones in pieces
/// would miss what lies across these: there is no bound to the length of an encoded key.
pub(super) const LONGEST_TEXT: usize = 64 << 10;

/// Maximum number of layers of escapes that are decoded. A URL in the query of a URL is escaped twice, and some
/// services wrap it once or twice more. Nothing harmless is escaped this often.
const MAX_LAYERS: u8 = 8;

/// Maximum number of layers of escapes around escapes that look like ordinary text: most texts have such readings.
const MAX_LAYERS_AROUND_ODD: u8 = 1;

/// Maximum number of decodings of any kind, one within another.
const MAX_DEPTH: usize = 24;

/// Budget for the total size of all views of a text, in bytes: an amount per byte of the text, and a minimum. A link
/// is read in two to six views of its length.
const WORK_PER_BYTE: usize = 16;
const LEAST_WORK: usize = 64 << 10;

/// Cost of a view in addition to its bytes.
const WORK_PER_VIEW: usize = 32;

/// Returned where the text takes more to read than it may.
pub(super) struct Unread;

/// Early end of reading: enough was seen, or there is more than may be read.
enum End {
    Seen,
    Unread,
}

/// Work that may still be done, in bytes of views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget(usize);

impl Budget {
    /// Returns the budget for reading a text of this length `times` times.
    pub(super) fn new(length: usize, times: usize) -> Self {
        Self((length * WORK_PER_BYTE + LEAST_WORK) * times)
    }

    #[cfg(test)]
    pub(super) fn left(self) -> usize {
        self.0
    }

    fn spend(&mut self, bytes: usize) -> ControlFlow<End> {
        match self.0.checked_sub(bytes + WORK_PER_VIEW) {
            Some(rest) => {
                self.0 = rest;
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(End::Unread),
        }
    }
}

/// Result of a look at one view.
pub(super) enum Seen {
    Nothing,
    /// Something, whose places were traced back.
    Traced,
    /// Enough: nothing else needs to be read.
    Enough,
}

/// Reader of one text.
struct Reader<'r> {
    least: usize,
    loose: &'r Loose,
    budget: &'r mut Budget,
    seen: HashSet<u64>,
    hashes: RandomState,
    look: &'r mut dyn FnMut(&View<'_>) -> Seen,
    /// Places that are escaped too often.
    unread: Vec<Range<usize>>,
}

/// Passes the text and everything that it encodes to `look`, except for views of fewer than `least` bytes.
///
/// Returns the places that are escaped more often than is read, or an error if the text is too long, or there is more
/// to read than `budget` allows.
pub(super) fn read(
    text: &[u8],
    least: usize,
    loose: &Loose,
    budget: &mut Budget,
    look: &mut dyn FnMut(&View<'_>) -> Seen,
) -> Result<Vec<Range<usize>>, Unread> {
    if text.len() < least {
        return Ok(Vec::new());
    }
    if text.len() > LONGEST_TEXT {
        return Err(Unread);
    }
    let mut reader = Reader {
        least,
        loose,
        budget,
        seen: HashSet::new(),
        hashes: RandomState::new(),
        look,
        unread: Vec::new(),
    };
    match reader.visit(&View::of(text)) {
        ControlFlow::Break(End::Unread) => Err(Unread),
        _ => Ok(reader.unread),
    }
}

/// Presence of characters on which readings depend.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each stands for a reading that the text may have"
)]
struct Facts {
    has_percent_or_ampersand: bool,
    has_backslash: bool,
    has_blank: bool,
    has_plus: bool,
    is_ascii: bool,
}

impl Facts {
    fn of(text: &[u8]) -> Self {
        let has = |byte| memchr::memchr(byte, text).is_some();
        Self {
            has_percent_or_ampersand: memchr::memchr2(b'%', b'&', text).is_some(),
            has_backslash: has(b'\\'),
            has_blank: !text.iter().all(u8::is_ascii_graphic),
            has_plus: has(b'+'),
            is_ascii: text.is_ascii(),
        }
    }
}

impl Reader<'_> {
    /// Looks at a view, and at all that is made of it.
    fn visit(&mut self, view: &View<'_>) -> ControlFlow<End> {
        self.budget.spend(view.bytes.len())?;
        let seen = (self.look)(view);
        match seen {
            Seen::Nothing => (),
            Seen::Traced => self.budget.spend(view.bytes.len() * view.depth / 2)?,
            Seen::Enough => return ControlFlow::Break(End::Seen),
        }
        self.unpacked(view)?;
        match view.loose {
            Looseness::Nothing => (),
            Looseness::Foreign => return self.loosened(view, Looseness::Marks),
            Looseness::Marks => return ControlFlow::Continue(()),
        }
        let facts = Facts::of(view.bytes);
        let mut steps = Vec::new();
        lists(view.bytes, self.least, &mut |list| {
            steps.push(Step::Unlist(list));
        });
        for step in steps {
            self.go(view, step, |_, _| ())?;
        }
        // What was found would be found again. What else there is comes up when the rest is read.
        if !view.has_known_letters && !matches!(seen, Seen::Traced) {
            if self.loose.needs_foreign() {
                self.loosened(view, Looseness::Foreign)?;
            } else {
                self.loosened(view, Looseness::Marks)?;
            }
        }
        if !facts.is_ascii && !view.is_joined {
            self.wide(view)?;
        }
        if !facts.is_ascii {
            let (is_joined, was_wide) = (view.is_joined, view.was_wide);
            self.go(view, Step::Narrow, |_, made| {
                (made.is_joined, made.was_wide) = (is_joined, was_wide);
            })?;
        }
        if !view.is_joined && facts.has_blank {
            self.joined(view, false)?;
        }
        if !view.is_joined && facts.has_plus {
            self.joined(view, true)?;
        }
        self.unescaped(view, &facts)
    }

    /// Visits what `step` makes of `view`, if it is anything that may hold a key and was not visited before. Returns
    /// whether `step` made anything.
    fn go(
        &mut self,
        view: &View<'_>,
        step: Step,
        adjust: impl FnOnce(&[u8], &mut View<'_>),
    ) -> ControlFlow<End, bool> {
        let mut draft = Draft::of(view.bytes);
        if !step.apply(self.loose, &mut draft) {
            return ControlFlow::Continue(false);
        }
        let mut made = view.derive(step, &draft.bytes);
        adjust(&draft.bytes, &mut made);
        // Of a key in a loose view, what is no letter may be missing.
        let is_short = made.loose == Looseness::Nothing && !self.is_long_enough(made.bytes);
        if is_short || !self.is_new(&made) {
            return ControlFlow::Continue(true);
        }
        if made.depth > MAX_DEPTH {
            return ControlFlow::Break(End::Unread);
        }
        self.visit(&made)?;
        ControlFlow::Continue(true)
    }

    /// Returns whether there are as many visible characters as the shortest key has.
    fn is_long_enough(&self, bytes: &[u8]) -> bool {
        let is_visible = |byte: &&u8| byte.is_ascii_graphic() || !byte.is_ascii();
        bytes.len() >= self.least && bytes.iter().filter(is_visible).count() >= self.least
    }

    /// Returns whether no such view, to be read on in the same way, was visited.
    fn is_new(&mut self, view: &View<'_>) -> bool {
        let kind = (
            view.is_joined,
            view.loose == Looseness::Nothing,
            view.odd_layers,
        );
        self.seen.insert(self.hashes.hash_one((view.bytes, kind)))
    }

    fn unpacked(&mut self, view: &View<'_>) -> ControlFlow<End> {
        let mut steps = Vec::new();
        unpack(view.bytes, self.least, &mut |packed| {
            steps.push(Step::Unpack(packed));
        });
        for step in steps {
            self.go(view, step, |_, _| ())?;
        }
        ControlFlow::Continue(())
    }

    fn wide(&mut self, view: &View<'_>) -> ControlFlow<End> {
        let mut steps = Vec::new();
        let byte = |at: usize| view.bytes[at];
        wides(view.bytes.len(), byte, self.least, &mut |wide| {
            steps.push(Step::Wide(wide));
        });
        for step in steps {
            self.go(view, step, |_, _| ())?;
        }
        ControlFlow::Continue(())
    }

    fn loosened(&mut self, view: &View<'_>, loose: Looseness) -> ControlFlow<End> {
        let adjust = |_: &[u8], made: &mut View<'_>| made.loose = loose;
        let is_any = self.go(view, Step::Loosen(loose), adjust)?;
        if !is_any && loose == Looseness::Foreign {
            return self.loosened(view, Looseness::Marks);
        }
        ControlFlow::Continue(())
    }

    fn joined(&mut self, view: &View<'_>, without_plus: bool) -> ControlFlow<End> {
        let was_wide = memchr::memchr(0, view.bytes).is_some();
        self.go(view, Step::Join { without_plus }, |_, made| {
            made.is_joined = true;
            made.has_known_letters = true;
            made.was_wide = was_wide;
        })?;
        ControlFlow::Continue(())
    }

    fn unescaped(&mut self, view: &View<'_>, facts: &Facts) -> ControlFlow<End> {
        let has_escapes = facts.has_percent_or_ampersand || facts.has_backslash;
        // Escapes were decoded before blanks were removed, unless they are written in UTF-16. What remains are escapes
        // that blanks divided. Within odd escapes there are seldom others.
        if view.odd_layers > 0 || view.is_joined && !view.was_wide {
            if has_escapes {
                self.escaped(view, Kind::Numbers, true)?;
            }
            return ControlFlow::Continue(());
        }
        let is_number = has_escapes && self.escaped(view, Kind::Numbers, false)?;
        if facts.has_backslash && self.escaped(view, Kind::Letters, false)? && is_number {
            self.escaped(view, Kind::Both, false)?;
        }
        if view.layers <= MAX_LAYERS_AROUND_ODD {
            if facts.has_backslash {
                self.escaped(view, Kind::Octal, false)?;
                self.escaped(view, Kind::Css, false)?;
            }
            self.escaped(view, Kind::Marked, false)?;
        }
        ControlFlow::Continue(())
    }

    /// Visits `view` without escapes of one kind. Returns whether there are any.
    fn escaped(&mut self, view: &View<'_>, kind: Kind, is_divided: bool) -> ControlFlow<End, bool> {
        if view.layers >= MAX_LAYERS && !kind.is_odd() {
            let mut draft = Draft::of(view.bytes);
            let is_any = Step::Unescape(kind).apply(self.loose, &mut draft);
            if is_any {
                let mut whole = 0..view.bytes.len();
                view.trace([&mut whole], self.loose);
                self.unread.push(whole);
            }
            return ControlFlow::Continue(is_any);
        }
        let is_joined = is_divided && view.is_joined;
        self.go(view, Step::Unescape(kind), |bytes, made| {
            if kind.is_odd() {
                made.odd_layers += 1;
            } else {
                made.layers += 1;
            }
            made.is_joined = is_joined && !has_blanks(bytes);
        })
    }
}
