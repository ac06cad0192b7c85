//! Temporary files, each beside the file whose place it takes.
//!
//! A file that is written in place is half a file once its writer dies, so that what is replaced is written beside it and
//! moved there. What a killed process leaves behind is named after the file and the process, and goes when somebody
//! writes that file again. Processes of another container, or of the host, have numbers of their own: what is in use is
//! locked.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, OFlags, fcntl_lock, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use tempfile::NamedTempFile;

/// End of the name.
const END: &str = ".rescind-tmp";

/// Number of random letters and digits in the name, which are ASCII.
const RANDOM: usize = 6;

/// Suffixes of what SQLite makes beside a file that it writes to.
const OF_SQLITE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Number of bytes of the target's name that are part of a temporary one, which may have 255 in all.
const NAME_MAX: usize = 180;

/// Maximum number of names in a folder that are looked at for what was left behind.
const LOOKED_AT: usize = 65_536;

/// Number of tries to create a file that nobody else takes for one that was left behind.
const TRIES: usize = 8;

/// The temporary files of this process.
static OWN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Held while files are moved of which either all or none have to be.
static MOVING: Mutex<()> = Mutex::new(());

fn locked<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Temporary file, which is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Temporary {
    /// `None` once it was moved.
    file: Option<NamedTempFile>,
    path: PathBuf,
}

impl Temporary {
    /// Creates an empty file in the folder of `target`, of this mode without what the user's mask takes away. Removes
    /// what a process that is gone left there of the same target.
    pub(crate) fn beside(target: &Path, mode: u32) -> io::Result<Self> {
        let folder = folder_of(target);
        let stem = stem(target);
        sweep(folder, &stem);
        let mut prefix = stem;
        prefix.push(format!("{}-", std::process::id()));
        let mut own = locked(&OWN);
        let file = created(folder, &prefix, mode)?;
        let path = std::path::absolute(file.path())?;
        own.insert(path.clone());
        let file = Some(file);
        Ok(Self { file, path })
    }

    /// Returns the absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the open file.
    ///
    /// # Errors
    /// Returns an error once it was moved.
    pub(crate) fn file(&self) -> io::Result<&File> {
        let file = self.file.as_ref().map(NamedTempFile::as_file);
        file.ok_or_else(moved)
    }

    /// Puts the file in the place of `target`, durably: after a failure of the power there is either of them.
    pub(crate) fn persist(mut self, target: &Path) -> io::Result<()> {
        self.file()?.sync_all()?;
        let mut own = locked(&OWN);
        let file = self.file.take().ok_or_else(moved)?;
        own.remove(&self.path);
        file.persist(target).map_err(|error| error.error)?;
        sync_folder(target)
    }

    /// Likewise, unless there is a file already.
    pub(crate) fn persist_noclobber(mut self, target: &Path) -> io::Result<()> {
        self.file()?.sync_all()?;
        let mut own = locked(&OWN);
        let file = self.file.take().ok_or_else(moved)?;
        own.remove(&self.path);
        file.persist_noclobber(target)
            .map_err(|error| error.error)?;
        sync_folder(target)
    }
}

/// Creates a file that is locked for as long as it is open.
fn created(folder: &Path, prefix: &OsStr, mode: u32) -> io::Result<NamedTempFile> {
    for _ in 0..TRIES {
        let file = tempfile::Builder::new()
            .prefix(prefix)
            .suffix(END)
            .rand_bytes(RANDOM)
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)?;
        if is_kept_locked(file.as_file())? {
            return Ok(file);
        }
    }
    Err(io::Error::other(
        "the temporary file was removed by another process",
    ))
}

/// Locks a file that was just created. Returns `false` if another process came first, which removes it.
fn is_kept_locked(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => (),
        Err(Errno::WOULDBLOCK) => return Ok(false),
        // Where files cannot be locked, the number of the process has to do.
        Err(_) => return Ok(true),
    }
    // Network file systems make no difference between this lock and those of SQLite, which could not write to the file.
    let is_of_its_own = fcntl_lock(file, FlockOperation::NonBlockingLockExclusive).is_ok();
    let _ = fcntl_lock(file, FlockOperation::NonBlockingUnlock);
    if !is_of_its_own {
        let _ = flock(file, FlockOperation::NonBlockingUnlock);
    }
    Ok(file.metadata()?.nlink() > 0)
}

