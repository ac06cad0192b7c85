//! Byte sizes in human-readable form.

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Parses a size such as `"32MiB"`, `"500 kB"` or `"1000"` to bytes. Returns `None` for any other text.
pub(super) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1));
    let number = number.trim_end();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Formats a size with the largest binary unit that divides it.
pub(super) fn format(bytes: u64) -> String {
    for (unit, factor) in UNITS[..3].iter().rev() {
        if bytes.is_multiple_of(*factor) && bytes > 0 {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse("32MiB"), Some(32 << 20));
        assert_eq!(parse("500 kB"), Some(500_000));
        assert_eq!(parse(" 7 "), Some(7));
        for wrong in ["", "MiB", "1.5MiB", "-1", "+1", "1 MIB", "99999999999GiB"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for bytes in [1, 1000, 1 << 10, 3 << 20, 1 << 30] {
            assert_eq!(parse(&format(bytes)), Some(bytes));
        }
        assert_eq!(format(32 << 20), "32MiB");
    }
}
