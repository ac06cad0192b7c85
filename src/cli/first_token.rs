//! The first access token of an empty store: on the terminal of whoever watches, or else in a file. It never goes into a
//! stream that somebody may keep, as a service manager does.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::{Context, output};
use crate::keyformat::KeyValue;
use crate::store::Store;
use crate::temporary::Temporary;

/// Suffix of the file beside a SQLite database.
const SUFFIX: &str = ".admin-token";

/// Name of the file if the database is on a server.
const NAME: &str = "rescind.admin-token";

/// Folder of that file, unless the service manager names one.
const FOLDER: &str = "data";

/// Shows the token. It is stored only after that, so that it is never lost: if the program is killed in between, the
/// next start makes another one, and writes it in the place of this one.
///
/// # Errors
/// Returns the reason if it can neither be printed nor written.
pub(super) fn show(context: &Context, token: &KeyValue, store: &Store) -> Result<(), String> {
    if io::stdout().is_terminal() {
        let shown = output::line(&format!("admin token (shown once): {}", token.expose()));
        return shown.map_err(|error| format!("{error:#}"));
    }
    let file = place(context, store);
    write(&file, token)
        .map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    tracing::warn!(
        file = %file.display(),
        "the administrator's first access token is in a file that only its owner can read: take it out of there, and \
         delete the file"
    );
    Ok(())
}

/// Returns the absolute path of the file.
fn place(context: &Context, store: &Store) -> PathBuf {
    let file = store.beside(SUFFIX).unwrap_or_else(|| {
        // systemd names the folder of a unit with `StateDirectory=`, and several of them separated by colons.
        let folder = context.environment.get("STATE_DIRECTORY");
        let folder = folder.and_then(|folders| folders.split(':').next());
        let folder = folder.filter(|folder| !folder.is_empty());
        Path::new(folder.unwrap_or(FOLDER)).join(NAME)
    });
    std::path::absolute(&file).unwrap_or(file)
}

fn write(file: &Path, token: &KeyValue) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder)?;
    // Only its owner may read it. It appears with its contents, or not at all.
    let mut temporary = Temporary::beside(file, 0o600)?;
    writeln!(temporary, "{}", token.expose())?;
    temporary.persist(file)
}
