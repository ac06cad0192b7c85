//! Folders that are listed, and opening what is in them.
//!
//! On Linux, a folder stays open while its entries are visited, and they are opened relative to it. Otherwise the
//! system would look up every folder above a file again, which is a good part of the time that a small file takes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use super::open::{Kind, Links, open};
use system::Handle;
pub(super) use system::Lister;

/// Folder whose entries are listed.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    handle: Handle,
    /// Names of the entries, each followed by a zero byte.
    names: Vec<u8>,
}

/// Place of a name among those of a folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    start: usize,
    length: u16,
}

/// Folder with its entries.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) folder: Folder,
    pub(super) entries: Vec<(Name, Kind)>,
    /// Reasons for which entries are missing.
    pub(super) errors: Vec<io::Error>,
}

impl Folder {
    pub(super) fn name(&self, name: Name) -> &OsStr {
        let bytes = &self.names[name.range()];
        #[cfg(unix)]
        {
            std::os::unix::ffi::OsStrExt::from_bytes(bytes)
        }
        #[cfg(not(unix))]
        OsStr::new(std::str::from_utf8(bytes).unwrap_or_default())
    }

    /// Returns the path of an entry as shown to the user.
    pub(super) fn path_of(&self, name: Name) -> PathBuf {
        self.path.join(self.name(name))
    }

    /// Opens an entry that is not a link. A pipe is opened without waiting for a writer.
    pub(super) fn open(&self, name: Name) -> io::Result<File> {
        match self.handle.open(&self.names, name) {
            Some(opened) => opened,
            None => open(&self.path_of(name), Links::Refused),
        }
    }

    /// Returns the target of an entry that is a link.
    pub(super) fn target(&self, name: Name) -> io::Result<Vec<u8>> {
        match self.handle.target(&self.names, name) {
            Some(target) => target,
            None => fs::read_link(self.path_of(name))
                .map(|target| target.into_os_string().into_encoded_bytes()),
        }
    }
}

impl Name {
    fn range(self) -> Range<usize> {
        self.start..self.start + usize::from(self.length)
    }
}

impl Listing {
    fn of(path: PathBuf) -> Self {
        Self {
            folder: Folder {
                path,
                handle: Handle::default(),
                names: Vec::new(),
            },
            entries: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn add(&mut self, name: &[u8], kind: Kind) {
        let Ok(length) = u16::try_from(name.len()) else {
            self.errors.push(io::ErrorKind::InvalidFilename.into());
            return;
        };
        let names = &mut self.folder.names;
        let start = names.len();
        names.extend_from_slice(name);
        names.push(0);
        self.entries.push((Name { start, length }, kind));
    }

    /// Returns whether an entry has this name.
    pub(super) fn has(&self, name: &str) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|(entry, _)| self.folder.name(*entry) == name)
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::ffi::{CStr, CString};
    use std::fs::File;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::{Path, PathBuf};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir};
    use rustix::process::{Resource, getrlimit};

    use super::{Folder, Listing, Name};
    use crate::tree::open::{Kind, Links, flags};

    /// Maximum number of folders that are kept open at a time, of which there are fewer where the process may open few
    /// files. What is in further ones is opened by its path.
    const MOST_OPEN: usize = 128;
    /// Minimum length of the path of a folder that is not kept open, in bytes. The system takes no longer paths, and
    /// folders nested deeper than that are reported.
    const TOO_LONG: usize = 4_096;
    /// Size of a read of a folder in bytes, as the C library has it.
    const BUFFER_BYTES: usize = 32 << 10;

    static OPEN: AtomicUsize = AtomicUsize::new(0);

    /// Returns the number of folders that are kept open: a quarter of the files that the process may open, and no more
    /// than [`MOST_OPEN`].
    fn most_open() -> usize {
        static MOST: LazyLock<usize> = LazyLock::new(|| {
            let limit = getrlimit(Resource::Nofile).current;
            let limit = limit.and_then(|limit| usize::try_from(limit).ok());
            limit.map_or(MOST_OPEN, |limit| MOST_OPEN.min(limit / 4))
        });
        *MOST
    }

    /// Descriptor of a folder, if it is kept open.
    #[derive(Debug, Default)]
    pub(super) struct Handle(Option<OwnedFd>);

    impl Handle {
        fn keep(folder: OwnedFd, path: &Path) -> Self {
            if path.as_os_str().len() >= TOO_LONG {
                return Self(None);
            }
            if OPEN.fetch_add(1, Ordering::Relaxed) >= most_open() {
                OPEN.fetch_sub(1, Ordering::Relaxed);
                return Self(None);
            }
            Self(Some(folder))
        }

        /// Opens an entry, which is one of these `names`. Returns `None` if the folder is not kept open.
        pub(super) fn open(&self, names: &[u8], name: Name) -> Option<io::Result<File>> {
            let opened = self.open_as(names, name, flags(Links::Refused))?;
            Some(opened.map(File::from))
        }

        /// Reads an entry that is a link. Returns `None` if the folder is not kept open.
        pub(super) fn target(&self, names: &[u8], name: Name) -> Option<io::Result<Vec<u8>>> {
            let folder = self.0.as_ref()?;
            let name = name_in(names, name)?;
            let target = rustix::fs::readlinkat(folder, name, Vec::new());
            Some(target.map(CString::into_bytes).map_err(io::Error::from))
        }

