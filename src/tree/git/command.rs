//! Execution of `git` on a repository that is not trusted.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use super::HistoryError;
use super::lender::Lender;
use super::running::{Running, complaint};
use super::special::{self, Looked};
use super::start::Start;
use crate::tree::open::path_of;

const ASK: &str = "look at the repository";

/// Environment variables that locate a repository. Git sets them for its hooks: the index of `git commit --all` or
/// `git commit FILE` is a temporary file that only `GIT_INDEX_FILE` names.
const WHEREABOUTS: [&str; 9] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_SHALLOW_FILE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
];

/// Repository on which git is run.
#[derive(Debug)]
pub(super) struct Repository {
    start: Start,
    looked: Looked,
    lender: OnceCell<Lender>,
    /// File that git uses as the list of commits without parents, once it is known.
    shallow: OnceCell<PathBuf>,
}

/// Identity of a repository and its work tree.
#[derive(Debug)]
struct Identity {
    git_dir: PathBuf,
    /// Top folder of the work tree. `None` for a bare repository.
    top: Option<PathBuf>,
}

impl Repository {
    /// Opens a repository, unless something in it, such as a pipe, would have git wait without end.
    fn new(start: Start) -> Result<Self, HistoryError> {
        let looked = special::refuse(&start)?;
        Ok(Self {
            start,
            looked,
            lender: OnceCell::new(),
            shallow: OnceCell::new(),
        })
    }

    /// Returns how much is in it. Git looks at each file in its folders of packs once more for each object that is missing.
    pub(super) fn looked(&self) -> Looked {
        self.looked
    }

    /// Opens the repository at `path`, which is a working tree, its `.git` or a bare repository. A folder inside a
    /// working tree is refused: to scan everything around it would be surprising.
    pub(super) fn open(path: &Path) -> Result<Self, HistoryError> {
        let path = path.canonicalize().map_err(HistoryError::Unreadable)?;
        let repository = Self::new(Start::At(path))?;
        match repository.ask(&["rev-parse", "--git-dir"])? {
            Ok(_) => Ok(repository),
            Err(complaint) => Err(HistoryError::NotARepository { complaint }),
        }
    }

    /// Opens the repository that contains `path`, or if `path` is `None` the one that `git` itself would use here.
    /// The environment applies unless `path` is in a different repository.
    pub(super) fn around(path: Option<&Path>) -> Result<Self, HistoryError> {
        let Some(path) = path else {
            let told = Self::new(Start::Told)?;
            return told.identity()?.map(|_| told);
        };
        let path = path.canonicalize().map_err(HistoryError::Unreadable)?;
        let folder = match path.parent() {
            Some(parent) if !path.is_dir() => parent.to_owned(),
            _ => path,
        };
        let around = Self::new(Start::Around(folder.clone()))?;
        let found = around.identity()?;
        let is_told = WHEREABOUTS
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        if is_told {
            let told = Self::new(Start::Told)?;
            if let Ok(identity) = told.identity()?
                && identity.is_meant(&folder, found.as_ref().ok())
            {
                return Ok(told);
            }
        }
        found.map(|_| around)
    }

    /// Returns the identity of the repository, or the error that says why there is none.
    fn identity(&self) -> Result<Result<Identity, HistoryError>, HistoryError> {
        let git_dir = match self.ask(&["rev-parse", "--absolute-git-dir"])? {
            Ok(git_dir) => path_of(&git_dir),
            Err(complaint) => return Ok(Err(HistoryError::NoRepository { complaint })),
        };
        let top = self.ask(&["rev-parse", "--show-toplevel"])?;
        let top = top.ok().filter(|top| !top.is_empty());
        Ok(Ok(Identity {
            git_dir,
            top: top.map(|top| path_of(&top)),
        }))
    }

