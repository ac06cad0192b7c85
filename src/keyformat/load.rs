//! Conversion of a TOML table into a validated [`KeyFormat`].

use toml::Spanned;
use toml::de::DeValue;

use super::Alphabet;
use super::checksum::{Checksum, ChecksumAlgorithm, ChecksumEncoding, Coverage};
use super::fields::{self, Fields, Located, Source, shortened};
use super::format::{KeyFormat, Visibility};
use super::problem::{Fault, Problem};
use super::shape::{self, MAX_KEY_LEN, RegexShape};
use super::shape::{Body, Shape};

const MIN_LITERAL_LEN: usize = 3;
const MAX_LITERAL_LEN: usize = 64;
const MAX_ID_LEN: usize = 64;
const MAX_DESCRIPTION_LEN: usize = 200;
const MIN_ENTROPY_BITS: f64 = 128.0;
/// Length of the longest prefix of an anchored key that redaction may show, in characters.
const MAX_DISPLAY_PREFIX_LEN: usize = 16;

/// Result of reading one `[[format]]`.
pub(super) struct Draft {
    pub(super) file: String,
    /// Identifier, present even if something else is wrong.
    pub(super) id: Option<Located<String>>,
    /// Format and the line of its literal, present only if nothing is wrong.
    pub(super) format: Option<Located<KeyFormat>>,
}

/// Reads the formats of one file, appending everything that is wrong with it to `problems`.
pub(super) fn read_file(file: &str, text: &str, problems: &mut Vec<Problem>) -> Vec<Draft> {
    let source = Source::new(file, text);
    let document = match fields::parse(&source, text) {
        Ok(document) => document,
        Err(errors) => {
            problems.extend(errors);
            return Vec::new();
        }
    };
    let mut root = Fields::new(&source, document.get_ref(), "", 1, None);
    root.refuse_unknown(&["format"]);
    let drafts = match document
        .get_ref()
        .get("format")
        .map(|value| (value, value.get_ref()))
    {
        None => Vec::new(),
        Some((_, DeValue::Array(formats))) => formats
            .iter()
            .map(|format| read_item(&source, format, &mut root))
            .collect(),
        Some((value, _)) => {
            root.fault(source.line(&value.span()), not_a_format());
            Vec::new()
        }
    };
    problems.append(&mut root.problems);
    drafts
}

fn not_a_format() -> Fault {
    Fault::new(
        "`format` is not a list of tables",
        "start every format with a line [[format]]",
    )
}

fn read_item(source: &Source<'_>, item: &Spanned<DeValue<'_>>, root: &mut Fields<'_, '_>) -> Draft {
    let line = source.line(&item.span());
    let nothing = Draft {
        file: source.file.to_owned(),
        id: None,
        format: None,
    };
    let DeValue::Table(table) = item.get_ref() else {
        root.fault(line, not_a_format());
        return nothing;
    };
    let mut fields = Fields::new(source, table, "", line, None);
    let id = read_id(&mut fields);
    fields.format = id.as_ref().map(|id| id.value.clone());
    let format = read_format(source, &mut fields);
    // In the order of the lines rather than that of the checks, which is how the file gets fixed.
    fields.problems.sort_by_key(|problem| problem.line);
    let sound = fields.problems.is_empty();
    root.problems.append(&mut fields.problems);
    Draft {
        id,
        format: format.filter(|_| sound),
        ..nothing
    }
}

fn read_id(fields: &mut Fields<'_, '_>) -> Option<Located<String>> {
    fields.require("id", "\"acme_secret\"");
    let Located { value, line } = fields.string("id")?;
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
    if value.is_empty() || value.len() > MAX_ID_LEN || !value.bytes().all(allowed) {
        fields.fault(
            line,
            Fault::new(
                format!("`id` is \"{}\"", shortened(value)),
                format!("use 1 to {MAX_ID_LEN} characters of a-z, 0-9, `_`, `-` and `.`"),
            ),
        );
        return None;
    }
    Some(Located {
        value: value.to_owned(),
        line,
    })
}

fn read_format(source: &Source<'_>, fields: &mut Fields<'_, '_>) -> Option<Located<KeyFormat>> {
    fields.refuse_unknown(&[
        "id",
        "description",
        "visibility",
        "prefix",
        "body",
        "anchor",
        "regex",
        "checksum",
        "on_leak",
        "retired",
    ]);
    let description = read_description(fields);
    let visibility = read_visibility(fields);
    read_on_leak(fields, visibility);
    let is_retired = fields.flag("retired").is_some_and(|flag| flag.value);
    let checksum = read_checksum(source, fields);
    let shape = read_shape(source, fields, checksum);
    let (literal, shape) = shape?;
    let id = fields.format.clone()?;
    let display_prefix = match &shape {
        Shape::Prefix(_) => literal.value.clone(),
        Shape::Regex(regex) => {
            let shown = MAX_DISPLAY_PREFIX_LEN.min(regex.min_len / 4);
            regex.common_start(shown)
        }
    };
    Some(Located {
        line: literal.line,
        value: KeyFormat {
            description: description.unwrap_or_else(|| id.clone()),
            id,
            visibility: visibility?,
            literal: literal.value,
            display_prefix,
            shape,
            checksum: checksum.map(|checksum| checksum.value),
            is_retired,
        },
    })
}