        fn open_as(&self, names: &[u8], name: Name, how: OFlags) -> Option<io::Result<OwnedFd>> {
            let folder = self.0.as_ref()?;
            let name = name_in(names, name)?;
            Some(rustix::fs::openat(folder, name, how, Mode::empty()).map_err(io::Error::from))
        }
    }

    fn name_in(names: &[u8], name: Name) -> Option<&CStr> {
        CStr::from_bytes_until_nul(&names[name.start..]).ok()
    }

    impl Drop for Handle {
        fn drop(&mut self) {
            if self.0.is_some() {
                OPEN.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Reader of folders.
    #[derive(Debug)]
    pub(in crate::tree) struct Lister {
        buffer: Box<[MaybeUninit<u8>]>,
    }

    impl Default for Lister {
        fn default() -> Self {
            Self {
                buffer: Box::new_uninit_slice(BUFFER_BYTES),
            }
        }
    }

    impl Lister {
        /// Lists the folder at `path`, which may be a link to one.
        pub(in crate::tree) fn list(&mut self, path: PathBuf) -> io::Result<Listing> {
            self.list_at(path, Links::Followed)
        }

        /// Lists a folder in another one, unless it has become a link.
        pub(in crate::tree) fn list_in(
            &mut self,
            folder: &Folder,
            name: Name,
        ) -> io::Result<Listing> {
            let how = flags(Links::Refused) | OFlags::DIRECTORY;
            let path = folder.path_of(name);
            match folder.handle.open_as(&folder.names, name, how) {
                Some(opened) => Ok(self.read(opened?, path)),
                None => self.list_at(path, Links::Refused),
            }
        }

        fn list_at(&mut self, path: PathBuf, links: Links) -> io::Result<Listing> {
            let how = flags(links) | OFlags::DIRECTORY;
            let opened = rustix::fs::openat(CWD, &path, how, Mode::empty())?;
            Ok(self.read(opened, path))
        }

        fn read(&mut self, opened: OwnedFd, path: PathBuf) -> Listing {
            let mut listing = Listing::of(path);
            let mut entries = RawDir::new(&opened, &mut self.buffer);
            while let Some(entry) = entries.next() {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        // What is behind it cannot be reached.
                        listing.errors.push(error.into());
                        break;
                    }
                };
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                match kind(&opened, name, entry.file_type()) {
                    Ok(kind) => listing.add(name.to_bytes(), kind),
                    Err(error) => listing.errors.push(error),
                }
            }
            listing.folder.handle = Handle::keep(opened, &listing.folder.path);
            listing
        }
    }

    /// Returns the kind of an entry. Some file systems do not tell it in a listing.
    fn kind(folder: &OwnedFd, name: &CStr, listed: FileType) -> io::Result<Kind> {
        let found = match listed {
            FileType::Unknown => {
                let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(found.st_mode)
            }
            listed => listed,
        };
        Ok(match found {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            FileType::Symlink => Kind::Link,
            FileType::Fifo => Kind::Pipe,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice | FileType::BlockDevice => Kind::Device,
            FileType::Unknown => Kind::Other,
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::fs::{self, File};
    use std::io;
    use std::path::PathBuf;

    use super::{Folder, Listing, Name};
    use crate::tree::open::Kind;

    /// Nothing, since folders are not kept open.
    #[derive(Debug, Default)]
    pub(super) struct Handle;

    impl Handle {
        pub(super) fn open(&self, _: &[u8], _: Name) -> Option<io::Result<File>> {
            None
        }

        pub(super) fn target(&self, _: &[u8], _: Name) -> Option<io::Result<Vec<u8>>> {
            None
        }
    }

    /// Reader of folders.
    #[derive(Debug, Default)]
    pub(in crate::tree) struct Lister;

    impl Lister {
        /// Lists the folder at `path`, which may be a link to one.
        pub(in crate::tree) fn list(&mut self, path: PathBuf) -> io::Result<Listing> {
            let entries = fs::read_dir(&path)?;
            let mut listing = Listing::of(path);
            for entry in entries {
                match entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?))) {
                    Ok((name, kind)) => listing.add(name.as_encoded_bytes(), Kind::of(kind)),
                    Err(error) => listing.errors.push(error),
                }
            }
            Ok(listing)
        }

        /// Lists a folder in another one.
        pub(in crate::tree) fn list_in(
            &mut self,
            folder: &Folder,
            name: Name,
        ) -> io::Result<Listing> {
            self.list(folder.path_of(name))
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_in_a_folder_is_read_there_when_another_one_takes_its_place() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |name: &str| root.path().join(name);
        for name in ["one", "other"] {
            fs::create_dir(at(name)).expect("a folder");
            symlink(name, at(name).join("link")).expect("a link");
        }
        let listing = Lister::default().list(at("one")).expect("a listing");
        fs::rename(at("one"), at("away")).expect("it moves");
        fs::rename(at("other"), at("one")).expect("it moves");
        let (name, kind) = listing.entries[0];
        assert_eq!(kind, Kind::Link);
        assert_eq!(listing.folder.target(name).expect("a link"), b"one");
    }
}
