//! Capabilities that a server states.

use memchr::memmem;

/// Arguments of a request for a pack that a server takes beside those that every one takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fetch) struct Features {
    /// It sends commits without what is in them.
    pub(in crate::fetch) filter: bool,
    /// It sends the last commits of a history.
    pub(in crate::fetch) shallow: bool,
}

/// Returns what a server takes, by the beginning of its capabilities: `fetch=shallow filter`. Returns `None` if they do
/// not tell.
pub(in crate::fetch) fn features(capabilities: &[u8]) -> Option<Features> {
    let at = memmem::find(capabilities, b"fetch=")?;
    let line = capabilities[at..].split(|byte| *byte == b'\n').next()?;
    let line = line.strip_prefix(b"fetch=")?;
    let says = |name: &[u8]| line.split(|byte| *byte == b' ').any(|word| word == name);
    Some(Features {
        filter: says(b"filter"),
        shallow: says(b"shallow"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_takes_what_it_says_of_fetch() {
        let said = |text: &str| {
            let told = features(format!("version 2\n{text}\nobject-format=sha1\n").as_bytes());
            told.map(|told| (told.filter, told.shallow))
        };
        for (text, told) in [
            ("fetch=shallow wait-for-done filter", Some((true, true))),
            (
                "ls-refs=unborn\n0023fetch=shallow filter",
                Some((true, true)),
            ),
            ("fetch=shallow", Some((false, true))),
            (
                "agent=filter\nfetch=shallow\nx= filter",
                Some((false, true)),
            ),
            ("fetch=filter", Some((true, false))),
            ("fetch=wait-for-done\nshallow", Some((false, false))),
            ("", None),
        ] {
            assert_eq!(said(text), told, "{text}");
        }
    }
}
