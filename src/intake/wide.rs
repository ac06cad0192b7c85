//! Bodies in UTF-16, which are no JSON by RFC 8259 (section 8.1) and are sent all the same.

/// Rewrites a body in UTF-16, with or without a byte order mark, as UTF-8, in place. Leaves any other body as it is.
///
/// A half of a surrogate pair becomes U+FFFD, and a character for which there is no room yet becomes `?`: only texts with
/// hardly an ASCII character have such ones, and no key does.
pub(super) fn narrow(body: &mut Vec<u8>) {
    let Some((start, unit_of)) = order(body) else {
        return;
    };
    let unit_at = |body: &[u8], at: usize| {
        let bytes = body.get(at..at + 2)?;
        Some(unit_of([bytes[0], bytes[1]]))
    };
    let (mut read, mut written) = (start, 0);
    while let Some(unit) = unit_at(body, read) {
        read += 2;
        let next = unit_at(body, read).filter(|next| (0xdc00..0xe000).contains(next));
        let pair = next.filter(|_| (0xd800..0xdc00).contains(&unit));
        read += if pair.is_some() { 2 } else { 0 };
        let units = std::iter::once(unit).chain(pair);
        let c = char::decode_utf16(units).next().and_then(Result::ok);
        let mut utf8 = [0; 4];
        let utf8 = c
            .unwrap_or(char::REPLACEMENT_CHARACTER)
            .encode_utf8(&mut utf8);
        let utf8 = if written + utf8.len() <= read {
            utf8.as_bytes()
        } else {
            b"?"
        };
        body[written..written + utf8.len()].copy_from_slice(utf8);
        written += utf8.len();
    }
    body.truncate(written);
}

/// Function that reads a unit in one of the two orders of its bytes.
type UnitOf = fn([u8; 2]) -> u16;

/// Number of units that have to be ASCII where there is no mark. Those of JSON are until the first text begins, and a few
/// NULs among other bytes are no UTF-16.
const PLAIN_UNITS: usize = 4;

/// Returns where UTF-16 starts in a body, behind its mark, and how its units are read.
fn order(body: &[u8]) -> Option<(usize, UnitOf)> {
    let little: UnitOf = u16::from_le_bytes;
    let big: UnitOf = u16::from_be_bytes;
    match body {
        [0xff, 0xfe, ..] => return Some((2, little)),
        [0xfe, 0xff, ..] => return Some((2, big)),
        _ => {}
    }
    let (units, _) = body.as_chunks::<2>();
    let first = &units[..units.len().min(PLAIN_UNITS)];
    let is_plain = |unit_of: &UnitOf| {
        let mut units = first.iter().map(|unit| unit_of(*unit));
        first.len() >= 2 && units.all(|unit| (1..0x80).contains(&unit))
    };
    let mut orders = [little, big].into_iter();
    orders.find(is_plain).map(|unit_of| (0, unit_of))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrowed(body: &[u8]) -> String {
        let mut body = body.to_vec();
        narrow(&mut body);
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn utf16_of_either_order_becomes_utf8() {
        let text = "[{\"token\":\"aä🔑\"}]";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for body in [&little, &big] {
            assert_eq!(narrowed(body), text);
        }
        assert_eq!(narrowed(&[&[0xff, 0xfe], &*little].concat()), text);
        assert_eq!(narrowed(&[&[0xfe, 0xff], &*big, &[0]].concat()), text);
        // A character of three bytes has no room in two, unless something before it left some, as the mark does.
        assert_eq!(narrowed(b"\xfe\xff\x65\xe5\x65\xe5\x65\xe5"), "日日?");
        assert_eq!(narrowed(b"\xfe\xff\0a\xd8\0\0b"), "a\u{fffd}b");
    }

    #[test]
    fn anything_else_stays_as_it_is() {
        for body in [
            "",
            "[",
            "[]",
            "\0[{\"",
            "[\0]{",
            "\0[\0{\"a",
            "[{}]",
            "\0\0\0\0",
        ] {
            assert_eq!(narrowed(body.as_bytes()), body);
        }
    }
}
