//! The actor of a change on the command line: a user of the system.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

/// Users of the system and their numbers.
const USERS: &str = "/etc/passwd";

/// Maximum size of the file of users that is read, in bytes.
const USERS_MAX: u64 = 4 << 20;

/// Maximum length of a user's name, in bytes. Linux allows 32.
const NAME_MAX: usize = 64;

/// Returns the actor that the revocation log names: `cli:` and the user of the system who runs this process, by name,
/// or by number if the system's file has none. Variables such as `USER` are not asked, since anybody can set them.
pub(super) fn actor() -> String {
    let uid = rustix::process::getuid().as_raw();
    actor_of(uid, Path::new(USERS))
}

fn actor_of(uid: u32, users: &Path) -> String {
    name_of(uid, users).map_or_else(|| format!("cli:{uid}"), |name| format!("cli:{name}"))
}

fn name_of(uid: u32, users: &Path) -> Option<String> {
    let file = File::open(users).ok()?.take(USERS_MAX);
    let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
    // As in passwd(5): name, password, number, and more.
    lines.into_iter().find_map(|line| {
        let line = String::from_utf8(line).ok()?;
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        let is_it = number.parse() == Ok(uid) && is_plain(name);
        is_it.then(|| name.to_owned())
    })
}

/// Returns whether a name is one that a log can hold as it is.
fn is_plain(name: &str) -> bool {
    let is_allowed = |c: char| c.is_alphanumeric() || "-_.@\\$+".contains(c);
    (1..=NAME_MAX).contains(&name.len()) && name.chars().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_the_system_is_named_or_numbered() {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("passwd");
        let lines =
            b"root:x:0:0:root:/root:/bin/sh\n\xff:x:7:7\n\nodd name:x:8:8\nalice:x:1000:1000::/:\n";
        std::fs::write(&users, lines).unwrap();
        assert_eq!(actor_of(1000, &users), "cli:alice");
        assert_eq!(actor_of(0, &users), "cli:root");
        for unnamed in [7, 8, 9] {
            assert_eq!(actor_of(unnamed, &users), format!("cli:{unnamed}"));
        }
        assert_eq!(actor_of(5, Path::new("/no/such/file")), "cli:5");
    }
}