fn read_description(fields: &mut Fields<'_, '_>) -> Option<String> {
    let Located { value, line } = fields.string("description")?;
    if value.chars().count() > MAX_DESCRIPTION_LEN || value.chars().any(char::is_control) {
        fields.fault(
            line,
            Fault::new(
                "`description` is too long or has control characters",
                format!("use one line of at most {MAX_DESCRIPTION_LEN} characters"),
            ),
        );
    }
    Some(value.to_owned())
}

fn read_visibility(fields: &mut Fields<'_, '_>) -> Option<Visibility> {
    fields.require("visibility", "\"secret\"");
    let choices = [Visibility::Secret, Visibility::Public].map(|choice| (choice.name(), choice));
    Some(fields.word("visibility", &choices)?.value)
}

fn read_on_leak(fields: &mut Fields<'_, '_>, visibility: Option<Visibility>) {
    if let Some(on_leak) = fields.word("on_leak", &[("revoke", ())])
        && visibility == Some(Visibility::Public)
    {
        fields.fault(
            on_leak.line,
            Fault::new(
                "`on_leak` is given for a public format, whose keys are never acted upon",
                "remove `on_leak`, or set visibility = \"secret\"",
            ),
        );
    }
}

fn read_checksum(source: &Source<'_>, fields: &mut Fields<'_, '_>) -> Option<Located<Checksum>> {
    let Located { value: table, line } = fields.table("checksum")?;
    let mut inner = Fields::new(source, table, "checksum.", line, fields.format.clone());
    inner.refuse_unknown(&["algorithm", "encoding", "length", "over"]);
    inner.require("algorithm", "\"crc32\"");
    inner.require("encoding", "\"base62\"");
    inner.require("length", "6");
    inner.require("over", "\"body\"");
    let algorithms = ChecksumAlgorithm::ALL.map(|choice| (choice.name(), choice));
    let algorithm = inner.word("algorithm", &algorithms);
    let encodings = [ChecksumEncoding::Base62, ChecksumEncoding::Hex];
    let encoding = inner.word("encoding", &encodings.map(|choice| (choice.name(), choice)));
    let length = inner.count("length");
    let coverages = [Coverage::Body, Coverage::Preceding];
    let over = inner.word("over", &coverages.map(|choice| (choice.name(), choice)));
    if let (Some(encoding), Some(length)) = (&encoding, &length) {
        let needed = encoding.value.length();
        if length.value != needed {
            let fault = Fault::new(
                format!("`checksum.length` is {}", length.value),
                format!(
                    "CRC-32 in this encoding takes exactly {needed} characters: write length = {needed}"
                ),
            );
            inner.fault(length.line, fault);
        }
    }
    fields.problems.append(&mut inner.problems);
    Some(Located {
        value: Checksum {
            algorithm: algorithm?.value,
            encoding: encoding?.value,
            over: over?.value,
        },
        line,
    })
}

fn read_shape(
    source: &Source<'_>,
    fields: &mut Fields<'_, '_>,
    checksum: Option<Located<Checksum>>,
) -> Option<(Located<String>, Shape)> {
    let by_prefix = fields.has("prefix") || fields.has("body");
    let by_anchor = fields.has("anchor") || fields.has("regex");
    match (by_prefix, by_anchor) {
        (true, false) => read_prefix_shape(source, fields, checksum),
        (false, true) => read_regex_shape(fields, checksum),
        (both, _) => {
            let message = if both {
                "the format is described in two ways at once"
            } else {
                "the format does not say what its keys look like"
            };
            let remedy = "give either `prefix` and `body`, or `anchor` and `regex`";
            fields.fault(fields.line, Fault::new(message, remedy));
            None
        }
    }
}

fn read_literal(fields: &mut Fields<'_, '_>, name: &str) -> Option<Located<String>> {
    let Located { value, line } = fields.string(name)?;
    let fault = if value.len() < MIN_LITERAL_LEN {
        Fault::new(
            format!(
                "`{name}` is \"{}\", a literal under {MIN_LITERAL_LEN} characters",
                shortened(value)
            ),
            format!(
                "use at least {MIN_LITERAL_LEN} characters, better 7 or more: a short literal is found everywhere"
            ),
        )
    } else if value.len() > MAX_LITERAL_LEN {
        Fault::new(
            format!("`{name}` is {} characters long", value.len()),
            format!("use at most {MAX_LITERAL_LEN} characters"),
        )
    } else if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        Fault::new(
            format!(
                "`{name}` is \"{}\", which is not all printable ASCII",
                shortened(value)
            ),
            "use letters, digits and `_`",
        )
    } else {
        return Some(Located {
            value: value.to_owned(),
            line,
        });
    };
    fields.fault(line, fault);
    None
}

