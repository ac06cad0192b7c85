//! The configuration file: where it is looked for, how it is read, and what has to be there when it is read again.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::problem::{ConfigError, Problem};
use super::{DEFAULT_FILE, tree};
use crate::regular;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Occasion on which the configuration is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Occasion<'c> {
    /// A command or the daemon begins.
    Start,
    /// The daemon has a configuration in force that was read from this file, if from any. The file has to be there still:
    /// that it is gone is a mistake, or a moment in the middle of a change, and nobody's wish for the defaults.
    Reload(Option<&'c ReadFrom>),
    /// Only a message is to be redacted. A pipe was read already, and would have the message wait.
    Message,
}

/// File that a configuration was read from.
#[derive(Debug, Clone)]
pub(super) struct ReadFrom {
    path: PathBuf,
    /// `true` if there was nothing in it.
    is_blank: bool,
}

/// A configuration file that was read.
pub(super) struct Read {
    pub(super) from: ReadFrom,
    pub(super) text: String,
    /// `false` if it was found in the current folder, where it may be anyone's.
    pub(super) is_named: bool,
}

impl ReadFrom {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

const NAMED: &str =
    "name an existing file with --config or RESCIND_CONFIG, or use neither for the defaults";
pub(super) const FOUND: &str =
    "it is read because it is in the current folder; name another one with --config";
const GONE: &str = "it was read before: put it back, or restart the daemon if it is not wanted";
const BLANK: &str = "it was not when it was last read, and may be half written: write at least a comment into it if the \
     defaults are wanted";
const ONCE: &str = "what is no regular file may be gone once it was read: start the daemon with a regular file, to have \
     it read again";

/// Reads the file that was named, or [`DEFAULT_FILE`]. Returns `None` if none was named and there is none.
pub(super) fn find(file: Option<&Path>, on: Occasion<'_>) -> Result<Option<Read>, ConfigError> {
    let default = Path::new(DEFAULT_FILE);
    let before = match on {
        Occasion::Reload(before) => before,
        Occasion::Start | Occasion::Message => None,
    };
    let path = match file {
        Some(path) => path,
        None if before.is_some() || is_there(default) => default,
        None => return Ok(None),
    };
    let is_named = file.is_some();
    let unreadable = |cause, hint| ConfigError::Unreadable {
        path: path.to_owned(),
        cause,
        hint,
    };
    let bytes = match on {
        Occasion::Start if is_named => match regular::open(path) {
            Ok(Some(file)) => take(file),
            Ok(None) => read_once(path),
            Err(error) => Err(error),
        },
        Occasion::Reload(_) if is_null_device(path) => Ok(Vec::new()),
        _ => bounded(path),
    };
    let bytes = bytes.map_err(|cause| {
        let hint = match (before, is_named) {
            (Some(_), _) if is_irregular(path) => ONCE,
            (Some(_), _) => GONE,
            (None, true) => NAMED,
            (None, false) => FOUND,
        };
        unreadable(cause, hint)
    })?;
    let text = in_utf8(path, bytes)?;
    let is_blank = text.trim().is_empty();
    if is_blank && before.is_some_and(|before| !before.is_blank) {
        return Err(unreadable(io::Error::other("it is empty"), BLANK));
    }
    Ok(Some(Read {
        from: ReadFrom {
            path: path.to_owned(),
            is_blank,
        },
        text,
        is_named,
    }))
}

/// Returns whether there is anything of this name. A link that leads nowhere is something, and so is what cannot be
/// looked at: to read it is an error that says so.
fn is_there(path: &Path) -> bool {
    !matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Returns whether a path leads to a folder, or is a link that leads nowhere.
pub(super) fn is_folder_to_be(path: &Path) -> bool {
    path.is_dir() || (path.is_symlink() && !path.exists())
}

fn is_irregular(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| !file.is_file())
}

/// Returns whether this is the null device, which is as empty each time that it is read.
#[cfg(unix)]
fn is_null_device(path: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    let device = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        file.file_type().is_char_device().then(|| file.rdev())
    };
    device(path).is_some_and(|of| device(Path::new("/dev/null")) == Some(of))
}

#[cfg(not(unix))]
fn is_null_device(_: &Path) -> bool {
    false
}

/// Reads a regular file of at most [`MAX_FILE`] bytes. Opening a pipe would wait for a writer.
pub(super) fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    match regular::open(path)? {
        Some(file) => take(file),
        None => Err(io::Error::other("it is not a regular file")),
    }
}

/// Text of the pipe that was named as the configuration, and its path.
static PIPE: Mutex<Option<(PathBuf, Vec<u8>)>> = Mutex::new(None);

/// Reads a file that was named and is not a regular one. It can be a pipe, as of a shell's `<(…)`: its text is kept, since
/// some commands read the configuration twice, and would find the pipe empty.
fn read_once(path: &Path) -> io::Result<Vec<u8>> {
    let mut pipe = PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, text)) = &*pipe
        && of == path
    {
        return Ok(text.clone());
    }
    let text = take(std::fs::File::open(path)?)?;
    *pipe = Some((path.to_owned(), text.clone()));
    Ok(text)
}

fn take(file: std::fs::File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file.take(MAX_FILE + 1).read_to_end(&mut bytes)? as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

fn in_utf8(path: &Path, bytes: Vec<u8>) -> Result<String, ConfigError> {
    String::from_utf8(bytes).map_err(|error| {
        let sound = error.utf8_error().valid_up_to();
        // Everything before the first invalid byte is UTF-8, so nothing is lost.
        let text = String::from_utf8_lossy(&error.as_bytes()[..sound]);
        ConfigError::Invalid(vec![Problem {
            place: tree::place_at(&path.into(), &text, sound),
            key: String::new(),
            what: "this is not UTF-8".to_owned(),
            hint: "save the file in UTF-8".to_owned(),
        }])
    })
}
