//! Links of commits and tags to other objects, as git reads them.
//!
//! Git takes the folder of a commit from its first line, and its parents from the lines directly after that. Whatever
//! looks the same further down is text that anybody can write, and that must not stand for what git follows.

/// Returns the folder of a commit, in lower case.
pub(super) fn folder(commit: &[u8]) -> Option<String> {
    link(commit, b"tree ").map(|(id, _)| id)
}

/// Returns the parents of a commit, in lower case. One whose line is cut off is none.
pub(super) fn parents(commit: &[u8]) -> impl Iterator<Item = String> {
    let mut rest = link(commit, b"tree ").map_or(&[][..], |(_, rest)| rest);
    std::iter::from_fn(move || {
        let (id, after) = link(rest, b"parent ")?;
        rest = after;
        Some(id)
    })
}

/// Returns the object that a tag stands for, in lower case, and the type of the object.
pub(super) fn tagged(tag: &[u8]) -> Option<(String, &[u8])> {
    let (id, rest) = link(tag, b"object ")?;
    let kind = rest.strip_prefix(b"type ")?;
    let end = memchr::memchr(b'\n', kind)?;
    Some((id, &kind[..end]))
}

/// Returns the object that a text's first line names, if the line begins with `name`, and the rest of the text.
fn link<'t>(text: &'t [u8], name: &[u8]) -> Option<(String, &'t [u8])> {
    let value = text.strip_prefix(name)?;
    let end = memchr::memchr(b'\n', value)?;
    let (id, rest) = (&value[..end], &value[end + 1..]);
    let is_id = matches!(id.len(), 40 | 64) && id.iter().all(u8::is_ascii_hexdigit);
    let id = std::str::from_utf8(id).ok().filter(|_| is_id)?;
    Some((id.to_ascii_lowercase(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_commit(text: &str) -> (Option<String>, Vec<String>) {
        (folder(text.as_bytes()), parents(text.as_bytes()).collect())
    }

    #[test]
    fn what_stands_elsewhere_links_nothing() {
        let [a, b, c] = ["aA", "bb", "cc"].map(|id| id.repeat(20));
        let low = a.to_lowercase();
        let genuine = format!("tree {a}\nparent {b}\nparent {c}\n");
        let expected = (Some(low.clone()), vec![b.clone(), c.clone()]);
        assert_eq!(of_commit(&genuine), expected);
        for (text, folder, parents) in [
            (
                format!("tree {a}\nauthor x\ncommitter x\nparent {b}\n\nparent {c}\n"),
                Some(&low),
                vec![],
            ),
            (
                format!("tree {a}\nparent {b}\nx y\nparent {c}\n"),
                Some(&low),
                vec![b.clone()],
            ),
            (format!("tree {a}\nparent {b}"), Some(&low), vec![]),
            (
                format!("tree {a}\ntree {b}\nparent {c}\n"),
                Some(&low),
                vec![],
            ),
            (format!("tree {a}0\nparent {b}\n"), None, vec![]),
            (format!("x y\ntree {a}\nparent {b}\n"), None, vec![]),
        ] {
            assert_eq!(of_commit(&text), (folder.cloned(), parents), "{text}");
        }
        let tag = format!("object {b}\ntype tree\ntag x\nobject {c}\ntype blob\n");
        assert_eq!(tagged(tag.as_bytes()), Some((b.clone(), &b"tree"[..])));
        assert_eq!(
            tagged(format!("object {b}\ntag x\ntype blob\n").as_bytes()),
            None
        );
    }
}