fn read_prefix_shape(
    source: &Source<'_>,
    fields: &mut Fields<'_, '_>,
    checksum: Option<Located<Checksum>>,
) -> Option<(Located<String>, Shape)> {
    fields.require("prefix", "\"acme_sk_\"");
    fields.require("body", "{ alphabet = \"base62\", length = 30 }");
    let literal = read_literal(fields, "prefix");
    let body = read_body(source, fields);
    let (literal, body) = (literal?, body?);
    let checksum_len = checksum.map_or(0, |checksum| checksum.value.encoding.length());
    let length = literal
        .value
        .len()
        .saturating_add(body.value.length)
        .saturating_add(checksum_len);
    if length > MAX_KEY_LEN {
        fields.fault(
            body.line,
            Fault::new(
                format!("a key would be {length} characters long"),
                format!("lower `body.length`: a key has at most {MAX_KEY_LEN} characters"),
            ),
        );
    }
    Some((literal, Shape::Prefix(body.value)))
}

fn read_body(source: &Source<'_>, fields: &mut Fields<'_, '_>) -> Option<Located<Body>> {
    let Located { value: table, line } = fields.table("body")?;
    let mut inner = Fields::new(source, table, "body.", line, fields.format.clone());
    inner.refuse_unknown(&["alphabet", "length"]);
    inner.require("alphabet", "\"base62\"");
    inner.require("length", "30");
    let alphabet = inner.word(
        "alphabet",
        &Alphabet::ALL.map(|choice| (choice.name(), choice)),
    );
    let length = inner.count("length");
    if let (Some(alphabet), Some(length)) = (&alphabet, &length) {
        let bits = alphabet.value.entropy_bits(length.value);
        if bits < MIN_ENTROPY_BITS {
            let enough =
                (1..=MAX_KEY_LEN).find(|n| alphabet.value.entropy_bits(*n) >= MIN_ENTROPY_BITS);
            let fault = Fault::new(
                format!(
                    "{} characters of {} have {bits:.0} bits of entropy, under {MIN_ENTROPY_BITS:.0}",
                    length.value,
                    alphabet.value.name()
                ),
                format!(
                    "set body.length to {} or more; a format that mints nothing is described by `anchor` and `regex`",
                    enough.unwrap_or_default()
                ),
            );
            inner.fault(length.line, fault);
        }
    }
    fields.problems.append(&mut inner.problems);
    let body = Body {
        alphabet: alphabet?.value,
        length: length?.value,
    };
    Some(Located { value: body, line })
}

fn read_regex_shape(
    fields: &mut Fields<'_, '_>,
    checksum: Option<Located<Checksum>>,
) -> Option<(Located<String>, Shape)> {
    fields.require("anchor", "\"574ck4u7h\"");
    fields.require("regex", "'[0-9a-z]{30}574ck4u7h[0-9a-f]{8}'");
    let literal = read_literal(fields, "anchor");
    let regex = fields.string("regex");
    let (literal, regex) = (literal?, regex?);
    let shape = fields.check(regex.line, RegexShape::new(regex.value, &literal.value))?;
    if let Some(Located {
        value: checksum,
        line,
    }) = checksum
    {
        let covered = check_regex_checksum(checksum);
        fields.check(line, covered);
        let room = check_regex_room(&shape, checksum);
        fields.check(regex.line, room);
    }
    Some((literal, Shape::Regex(Box::new(shape))))
}

fn check_regex_checksum(checksum: Checksum) -> Result<(), Fault> {
    if checksum.over == Coverage::Body {
        return Err(Fault::new(
            "`checksum.over` is \"body\", but a format with `regex` has no body",
            "write over = \"preceding\": everything before the checksum",
        ));
    }
    Ok(())
}

/// Checks that the last characters of a key can be its checksum; otherwise no key would ever be found.
fn check_regex_room(shape: &RegexShape, checksum: Checksum) -> Result<(), Fault> {
    let length = checksum.encoding.length();
    let class = match checksum.encoding {
        ChecksumEncoding::Base62 => "[0-9A-Za-z]",
        ChecksumEncoding::Hex => "[0-9a-f]",
    };
    let ends_in_one = shape::compile(&format!("(?s:.)+{class}{{{length}}}"))?;
    if shape.min_len <= length || !shape.automaton().intersects(&ends_in_one) {
        return Err(Fault::new(
            "`regex` leaves no room for the checksum",
            format!("end it in {class}{{{length}}}, which is where the checksum stands"),
        ));
    }
    Ok(())
}
