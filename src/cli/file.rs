//! Files that commands write.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::kept::Kept;
use super::{UsageError, interrupted};
use crate::temporary::{Temporary, folder_of};

/// Mode of a new file, from which the user's mask is subtracted, as of one that a shell makes.
const MODE: u32 = 0o666;

/// Maximum number of symbolic links that are followed to a file.
const LINKS_MAX: usize = 40;

/// File that a command writes.
///
/// A regular file appears complete or not at all: it replaces the one that was there, also behind a symbolic link, whose
/// mode and owner it keeps. What is no regular file, such as a pipe or the null device, is written to as it is, and so is
/// an open file of this process, such as `/dev/stdout`, whatever it is.
pub(super) struct Output {
    /// Path as named by the user.
    path: PathBuf,
    to: To,
}

enum To {
    /// A file beside the target, which is moved there in the end.
    Replacing(BufWriter<Temporary>, PathBuf),
    Through(BufWriter<File>),
}

/// Returns whether a path stands for standard output.
pub(super) fn is_standard_output(path: &Path) -> bool {
    path == Path::new("-")
}

impl Output {
    /// Opens `path` for writing. A regular file changes only once [`Output::finish`] is called.
    ///
    /// # Errors
    /// Returns an error that names the path if it cannot be written, or is a file that is `kept`.
    pub(super) fn create(path: &Path, kept: &Kept) -> Result<Self, UsageError> {
        let to = open(path, kept);
        let to = to.map_err(|error| UsageError(told(path, &error)))?;
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

/// Regular file that only its owner can read, and that is complete or not there at all.
pub(super) struct PrivateFile {
    path: PathBuf,
    target: PathBuf,
    file: Temporary,
}

impl PrivateFile {
    /// Prepares the file that `path` leads to, which may be there if it is a regular file. It changes only once
    /// [`PrivateFile::finish`] is called.
    ///
    /// # Errors
    /// Returns an error that names the path if it cannot be written, or is a file that is `kept`.
    pub(super) fn create(path: &Path, kept: &Kept) -> Result<Self, UsageError> {
        if is_standard_output(path) {
            let text = "standard output is no regular file, and this has to be one";
            return Err(UsageError(text.to_owned()));
        }
        let target = target(path, kept).and_then(|target| match fs::metadata(&target) {
            Ok(present) if present.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(present) if !present.is_file() => Err(io::Error::other(
                "it is no regular file, and this has to be one",
            )),
            Ok(_) => Ok(target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(target),
            Err(error) => Err(error),
        });
        let file = target.and_then(|target| {
            interrupted::watch();
            Ok((Temporary::beside(&target, 0o600)?, target))
        });
        let (file, target) = file.map_err(|error| UsageError(told(path, &error)))?;
        let path = path.to_owned();
        Ok(Self { path, target, file })
    }

    /// Returns the path of the file that takes the place in the end.
    pub(super) fn temporary(&self) -> &Path {
        self.file.path()
    }

    /// Returns the path that is written to, behind links.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the file the owner, the group and the mode of the one that it replaces, if there is one, but for the rights
    /// of everybody. Returns `false` if they cannot be given, and only whoever runs this can read it.
    ///
    /// # Errors
    /// Returns an error that names the path.
    pub(super) fn take_after_replaced(&self) -> anyhow::Result<bool> {
        let took = match fs::metadata(&self.target) {
            Ok(present) => self
                .file
                .file()
                .and_then(|file| take_after(file, &present, present.permissions().mode() & 0o770)),
            Err(error) => Err(error),
        };
        match took {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(anyhow::anyhow!("{}", told(&self.path, &error))),
        }
    }

    /// Completes the file.
    ///
    /// # Errors
    /// Returns an error that names the path. The file is then as it was before.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Self { path, target, file } = self;
        let finished = file.persist(&target);
        finished.map_err(|error| anyhow::anyhow!("{}", told(&path, &error)))
    }
}

impl Write for PrivateFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
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
            file.persist(&target)
        }
        To::Through(mut file) => file.flush(),
    }
}

fn open(path: &Path, kept: &Kept) -> io::Result<To> {
    let target = target(path, kept)?;
    if is_descriptor(&target) {
        return open_descriptor(&target);
    }
    let present = match fs::metadata(&target) {
        Ok(present) if present.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        // Neither made nor cut: it may be a device or a pipe.
        Ok(present) if !present.is_file() => return through(OpenOptions::new().write(true), path),
        Ok(present) => Some(present),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    interrupted::watch();
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

/// Returns the path that is written to, behind links.
fn target(path: &Path, kept: &Kept) -> io::Result<PathBuf> {
    let target = behind_links(path)?;
    match kept.name_of(&target) {
        Some(name) => Err(io::Error::other(format!("it is {name}: name another file"))),
        None => Ok(target),
    }
}

/// Returns the path that symbolic links lead to, which need not exist. An open file of a process, below `/proc`, is no
/// link to its name, although it looks like one: the file may have another one, or none, by now.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(_) if is_descriptor(&path) => return Ok(path),
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Returns whether this is the path of an open file of a process, such as `/proc/self/fd/1`.
fn is_descriptor(path: &Path) -> bool {
    let folder = folder_of(path).canonicalize();
    folder.is_ok_and(|folder| folder.starts_with("/proc") && folder.ends_with("fd"))
}

fn open_descriptor(path: &Path) -> io::Result<To> {
    let own = Path::new("/proc/self/fd").canonicalize()?;
    let is_own = folder_of(path).canonicalize()? == own;
    let file = match path.file_name().and_then(OsStr::to_str) {
        // To open them again would begin anew, and write over what others, and this command, have written.
        Some("1") if is_own => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        Some("2") if is_own => File::from(io::stderr().as_fd().try_clone_to_owned()?),
        _ => OpenOptions::new().append(true).open(path)?,
    };
    Ok(To::Through(BufWriter::new(file)))
}

fn beside(target: &Path, mode: u32) -> io::Result<BufWriter<Temporary>> {
    Ok(BufWriter::new(Temporary::beside(target, mode)?))
}

/// Makes a file with the owner and the mode of the one that it is to replace.
fn like(present: &Metadata, target: &Path) -> io::Result<BufWriter<Temporary>> {
    let file = beside(target, 0o600)?;
    let mode = present.permissions().mode() & 0o7777;
    take_after(file.get_ref().file()?, present, mode)?;
    Ok(file)
}

/// Gives a file the owner and the group of another one, and this mode.
fn take_after(file: &File, present: &Metadata, mode: u32) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (present.uid(), present.gid()) {
        let (uid, gid) = (Some(present.uid()), Some(present.gid()));
        std::os::unix::fs::fchown(file, uid, gid)?;
    }
    // After the owner, whose change takes away some of it.
    file.set_permissions(Permissions::from_mode(mode))
}
