//! Files that no command writes its output to.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Context;
use crate::config::{Config, DEFAULT_FILE, Needs};
use crate::store::files_of;
use crate::temporary::folder_of;

/// Files of which a key store and its configuration consist.
pub(super) struct Kept(Vec<(&'static str, PathBuf)>);

impl Kept {
    /// Returns those that a command with this context would use.
    pub(super) fn of(context: &Context) -> Self {
        let path = context.config_path.as_deref();
        let load = |needs| Config::load(path, &context.environment, needs);
        // A command that needs no database does not fail for want of its address.
        let config = load(Needs::RECORDS).or_else(|_| load(Needs::FORMATS));
        let mut files = Vec::new();
        if config
            .as_ref()
            .map_or(true, |config| config.left_aside.is_none())
        {
            let path = path.unwrap_or(Path::new(DEFAULT_FILE));
            files.push(("the configuration file", path.to_owned()));
        }
        if let Ok(config) = config {
            files.extend(files_of(&config.database.url));
        }
        Self(files)
    }

    /// Returns no file, for names that are not the user's.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Returns what `path` is among these, by whatever name.
    pub(super) fn name_of(&self, path: &Path) -> Option<&'static str> {
        let found = self.0.iter().find(|(_, kept)| is_same(kept, path));
        found.map(|(name, _)| *name)
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    match (identity(one), identity(other)) {
        (Some(one), Some(other)) => one == other,
        // One that is not there would be made.
        (None, None) => place(one).is_some() && place(one) == place(other),
        _ => false,
    }
}

/// Returns the path of a file that is not there, independent of links to its folder.
fn place(path: &Path) -> Option<PathBuf> {
    let folder = folder_of(path).canonicalize().ok()?;
    Some(folder.join(path.file_name()?))
}
