//! Takes keys out of texts that are kept or shown: the one notion of "contains a key".

mod layers;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;

use super::Engine;
use crate::keyformat::{FormatSet, KeyFormat, KeyValue};
use layers::{move_back, percent_decode, rewritten, unfold};

/// How often percent-encoding is undone: a link within a link's query is encoded twice, and some services
/// wrap that once more.
const MAX_LAYERS: usize = 3;

/// How often a text is looked through. What is left where keys were taken out can be one only by design.
const MAX_ROUNDS: usize = 4;

/// The shortest value that is looked for in its encodings, in bytes. Anything shorter stands in any text.
const MIN_ENCODED: usize = 8;

/// Finds keys in texts that somebody else wrote, and takes them out. Cheap to clone.
///
/// A text contains a key if the scanning engine finds one in it in any encoding that it knows, of a secret
/// or a public format, whatever the configuration has it look for in contents; or if it does so after line
/// breaks within base64 were left out and percent-encoding (RFC 3986, section 2.1) was undone up to three
/// times. The effort is linear in the length of the text.
#[derive(Debug, Clone)]
pub struct Redactor {
    engine: Arc<Engine>,
    /// The length of the shortest key, in bytes. No encoding makes one shorter.
    shortest: usize,
}

/// What is taken out of a text, and what stands there instead.
struct Cut {
    place: Range<usize>,
    shown: String,
}

impl Redactor {
    /// A redactor for keys of all of `formats`.
    pub fn new(formats: &FormatSet) -> Self {
        Self {
            engine: Arc::new(Engine::of_every_format(formats)),
            shortest: formats.iter().map(KeyFormat::min_len).min().unwrap_or(0),
        }
    }

    /// Whether a key stands in `text`, which need not be UTF-8.
    pub fn holds_key(&self, text: impl AsRef<[u8]>) -> bool {
        let text = text.as_ref();
        text.len() >= self.shortest && !cuts(text, |text| self.keys(text)).is_empty()
    }

    /// `text` with every key in it shortened to what may be shown: `rsc_sk_…wxyz` instead of all that the
    /// key's encoding takes up.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if text.len() < self.shortest {
            return Cow::Borrowed(text);
        }
        without(text, |text| self.keys(text))
    }

    /// `text` with every key in it redacted, and with `…` instead of `value`, which may be a key of a format
    /// that nobody told us: as it is, in UTF-16, in base64, and percent-encoded.
    pub fn redact_value<'t>(&self, text: &'t str, value: &KeyValue) -> Cow<'t, str> {
        let forms = forms(value.expose());
        without(text, |text| {
            let mut cuts = self.keys(text);
            for form in &forms {
                cuts.extend(memmem::find_iter(text, form).map(|at| Cut {
                    place: at..at + form.len(),
                    shown: "…".to_owned(),
                }));
            }
            cuts
        })
    }

    fn keys(&self, text: &[u8]) -> Vec<Cut> {
        let places = self.engine.places(text).into_iter();
        places.map(|(place, shown)| Cut { place, shown }).collect()
    }
}

/// The texts in which a value shows itself.
fn forms(value: &str) -> Vec<Vec<u8>> {
    if value.is_empty() {
        return Vec::new();
    }
    let mut forms = vec![value.as_bytes().to_vec()];
    if value.len() < MIN_ENCODED {
        return forms;
    }
    let mut wide: Vec<u8> = value.encode_utf16().flat_map(u16::to_le_bytes).collect();
    // Without the last zero byte it is part of the other byte order's form too.
    wide.pop_if(|byte| *byte == 0);
    forms.push(wide);
    for before in 0..3 {
        let bytes = [&[0; 3][..before], value.as_bytes()].concat();
        // The characters at the ends belong to its neighbours as well.
        let whole = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        for encoded in [
            STANDARD_NO_PAD.encode(&bytes),
            URL_SAFE_NO_PAD.encode(&bytes),
        ] {
            forms.push(encoded.as_bytes()[whole.clone()].to_vec());
        }
    }
    forms
}

/// `text` without what `find` finds in it.
fn without(text: &str, find: impl Fn(&[u8]) -> Vec<Cut>) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..MAX_ROUNDS {
        let cuts = cuts(text.as_bytes(), &find);
        if cuts.is_empty() {
            break;
        }
        text = Cow::Owned(cut(&text, &cuts));
    }
    text
}