    /// Runs a git command. Returns its output without the trailing line feed, or else its complaint.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<Result<Vec<u8>, String>, HistoryError> {
        let (status, mut answer, complaints) = self.answer(arguments)?;
        if !status.success() {
            return Ok(Err(complaint(&complaints)));
        }
        answer.pop_if(|byte| *byte == b'\n');
        Ok(Ok(answer))
    }

    /// Runs a git command. Returns its exit status, its whole output, and the start of its standard error.
    pub(super) fn answer(
        &self,
        arguments: &[&str],
    ) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), HistoryError> {
        let mut running = self.start(ASK, arguments, Stdio::null())?;
        let mut answer = Vec::new();
        let read = running
            .listen(&[])
            .and_then(|mut output| output.read_to_end(&mut answer));
        read.map_err(|source| HistoryError::Broken { what: ASK, source })?;
        let (status, complaints) = running.end()?;
        Ok((status, answer, complaints))
    }

    /// Returns the identifier of the commit that a revision stands for, if it stands for one.
    pub(super) fn commit(&self, revision: &str) -> Result<Option<String>, HistoryError> {
        // The revision is resolved by itself first: `:/text` would treat a suffix as text.
        let Some(object) = self.verify(revision)? else {
            return Ok(None);
        };
        self.verify(&format!("{object}^{{commit}}"))
    }

    fn verify(&self, revision: &str) -> Result<Option<String>, HistoryError> {
        let verify = ["rev-parse", "--verify", "--quiet", "--end-of-options"];
        let answer = self.ask(&[&verify, [revision].as_slice()].concat())?;
        let id = answer.ok().and_then(|id| String::from_utf8(id).ok());
        // `^HEAD` names an exclusion, not an object.
        Ok(id.filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit())))
    }

    /// Returns a git command that runs no program named by the repository's own configuration, prompts for nothing,
    /// writes nothing and fetches nothing. Variables that locate a repository are passed on only for
    /// [`Start::Told`].
    ///
    /// Only plumbing belongs here: it runs no hook, filter, pager or alias and verifies no signature. Everything
    /// else that a configuration can name is reached by transports, or by refreshing the index.
    pub(super) fn git(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        self.look_there(&mut command);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", absolute_only(&path));
        }
        if let Some(shallow) = self.shallow.get() {
            command.env("GIT_SHALLOW_FILE", shallow);
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", null_device())
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_TERMINAL_PROMPT", "0")
            // Objects that a partial clone lacks are reported, not fetched. Versions before 2.45 do not know this
            // variable, and `protocol.allow` yields to `protocol.ext.allow` of the repository, whose programs
            // anybody may name. No transport is in the empty list, which overrides everything.
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_ALLOW_PROTOCOL", "")
            // History hidden by replacements and grafts is history too.
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_GRAFT_FILE", null_device())
            .args(["--no-pager", "--literal-pathspecs"])
            // Ownership does not matter, since nothing of the repository is run.
            .args(["-c", "safe.directory=*"])
            .args(["-c", "core.fsmonitor=false"])
            .args(["-c", "core.hooksPath=/dev/null"])
            .args(["-c", "protocol.allow=never"])
            .args(["-c", "gc.auto=0"])
            .args(["-c", "maintenance.auto=false"])
            // A cache that could be outdated, or omit some of the commits.
            .args(["-c", "core.commitGraph=false"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Sets the folder and the environment by which a git command finds the repository.
    fn look_there(&self, command: &mut Command) {
        let told = matches!(self.start, Start::Told);
        for (name, _) in std::env::vars_os() {
            let kept = told && WHEREABOUTS.iter().any(|kept| name == *kept);
            if name.as_encoded_bytes().starts_with(b"GIT_") && !kept {
                command.env_remove(name);
            }
        }
        match &self.start {
            Start::At(path) => {
                let above = path.parent().unwrap_or(path);
                command
                    .current_dir(path)
                    .env("GIT_CEILING_DIRECTORIES", above);
            }
            Start::Around(folder) => {
                command.current_dir(folder);
            }
            // Relative paths in the environment are relative to the current folder.
            Start::Told => {}
        }
    }

    /// Starts a git command. `what` is its purpose, for errors.
    pub(super) fn start(
        &self,
        what: &'static str,
        arguments: &[&str],
        input: Stdio,
    ) -> Result<Running, HistoryError> {
        Running::start(what, self.git(arguments).stdin(input))
    }

    /// Starts a git command that needs only objects.
    pub(super) fn start_reading(
        &self,
        what: &'static str,
        arguments: &[&str],
        input: Stdio,
    ) -> Result<Running, HistoryError> {
        let lender = self.lender()?;
        let mut command = self.git(arguments);
        for name in ["GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"] {
            command.env_remove(name);
        }
        command
            .env("GIT_DIR", lender.git_dir())
            .env("GIT_OBJECT_DIRECTORY", lender.objects());
        Running::start(what, command.stdin(input))
    }

    /// Resolves a path printed by git, which may be relative to the folder in which git ran.
    pub(super) fn told_path(&self, told: &[u8]) -> PathBuf {
        match &self.start {
            Start::At(folder) | Start::Around(folder) => folder.join(path_of(told)),
            Start::Told => path_of(told),
        }
    }

    /// Returns the file that the environment names as the list of commits without parents, if it applies.
    pub(super) fn told_shallow(&self) -> Option<PathBuf> {
        let told =
            std::env::var_os("GIT_SHALLOW_FILE").filter(|_| matches!(self.start, Start::Told));
        told.map(PathBuf::from)
    }

    /// Treats exactly these commits, one per line, as those without parents from now on.
    pub(super) fn set_shallow(&self, commits: &str) -> Result<(), HistoryError> {
        let path = self
            .lender()?
            .shallow(commits)
            .map_err(HistoryError::NoFolder)?;
        self.shallow.get_or_init(|| path);
        Ok(())
    }

    /// Returns the repository that lends the objects of this one.
    fn lender(&self) -> Result<&Lender, HistoryError> {
        if let Some(lender) = self.lender.get() {
            return Ok(lender);
        }
        let objects = self.ask(&["rev-parse", "--git-path", "objects"])?;
        let objects = objects.map_err(|complaint| HistoryError::Failed {
            what: "find the objects",
            complaint,
        })?;
        let objects = self.told_path(&objects);
        let objects = objects.canonicalize().map_err(HistoryError::Unreadable)?;
        // A version of git that does not support the option supports only SHA-1.
        let format = self.ask(&["rev-parse", "--show-object-format"])?;
        let format = String::from_utf8(format.unwrap_or_default()).unwrap_or_default();
        let lender = Lender::new(objects, &format).map_err(HistoryError::NoFolder)?;
        Ok(self.lender.get_or_init(|| lender))
    }
}

impl Identity {
    /// Returns whether this repository, which the environment names, is meant for `folder`. `found` is the
    /// repository found there without the environment. It takes precedence if its work tree is a folder inside this
    /// one's.
    fn is_meant(&self, folder: &Path, found: Option<&Self>) -> bool {
        let Some(found) = found else {
            return self.holds(folder);
        };
        let found_inside = found
            .top
            .as_ref()
            .is_some_and(|top| Some(top) != self.top.as_ref() && self.holds(top));
        found.git_dir == self.git_dir || self.holds(folder) && !found_inside
    }

    fn holds(&self, folder: &Path) -> bool {
        self.top.as_ref().is_some_and(|top| folder.starts_with(top))
    }
}

/// Returns a search path without entries that depend on the current folder, which is the scanned repository's: a
/// program named `git` in it is not the one that is meant.
fn absolute_only(path: &OsStr) -> OsString {
    let entries = std::env::split_paths(path).filter(|entry| entry.is_absolute());
    std::env::join_paths(entries).unwrap_or_default()
}

fn null_device() -> &'static OsStr {
    OsStr::new(if cfg!(windows) { "NUL" } else { "/dev/null" })
}