fn moved() -> io::Error {
    io::Error::other("the temporary file was moved")
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file()?.flush()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut own = locked(&OWN);
        if self.file.take().is_some() {
            own.remove(&self.path);
            remove_with_sqlites(&self.path);
        }
    }
}

/// Keeps [`remove_all`] from happening until it is dropped.
pub(crate) fn moving() -> impl Drop {
    locked(&MOVING)
}

/// Result of [`remove_all`]: while it is held, this process makes no temporary file and moves none.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Number of files that were removed.
    pub(crate) removed: usize,
    _moving: MutexGuard<'static, ()>,
    _own: MutexGuard<'static, BTreeSet<PathBuf>>,
}

/// Removes all temporary files of this process, which is about to end.
pub(crate) fn remove_all() -> Ended {
    let moving = locked(&MOVING);
    let mut own = locked(&OWN);
    let removed = own.len();
    for path in std::mem::take(&mut *own) {
        remove_with_sqlites(&path);
    }
    Ended {
        removed,
        _moving: moving,
        _own: own,
    }
}

fn remove_with_sqlites(path: &Path) {
    let _ = fs::remove_file(path);
    for end in OF_SQLITE {
        let mut beside = path.as_os_str().to_owned();
        beside.push(end);
        let _ = fs::remove_file(beside);
    }
}

/// Returns the folder in which a file is.
pub(crate) fn folder_of(file: &Path) -> &Path {
    let folder = file.parent();
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Has the name of a file outlive a failure of the power.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}

/// Returns the beginning of the names of a target's temporary files.
fn stem(target: &Path) -> OsString {
    let name = target.file_name().unwrap_or_default().as_bytes();
    let mut stem = b".".to_vec();
    stem.extend(&name[..name.len().min(NAME_MAX)]);
    stem.push(b'.');
    OsString::from_vec(stem)
}

/// Removes what processes that are gone left of this target.
fn sweep(folder: &Path, stem: &OsStr) {
    // What cannot be looked at stays: it is in nobody's way.
    let Ok(names) = fs::read_dir(folder) else {
        return;
    };
    for entry in names.take(LOOKED_AT).flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && is_left_behind(&entry.file_name(), stem, &entry.path()) {
            remove_unless_used(&entry.path());
        }
    }
}

