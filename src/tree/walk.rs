//! Multi-threaded, depth-first walk through a folder.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::git::{Room, Tracked};
use super::ignored::{Held, Ignored, Reader, Verdict};
use super::listing::{self, Lister, Listing, Name};
use super::open::Kind;
use super::outlet::{Closed, Outlet};
use crate::scan::Counters;

/// Most entries that a thread takes at a time: each time it takes the lock.
const BATCH: usize = 32;

/// Part of all entries that a thread leaves to the others: it takes one in so many at most.
const SHARE: usize = 16;

/// Folder in progress.
struct Folder {
    listed: listing::Folder,
    /// Absolute path.
    absolute: PathBuf,
    context: Context,
}

/// Rules by which entries of a folder are left out.
#[derive(Clone, Default)]
struct Context {
    ignored: Option<Arc<Ignored>>,
    /// Innermost repository that the folder is in.
    tracked: Option<Arc<Tracked>>,
    /// `true` if an ignore file lists the folder itself. Only what git tracks in it is visited then.
    is_listed: bool,
}

impl Context {
    /// Goes on in the working tree with this top folder.
    fn enter(&mut self, top: PathBuf, room: &Room) {
        let around = self.tracked.take();
        self.tracked = Some(Arc::new(Tracked::of(top, around, room)));
    }
}

/// Entry of a folder that has yet to be visited.
pub(crate) struct Entry {
    folder: Arc<Folder>,
    name: Name,
    kind: Kind,
}

impl Entry {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn name(&self) -> &OsStr {
        self.folder.listed.name(self.name)
    }

    /// Returns the path as shown to the user.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.listed.path_of(self.name)
    }

    /// Opens the file, unless it has become a link. Does not wait for anything.
    pub(crate) fn open(&self) -> io::Result<File> {
        self.folder.listed.open(self.name)
    }

    /// Returns the target of the link.
    pub(crate) fn target(&self) -> io::Result<Vec<u8>> {
        self.folder.listed.target(self.name)
    }

    fn absolute(&self) -> PathBuf {
        self.folder.absolute.join(self.name())
    }
}

/// Walk through a folder.
pub(crate) struct Walk<'a> {
    all: bool,
    outlet: Outlet<'a>,
    held: Held,
    room: Room,
    gave_up: AtomicBool,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    entries: Vec<Entry>,
    /// Number of threads that are visiting entries, and may add more.
    busy: usize,
    /// Number of threads that wait for entries.
    waiting: usize,
    is_over: bool,
}

/// Visitor of the entries other than folders, which also decides whether to enter a folder.
pub(crate) trait Visitor {
    /// Returns whether to enter a folder.
    ///
    /// # Errors
    /// Returns [`Closed`] to end the walk.
    fn enters(&mut self, folder: &Entry) -> Result<bool, Closed>;

    /// Visits an entry that is not a folder.
    ///
    /// # Errors
    /// Returns [`Closed`] to end the walk.
    fn visit(&mut self, entry: &Entry) -> Result<(), Closed>;
}