/// What `find` finds in `text` and in what it stands for, as places in `text`, in their order. Places may
/// overlap.
fn cuts(text: &[u8], find: impl Fn(&[u8]) -> Vec<Cut>) -> Vec<Cut> {
    let mut all = Vec::new();
    let mut layers: Vec<Vec<u8>> = Vec::new();
    loop {
        let layer = layers.last().map_or(text, Vec::as_slice);
        let mut found = find(layer);
        if let Some(unfolded) = rewritten(layer, b'\n', unfold) {
            let mut more = find(&unfolded);
            move_back(layer, unfold, places(&mut more));
            found.extend(more);
        }
        for below in (0..layers.len()).rev() {
            let below = below.checked_sub(1).map_or(text, |below| &layers[below]);
            move_back(below, percent_decode, places(&mut found));
        }
        all.extend(found);
        let decoded = rewritten(layer, b'%', percent_decode);
        match decoded.filter(|_| layers.len() < MAX_LAYERS) {
            Some(decoded) => layers.push(decoded),
            None => break,
        }
    }
    all.sort_unstable_by_key(|cut| (cut.place.start, cut.place.end));
    all
}

fn places(cuts: &mut [Cut]) -> impl Iterator<Item = &mut Range<usize>> {
    cuts.iter_mut().map(|cut| &mut cut.place)
}

