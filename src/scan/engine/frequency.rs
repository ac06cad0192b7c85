//! Estimated frequencies of bytes in texts, by which searchers choose the parts of a literal to search for.

/// Returns the estimated probability that a sequence of these bytes, each one of several, begins at a given place.
pub(super) fn of_sequence(bytes: &[Vec<u8>]) -> f64 {
    let of_any = |known: &Vec<u8>| known.iter().copied().map(of_byte).sum::<f64>();
    bytes.iter().map(of_any).product()
}

/// Returns the number of sequences of these bytes, each one of several.
pub(super) fn forms(bytes: &[Vec<u8>]) -> usize {
    bytes.iter().map(Vec::len).product()
}

/// Returns the estimated probability of a byte in what is scanned: source code, mostly, and some binary data.
pub(super) fn of_byte(byte: u8) -> f64 {
    match byte {
        b' ' => 0.12,
        b'e' | b't' => 0.06,
        b'a' | b'i' | b'n' | b'o' | b'r' | b's' => 0.04,
        0 | b'c' | b'd' | b'l' | b'm' | b'p' | b'u' | b'_' => 0.02,
        b'\n' | b'b' | b'f' | b'g' | b'h' | b'v' | b'x' | b'y' | b'0' | b'(' | b')' | b','
        | b'.' | b'/' | b':' | b';' | b'"' | b'-' | b'=' => 0.01,
        b'j' | b'k' | b'q' | b'w' | b'z' | b'1'..=b'9' | b'A'..=b'Z' => 0.004,
        _ => 0.001,
    }
}