impl<'a> Walk<'a> {
    /// Creates a walk that skips the files listed in ignore files, unless `all` is set.
    pub(crate) fn new(all: bool, outlet: Outlet<'a>) -> Self {
        Self {
            all,
            outlet,
            held: Held::default(),
            room: Room::default(),
            gave_up: AtomicBool::new(false),
            queue: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Walks through `root` with one thread and one visitor per processor, until everything is visited or a visitor
    /// ends the walk.
    ///
    /// # Errors
    /// Returns an error if the absolute path of `root` cannot be determined.
    pub(crate) fn run<V: Visitor>(
        &self,
        root: &Path,
        visitor: impl Fn() -> V + Sync,
    ) -> io::Result<()> {
        let absolute = fs::canonicalize(root)?;
        let mut above = Context::default();
        if !self.all {
            let Ok(read) = self.reading(|reader| reader.above(&absolute)) else {
                return Ok(());
            };
            // Whoever names a folder wants to have it scanned, whatever those above say of it.
            above.ignored = read.filter(|ignored| !lists_all_in(ignored, &absolute));
            let mut folders: Vec<&Path> = absolute.ancestors().skip(1).collect();
            folders.retain(|folder| fs::symlink_metadata(folder.join(GIT)).is_ok());
            for folder in folders.into_iter().rev() {
                above.enter(folder.to_owned(), &self.room);
            }
        }
        let listing = Lister::default().list(root.to_owned());
        if self.add(root, listing, absolute, above).is_err() {
            return Ok(());
        }
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.work(&mut visitor()));
            }
        });
        Ok(())
    }

    fn work(&self, visitor: &mut impl Visitor) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut lister = Lister::default();
        while self.take(&mut batch) {
            // Others must not wait for what a panic left undone.
            let mut busy = Busy {
                walk: self,
                is_done: false,
            };
            let mut visited = batch
                .drain(..)
                .map(|entry| self.visit(&entry, visitor, &mut lister));
            busy.is_done = visited.all(|visited| visited.is_ok());
        }
    }

    fn visit(
        &self,
        entry: &Entry,
        visitor: &mut impl Visitor,
        lister: &mut Lister,
    ) -> Result<(), Closed> {
        let is_listed = self.lists(entry)?;
        if is_listed && !self.is_tracked(entry)? {
            Counters::count(&self.outlet.counters.ignored);
            return Ok(());
        }
        if entry.kind != Kind::Folder {
            return visitor.visit(entry);
        }
        if visitor.enters(entry)? {
            let context = Context {
                is_listed,
                ..entry.folder.context.clone()
            };
            let listing = lister.list_in(&entry.folder.listed, entry.name);
            self.add(&entry.path(), listing, entry.absolute(), context)?;
        }
        Ok(())
    }

    /// Returns whether ignore files list an entry. A repository is left out for another reason.
    fn lists(&self, entry: &Entry) -> Result<bool, Closed> {
        let is_folder = entry.kind == Kind::Folder;
        let context = &entry.folder.context;
        if is_folder && entry.name() == GIT {
            return Ok(false);
        }
        if context.is_listed {
            return Ok(true);
        }
        let Some(ignored) = &context.ignored else {
            return Ok(false);
        };
        let verdict = ignored.verdict(&entry.absolute(), is_folder);
        if verdict == Verdict::Unclear {
            self.give_up(&entry.path())?;
        }
        Ok(verdict == Verdict::Listed)
    }

    /// Returns whether git tracks an entry, which is then visited whatever ignore files say, as git has it.
    fn is_tracked(&self, entry: &Entry) -> Result<bool, Closed> {
        let Some(tracked) = &entry.folder.context.tracked else {
            return Ok(false);
        };
        let mut told = Ok(());
        let is_tracked = tracked.has(&entry.absolute(), &mut |top, reason| {
            told = told.and_then(|()| self.outlet.disobeyed(top, reason));
        });
        told.map(|()| is_tracked)
    }

    /// Reports, once per walk, that matching ignore files takes too long.
    fn give_up(&self, path: &Path) -> Result<(), Closed> {
        if self.gave_up.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let why = "whether ignore files list it, and maybe others, takes too long to tell";
        self.outlet.disobeyed(path, why)
    }

    /// Queues the entries of a folder, or reports that it cannot be listed.
    fn add(
        &self,
        shown: &Path,
        listing: io::Result<Listing>,
        absolute: PathBuf,
        mut context: Context,
    ) -> Result<(), Closed> {
        let mut listing = match listing {
            Ok(listing) => listing,
            Err(error) => return self.outlet.unread(shown, error.to_string()),
        };
        for error in std::mem::take(&mut listing.errors) {
            self.outlet.unread(shown, error.to_string())?;
        }
        let has = |name: &str| listing.has(name);
        if !self.all && !context.is_listed {
            let above = context.ignored.take();
            context.ignored =
                self.reading(|reader| reader.within(&absolute, shown, &has, above))?;
        }
        // Also in a folder that is listed, such as a submodule that git tracks.
        if !self.all && has(GIT) {
            context.enter(absolute.clone(), &self.room);
        }
        let folder = Arc::new(Folder {
            listed: listing.folder,
            absolute,
            context,
        });
        let entries = listing.entries.into_iter().map(|(name, kind)| Entry {
            folder: Arc::clone(&folder),
            name,
            kind,
        });
        let mut queue = self.lock();
        queue.entries.extend(entries);
        if queue.waiting > 0 {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Reads ignore files, and reports those that are not obeyed.
    fn reading<T>(&self, read: impl FnOnce(&mut Reader<'_>) -> T) -> Result<T, Closed> {
        let mut told = Ok(());
        let value = read(&mut Reader {
            held: &self.held,
            tell: &mut |path, why| {
                told = told.and_then(|()| self.outlet.disobeyed(path, why.to_string()));
            },
        });
        told.map(|()| value)
    }

    /// Takes the next entries to visit, a part of those that there are, and returns whether there are any. Waits until
    /// no thread can add more before it returns `false`.
    fn take(&self, batch: &mut Vec<Entry>) -> bool {
        let mut queue = self.lock();
        loop {
            if queue.is_over {
                return false;
            }
            if !queue.entries.is_empty() {
                let left = queue.entries.len() - queue.entries.len().div_ceil(SHARE).min(BATCH);
                batch.extend(queue.entries.drain(left..).rev());
                queue.busy += 1;
                return true;
            }
            if queue.busy == 0 {
                return false;
            }
            queue.waiting += 1;
            let waited = self.changed.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
            queue.waiting -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name of a repository within its working tree.
const GIT: &str = ".git";

/// Returns whether ignore files list a folder, or everything in it.
fn lists_all_in(ignored: &Ignored, folder: &Path) -> bool {
    let any = folder.join("whatever its name is");
    let lists = |path: &Path, is_folder| ignored.verdict(path, is_folder) == Verdict::Listed;
    lists(folder, true) || lists(&any, false) || lists(&any, true)
}

/// Guard of a thread that visits entries.
struct Busy<'a, 'b> {
    walk: &'a Walk<'b>,
    is_done: bool,
}

impl Drop for Busy<'_, '_> {
    fn drop(&mut self) {
        let mut queue = self.walk.lock();
        queue.busy -= 1;
        if !self.is_done {
            queue.is_over = true;
            queue.entries.clear();
        }
        if queue.is_over || queue.busy == 0 && queue.entries.is_empty() {
            self.walk.changed.notify_all();
        }
    }
}