/// Removes a file unless it is locked, or belongs to one that is.
fn remove_unless_used(path: &Path) {
    let name = path.as_os_str().as_bytes();
    let of_sqlite = OF_SQLITE.iter();
    let main = of_sqlite.filter_map(|end| name.strip_suffix(end.as_bytes()));
    let main = main
        .map(OsStr::from_bytes)
        .next()
        .unwrap_or(path.as_os_str());
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = File::options().read(true).custom_flags(flags).open(main);
    // It stays locked until it is removed: who has just created it sees that, and creates another one.
    let lock = match opened {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => return,
    };
    let is_used = lock.as_ref().is_some_and(|file| {
        flock(file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
    });
    if !is_used {
        let _ = fs::remove_file(path);
    }
}

fn is_left_behind(name: &OsStr, stem: &OsStr, path: &Path) -> bool {
    let Some(rest) = name.as_bytes().strip_prefix(stem.as_bytes()) else {
        return false;
    };
    let Ok(rest) = std::str::from_utf8(rest) else {
        return false;
    };
    let of_sqlite = OF_SQLITE.iter().find_map(|end| rest.strip_suffix(end));
    let Some((pid, random)) = of_sqlite
        .unwrap_or(rest)
        .strip_suffix(END)
        .and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    // Exactly what is written, and nothing that merely reads the same: other files are not Rescind's to remove.
    let is_random = random.len() == RANDOM && random.bytes().all(|c| c.is_ascii_alphanumeric());
    let number = pid.parse::<i32>().ok().filter(|number| *number > 0);
    let Some(pid) = number.filter(|number| is_random && number.to_string() == pid) else {
        return false;
    };
    if pid.cast_unsigned() == std::process::id() {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let own = locked(&OWN);
        // Those of SQLite go together with the file that they belong to.
        return of_sqlite.is_none() && !own.contains(&path);
    }
    // Whoever has the number now may be another program: the file then stays until that is gone, too.
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_process_that_is_gone_left_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("copy.db");
        // A process that has ended, and was waited for.
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let gone = gone.id();
        let left = [
            format!(".copy.db.{gone}-AbCdEf.rescind-tmp"),
            format!(".copy.db.{gone}-AbCdEf.rescind-tmp-wal"),
            format!(".copy.db.{}-AbCdEf.rescind-tmp", std::process::id()),
        ];
        let kept = [
            ".copy.db.1-AbCdEf.rescind-tmp".to_owned(),
            format!(".copy.db.{gone}-AbCdEf.other"),
            format!(".copy.db.old.{gone}-AbCdEf.rescind-tmp"),
            format!(".other.db.{gone}-AbCdEf.rescind-tmp"),
            // Names that somebody else gave.
            format!(".copy.db.+{gone}-AbCdEf.rescind-tmp"),
            format!(".copy.db.0{gone}-AbCdEf.rescind-tmp"),
            format!(".copy.db.{gone}-.rescind-tmp"),
            format!(".copy.db.{gone}-a.rescind-tmp"),
            format!(".copy.db.{gone}-AbCdEfG.rescind-tmp"),
            format!(".copy.db.{gone}-AbCd-f.rescind-tmp"),
            format!(".copy.db.{gone}-AbCdä.rescind-tmp"),
            format!(".copy.db.{gone}-my notes.rescind-tmp"),
            "copy.db".to_owned(),
        ];
        for name in left.iter().chain(&kept) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let first = Temporary::beside(&target, 0o600).unwrap();
        let second = Temporary::beside(&target, 0o600).unwrap();
        assert!(first.path().exists(), "one in use stays");
        drop((first, second));
        let mut kept = kept.to_vec();
        kept.sort();
        assert_eq!(names(folder.path()), kept);
    }

    /// In another container, its process has a number that is nobody's here, or that of this process.
    #[test]
    fn what_is_locked_is_in_use_whatever_its_process_is() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("copy.db");
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let mut used = Vec::new();
        for pid in [gone.id(), std::process::id()] {
            let name = format!(".copy.db.{pid}-AbCdEf.rescind-tmp");
            let file = File::create(folder.path().join(&name)).unwrap();
            flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
            used.push(file);
        }
        let beside = format!(".copy.db.{}-AbCdEf.rescind-tmp-wal", gone.id());
        fs::write(folder.path().join(beside), "x").unwrap();
        drop(Temporary::beside(&target, 0o600).unwrap());
        assert_eq!(names(folder.path()).len(), 3);
        drop(used);
        drop(Temporary::beside(&target, 0o600).unwrap());
        assert_eq!(names(folder.path()), [] as [String; 0]);
    }

    #[test]
    fn a_file_is_locked_until_it_is_moved_and_another_is_made_if_somebody_removes_it() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out.txt");
        let is_free = |path: &Path| {
            let file = File::open(path).unwrap();
            flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        };
        let file = Temporary::beside(&target, 0o600).unwrap();
        assert!(!is_free(file.path()));
        file.persist(&target).unwrap();
        assert!(is_free(&target));
        // Somebody takes it for one that was left behind, in the moment before it is locked.
        let file = File::create(folder.path().join("new")).unwrap();
        let other = File::open(folder.path().join("new")).unwrap();
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(!is_kept_locked(&file).unwrap());
        fs::remove_file(folder.path().join("new")).unwrap();
        drop(other);
        assert!(!is_kept_locked(&file).unwrap());
    }

    #[test]
    fn a_long_name_has_a_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("ä".repeat(127));
        let mut file = Temporary::beside(&target, 0o666).unwrap();
        file.write_all(b"x").unwrap();
        file.persist(&target).unwrap();
        assert_eq!(names(folder.path()), ["ä".repeat(127)]);
    }
}