/// `text` with `cuts` made. Of places that overlap, all goes, and what the first one shows stays.
fn cut(text: &str, cuts: &[Cut]) -> String {
    let mut rest = String::with_capacity(text.len());
    let mut done = 0;
    for cut in cuts {
        // Keys are ASCII, and so are the characters that encode them.
        let start = text.floor_char_boundary(cut.place.start);
        let end = text.ceil_char_boundary(cut.place.end);
        if start >= done {
            rest.push_str(&text[done..start]);
            rest.push_str(&cut.shown);
        }
        done = done.max(end);
    }
    rest.push_str(&text[done..]);
    rest
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::time::{Duration, Instant};

    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn redactor() -> Redactor {
        Redactor::new(&FormatSet::builtin())
    }

    fn key(id: &str) -> KeyValue {
        let format = FormatSet::builtin().get(id).unwrap().clone();
        format.mint().unwrap()
    }

    fn wide(text: &str, low_first: bool) -> String {
        let units = text.chars();
        units
            .flat_map(|c| if low_first { [c, '\0'] } else { ['\0', c] })
            .collect()
    }

    fn percent(text: &str, all: bool) -> String {
        let mut encoded = String::new();
        for byte in text.bytes() {
            if all || !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
                let _ = write!(encoded, "%{byte:02x}");
            } else {
                encoded.push(char::from(byte));
            }
        }
        encoded
    }

    fn wrapped(text: &str, width: usize) -> String {
        let lines = text.as_bytes().chunks(width).map(String::from_utf8_lossy);
        lines.collect::<Vec<_>>().join("\r\n")
    }

    /// The ways in which a key may be written, each around what stands before and behind it.
    const WRITINGS: usize = 11;

    fn write_down(which: usize, before: &str, key: &str, after: &str) -> String {
        let around = format!("{before}{key}{after}");
        match which {
            0 => around,
            1 => STANDARD.encode(&around),
            2 => URL_SAFE_NO_PAD.encode(&around),
            3 => wrapped(&STANDARD.encode(&around), 20),
            4 => format!("{before}{}{after}", wide(key, true)),
            5 => format!("{before}{}{after}", wide(key, false)),
            6 => percent(&around, true),
            7 => percent(&percent(&around, true), false),
            8 => percent(&percent(&percent(&around, false), true), false),
            9 => percent(&STANDARD.encode(&around), false),
            10 => percent(&wide(&around, true), true),
            _ => unreachable!(),
        }
    }

    /// Everything that `text` says to somebody who decodes it, without the help of the engine.
    fn readings(text: &str) -> Vec<Vec<u8>> {
        let mut layers = vec![text.as_bytes().to_vec()];
        while let Some(next) = rewritten(layers.last().unwrap(), b'%', percent_decode) {
            layers.push(next);
        }
        let mut all = layers.clone();
        for layer in layers {
            all.push(layer.iter().copied().filter(|byte| *byte != 0).collect());
            let joined: Vec<u8> = layer
                .iter()
                .copied()
                .filter(|b| !b"\r\n".contains(b))
                .collect();
            let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
            for run in joined.split(|byte| !is_base64(byte)) {
                for skip in 0..run.len().min(4) {
                    let run = &run[skip..];
                    let run = &run[..run.len() - usize::from(run.len() % 4 == 1)];
                    let text = String::from_utf8_lossy(run)
                        .replace('-', "+")
                        .replace('_', "/");
                    let lenient = base64::engine::GeneralPurpose::new(
                        &base64::alphabet::STANDARD,
                        base64::engine::general_purpose::NO_PAD
                            .with_decode_allow_trailing_bits(true),
                    );
                    all.extend(lenient.decode(text));
                }
            }
        }
        all
    }

    fn is_readable(text: &str, key: &KeyValue) -> bool {
        let body = &key.expose().as_bytes()[..key.expose().len() - 4];
        readings(text)
            .iter()
            .any(|reading| memmem::find(reading, body).is_some())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn no_key_stays_readable_however_it_is_written(
            which in 0..WRITINGS,
            before in "[ -~äß€]{0,24}",
            after in "[ -~äß€]{0,24}",
            around in "[a-z /?=&\u{e4}]{0,9}",
            public in any::<bool>(),
        ) {
            let redactor = redactor();
            let key = key(if public { "rescind_public" } else { "rescind_secret" });
            let text = write_down(which, &before, key.expose(), &after);
            // What stands beside base64 must not be base64.
            let text = format!("{around} {text} {around}");
            prop_assert!(is_readable(&text, &key), "the test can read {text}");
            prop_assert!(redactor.holds_key(&text), "{which} {text}");
            let redacted = redactor.redact(&text);
            prop_assert!(!is_readable(&redacted, &key), "{which} {redacted}");
            prop_assert!(redacted.contains(key.last_four()), "{which} {redacted}");
            prop_assert!(redacted.starts_with(&around) && redacted.ends_with(&around));
            prop_assert!(!redactor.holds_key(&*redacted));
            prop_assert_eq!(redactor.redact(&redacted), redacted.as_ref());
        }

        #[test]
        fn any_text_can_be_redacted(text in any::<String>(), odd in "[%0-9a-fA-F\u{e4}]{0,40}") {
            let redactor = redactor();
            for text in [&text, &odd, &format!("{odd}{text}{odd}")] {
                prop_assert_eq!(redactor.redact(text), text.as_str());
            }
        }

        #[test]
        fn a_value_of_no_format_goes_too(
            which in 0..WRITINGS,
            value in "[A-Za-z0-9_]{12,40}",
            around in "[a-z]{0,5}",
        ) {
            let value = KeyValue::new(value);
            let text = write_down(which, "?", value.expose(), "&");
            let text = format!("{around} {text} {around}");
            prop_assert!(is_readable(&text, &value));
            let redacted = redactor().redact_value(&text, &value).into_owned();
            prop_assert!(!is_readable(&redacted, &value), "{which} {redacted}");
        }
    }

    #[test]
    fn what_holds_no_key_stays_as_it_is() {
        let redactor = redactor();
        for text in [
            "",
            "rsc_sk_ nothing",
            "100% of %",
            "%zz%1",
            "%25%25",
            "ä%C3%A4",
        ] {
            assert!(matches!(redactor.redact(text), Cow::Borrowed(same) if same == text));
        }
        let short = KeyValue::new("a");
        assert_eq!(redactor.redact_value("b", &short), "b");
        assert_eq!(redactor.redact_value("b", &KeyValue::new("")), "b");
    }

    #[test]
    fn several_keys_go_and_their_surroundings_stay() {
        let redactor = redactor();
        let (one, two) = (key("rescind_secret"), key("rescind_public"));
        let encoded = STANDARD.encode(format!("x{}y", one.expose()));
        let text = format!(
            "https://example.com/ä?{}&b={}&c=100%25",
            two.expose(),
            percent(&encoded, false)
        );
        let redacted = redactor.redact(&text);
        assert!(
            redacted.starts_with("https://example.com/ä?rsc_pk_…"),
            "{redacted}"
        );
        assert!(redacted.ends_with("&c=100%25"), "{redacted}");
        for key in [&one, &two] {
            assert!(!is_readable(&redacted, key), "{redacted}");
            assert!(
                redacted.contains(&format!("…{}", key.last_four())),
                "{redacted}"
            );
        }
    }

    #[test]
    fn hostile_texts_take_time_in_proportion_to_their_length() {
        let redactor = redactor();
        let secret = key("rescind_secret");
        let some = secret.expose();
        for piece in [
            "rsc_sk_",
            "%25",
            "%",
            "cnNjX3Nr",
            "%72",
            some,
            "r\0s\0c\0_\0s\0k\0_\0",
            "\n ",
        ] {
            let text = piece.repeat((256 << 10) / piece.len());
            let started = Instant::now();
            let redacted = redactor.redact(&text);
            assert!(!redacted.contains(some));
            let took = started.elapsed();
            assert!(took < Duration::from_secs(20), "{piece:?} took {took:?}");
        }
    }
}
