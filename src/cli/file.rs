//! Files that commands write.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::UsageError;

/// Mode of a new file, from which the user's mask is subtracted, as of one that a shell makes.
const MODE: u32 = 0o666;

/// Maximum number of symbolic links that are followed to a file.
const LINKS_MAX: usize = 40;

/// File that a command writes.
///
/// A regular file appears complete or not at all: it replaces the one that was there, also behind a symbolic link, whose
/// mode and owner it keeps. What is no regular file, such as a pipe or the null device, is written to as it is.
pub(super) struct Output {
    /// Path as named by the user.
    path: PathBuf,
    to: To,
}

enum To {
    /// A file beside the target, which is moved there in the end.
    Replacing(BufWriter<NamedTempFile>, PathBuf),
    Through(BufWriter<File>),
}

impl Output {
    /// Opens `path` for writing. A regular file changes only once [`Output::finish`] is called.
    ///
    /// # Errors
    /// Returns an error that names the path if it cannot be written.
    pub(super) fn create(path: &Path) -> Result<Self, UsageError> {
        let to = open(path)
            .map_err(|error| UsageError(format!("cannot write {}: {error}", path.display())))?;
        let path = path.to_owned();
        Ok(Self { path, to })
    }

    /// Completes the file.
    ///
    /// # Errors
    /// Returns an error that names the path. A regular file is then as it was before.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Self { path, to } = self;
        complete(to).map_err(|error| anyhow::anyhow!("{}", told(&path, &error)))
    }

    /// Returns an error that names the path. It is no broken pipe, even if the path is one: what was to be written was
    /// not.
    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::other(told(&self.path, error))
    }
}

fn told(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            To::Replacing(file, _) => file.write(bytes),
            To::Through(file) => file.write(bytes),
        };
        written.map_err(|error| self.named(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = match &mut self.to {
            To::Replacing(file, _) => file.flush(),
            To::Through(file) => file.flush(),
        };
        flushed.map_err(|error| self.named(&error))
    }
}

fn complete(to: To) -> io::Result<()> {
    match to {
        To::Replacing(file, target) => {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            file.persist(target)?;
            Ok(())
        }
        To::Through(mut file) => file.flush(),
    }
}

fn open(path: &Path) -> io::Result<To> {
    let target = behind_links(path)?;
    let present = match fs::metadata(&target) {
        Ok(present) if present.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        // Neither made nor cut: it may be a device or a pipe.
        Ok(present) if !present.is_file() => return through(OpenOptions::new().write(true), path),
        Ok(present) => Some(present),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let Some(present) = present else {
        return Ok(To::Replacing(beside(&target, MODE)?, target));
    };
    // What must not be written must not be replaced either, which takes no more than the right to write its folder.
    OpenOptions::new().write(true).open(&target)?;
    match like(&present, &target) {
        Ok(file) => Ok(To::Replacing(file, target)),
        // A file in a folder in which none can be made, or of an owner that cannot be given to another file.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            through(OpenOptions::new().write(true).truncate(true), &target)
        }
        Err(error) => Err(error),
    }
}

fn through(options: &OpenOptions, path: &Path) -> io::Result<To> {
    Ok(To::Through(BufWriter::new(options.open(path)?)))
}

/// Returns the path that symbolic links lead to, which need not exist.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            // A link below /proc may name a file that is gone, or none at all: it can only be opened as it is.
            Ok(target) => {
                let target = folder_of(&path).join(target);
                if fs::metadata(&path).is_ok() && fs::metadata(&target).is_err() {
                    return Ok(path);
                }
                path = target;
            }
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent();
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn beside(target: &Path, mode: u32) -> io::Result<BufWriter<NamedTempFile>> {
    let file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder_of(target))?;
    Ok(BufWriter::new(file))
}

/// Makes a file with the owner and the mode of the one that it is to replace.
fn like(present: &Metadata, target: &Path) -> io::Result<BufWriter<NamedTempFile>> {
    let file = beside(target, 0o600)?;
    let own = file.get_ref().as_file().metadata()?;
    if (own.uid(), own.gid()) != (present.uid(), present.gid()) {
        let (uid, gid) = (Some(present.uid()), Some(present.gid()));
        std::os::unix::fs::fchown(file.get_ref().as_file(), uid, gid)?;
    }
    // After the owner, whose change takes away some of it.
    let mode = present.permissions().mode() & 0o7777;
    let file_itself = file.get_ref().as_file();
    file_itself.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}
