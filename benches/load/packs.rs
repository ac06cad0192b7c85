//! Pushes with packs prepared in advance: one commit, its trees, and three files of text that compresses like
//! source code.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;
use std::thread;

use anyhow::{Context as _, ensure};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use gix_hash::ObjectId;
use gix_object::Kind;
use rescind::keyformat::KeyValue;

use crate::forge::Push;
use crate::random::Random;

/// Number of repositories that receive pushes.
const REPOSITORIES: usize = 40;

/// Number of lines per file: three files make a pack of about 44 kB, the mean of public pushes.
const LINES: usize = 1000;

/// Creates `count` pushes, of which one in `leak_every` contains a key.
pub(crate) fn pushes(
    count: usize,
    leak_every: usize,
    keys: &[KeyValue],
) -> anyhow::Result<Vec<Push>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let made: Vec<anyhow::Result<Vec<(usize, Push)>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let own = (0..REPOSITORIES).filter(|number| number % threads == thread);
                    let mut made = Vec::new();
                    for repository in own {
                        made.extend(history(repository, count, leak_every, keys)?);
                    }
                    Ok(made)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| anyhow::bail!("a panic")))
            .collect()
    });
    let mut all = Vec::new();
    for made in made {
        all.extend(made?);
    }
    all.sort_by_key(|(number, _)| *number);
    ensure!(all.len() == count, "a push is missing");
    Ok(all.into_iter().map(|(_, push)| push).collect())
}

/// Returns the numbered pushes to one repository, each on top of the previous one.
fn history(
    repository: usize,
    count: usize,
    leak_every: usize,
    keys: &[KeyValue],
) -> anyhow::Result<Vec<(usize, Push)>> {
    let mut before = object(Kind::Commit, b"a commit that was there before")?.id;
    let mut pushes = Vec::new();
    for number in (repository..count).step_by(REPOSITORIES) {
        let leak = (number % leak_every == 0).then(|| number / leak_every);
        let leak = leak
            .map(|index| keys.get(index).context("too few keys"))
            .transpose()?;
        let (after, pack) = push(number, before, leak)?;
        pushes.push((
            number,
            Push {
                repository,
                before,
                after,
                pack,
                leak: leak.cloned(),
                at: OnceLock::new(),
            },
        ));
        before = after;
    }
    Ok(pushes)
}

fn push(
    number: usize,
    before: ObjectId,
    leak: Option<&KeyValue>,
) -> anyhow::Result<(ObjectId, Vec<u8>)> {
    let mut random = Random(number as u64 * 7919 + 1);
    let mut objects = Vec::new();
    let mut tree = Vec::new();
    for file in 0..3 {
        let text = random.text(leak.filter(|_| file == 1));
        let blob = object(Kind::Blob, text.as_bytes())?;
        write!(tree, "100644 file{file}.rs\0")?;
        tree.extend_from_slice(blob.id.as_slice());
        objects.push(blob);
    }
    let tree = object(Kind::Tree, &tree)?;
    let text = format!(
        "tree {}\nparent {before}\nauthor B <b@example.com> 1780000000 +0000\ncommitter B <b@example.com> 1780000000 +0000\n\npush {number}\n",
        tree.id
    );
    let commit = object(Kind::Commit, text.as_bytes())?;
    let after = commit.id;
    objects.insert(0, tree);
    objects.insert(0, commit);
    Ok((after, pack(&objects)?))
}

/// Object in the encoding of a pack.
struct Object {
    id: ObjectId,
    entry: Vec<u8>,
}

fn object(kind: Kind, data: &[u8]) -> anyhow::Result<Object> {
    let id = gix_object::compute_hash(gix_hash::Kind::Sha1, kind, data)?;
    let number: u8 = match kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
        Kind::Tag => 4,
    };
    // Type and size: four bits of the size in the first byte, then seven bits per byte.
    let mut size = data.len();
    let mut entry = vec![number << 4 | u8::try_from(size & 15)?];
    size >>= 4;
    while size > 0 {
        *entry.last_mut().context("an entry")? |= 128;
        entry.push(u8::try_from(size & 127)?);
        size >>= 7;
    }
    let mut encoder = ZlibEncoder::new(entry, Compression::new(3));
    encoder.write_all(data)?;
    Ok(Object {
        id,
        entry: encoder.finish()?,
    })
}

/// Returns a pack of undeltified objects (gitformat-pack(5)).
fn pack(objects: &[Object]) -> anyhow::Result<Vec<u8>> {
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend_from_slice(&u32::try_from(objects.len())?.to_be_bytes());
    for object in objects {
        pack.extend_from_slice(&object.entry);
    }
    let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
    hasher.update(&pack);
    let id = hasher.try_finalize()?;
    pack.extend_from_slice(id.as_slice());
    Ok(pack)
}

impl Random {
    fn text(&mut self, leak: Option<&KeyValue>) -> String {
        let mut text = String::new();
        for line in 0..LINES {
            let (name, value) = (self.next() % 100_000, self.next());
            // Writing to a `String` cannot fail.
            let _ = writeln!(
                text,
                "    let field_{name} = settings.get({value:x}).or(other);"
            );
            if let (LINES_BEFORE_LEAK, Some(leak)) = (line, leak) {
                let _ = writeln!(text, "    let key = \"{}\";", leak.expose());
            }
        }
        text
    }
}

const LINES_BEFORE_LEAK: usize = 500;
