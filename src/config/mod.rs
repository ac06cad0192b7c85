//! The configuration: typed sections, overrides from the environment, errors that name file and line, and
//! masked secrets.
//!
//! [`Config::load`] reads the file, applies the variables `RESCIND__SECTION__KEY` on top of it, and
//! returns either a fully validated configuration or every problem that it found.

mod duration;
mod file;
mod issuer;
mod needs;
mod problem;
mod read;
mod sections;
mod show;
mod size;
mod tree;
mod url;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use duration::parse_duration;
pub use needs::Needs;
pub use problem::{ConfigError, ConfigPlace, Problem, nearest};
pub use sections::{
    App, Config, Database, Formats, Issuer, Keys, OnLeak, Partner, Partners, Policy, Redelivery,
    Scan, Server, Source, SourceKind, Webhook, Webhooks, Work,
};

pub use url::without_slash;

use file::{FOUND, Occasion, bounded};
use problem::Problems;
use read::{Reader, Section};

/// Path of the file that is read if none is named and this one exists.
pub const DEFAULT_FILE: &str = "config.toml";

/// Snapshot of the environment variables to which the configuration may refer.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Captures the environment of this process. Variables that are not valid UTF-8 are omitted.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Returns the value of a variable, or `None` if it is not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}

impl Config {
    /// Loads the configuration from `file`, or from [`DEFAULT_FILE`] if that exists, and from the
    /// environment. Secrets that are not in `needs` are not looked up, and what is wrong in other sections than those is
    /// left to whoever needs them.
    ///
    /// A [`DEFAULT_FILE`] that plainly belongs to another program is left aside if the defaults do as well, which
    /// [`Config::left_aside`] then tells.
    ///
    /// # Errors
    /// Returns [`ConfigError::Unreadable`] if the file cannot be read, and [`ConfigError::Invalid`] with
    /// all problems of the configuration at once.
    pub fn load(
        file: Option<&Path>,
        environment: &Environment,
        needs: Needs,
    ) -> Result<Self, ConfigError> {
        Self::load_on(file, environment, needs, Occasion::Start)
    }

    /// Loads the configuration again, from where this one came, for a daemon.
    ///
    /// # Errors
    /// Returns the errors of [`Config::load`], and [`ConfigError::Unreadable`] if a file that this configuration was read
    /// from is gone, is empty now, or is not a regular one and may have been readable only once.
    pub fn load_again(
        &self,
        file: Option<&Path>,
        environment: &Environment,
        needs: Needs,
    ) -> Result<Self, ConfigError> {
        let on = Occasion::Reload(self.file.as_ref());
        let mut config = Self::load_on(file, environment, needs, on)?;
        if config.formats.dir.is_none() && self.formats.dir == config.formats_beside() {
            // It is gone: to load it is an error that names it.
            config.formats.dir = config.formats_beside();
        }
        Ok(config)
    }

    fn load_on(
        file: Option<&Path>,
        environment: &Environment,
        needs: Needs,
        on: Occasion<'_>,
    ) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let found = match file::find(file, on) {
            Err(error) if file.is_none() && needs.works_without_file() && is_no_text(&error) => {
                let mut config = Self::parse_for(default, "", environment, needs, true)?;
                config.left_aside = Some(tree::place_at(&default.into(), "", 0));
                return Ok(config);
            }
            found => found?,
        };
        let Some(read) = found else {
            return Self::parse_for(default, "", environment, needs, true);
        };
        let path = read.from.path();
        let mut config = Self::parse_for(path, &read.text, environment, needs, read.is_named)?;
        config.file = Some(read.from);
        if config.formats.dir.is_none() && config.left_aside.is_none() {
            config.formats.dir = config
                .formats_beside()
                .filter(|beside| file::is_folder_to_be(beside));
        }
        Ok(config)
    }

    /// Returns the folder of pattern files beside the file that this was read from, whether or not there is one.
    fn formats_beside(&self) -> Option<PathBuf> {
        let file = self.file.as_ref()?;
        Some(file.path().with_file_name(DEFAULT_FORMATS))
    }

    /// Parses the configuration from the text of a file. `path` names the file in problems.
    ///
    /// # Errors
    /// Returns all problems at once.
    pub fn parse(path: &Path, text: &str, environment: &Environment) -> Result<Self, ConfigError> {
        Self::parse_for(path, text, environment, Needs::ALL, true)
    }

    fn parse_for(
        path: &Path,
        text: &str,
        environment: &Environment,
        needs: Needs,
        is_named: bool,
    ) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        let mut table = tree::parse_file(path, text, &problems);
        let mut left_aside = None;
        let may_be_anyones = !is_named && needs.works_without_file();
        if may_be_anyones && !problems.is_empty() && !needs::has_section_of_ours(text.as_bytes()) {
            // A template, as scaffolding tools have them.
            left_aside = problems.first_place();
            problems = Problems::default();
        }
        if !is_named && let Some((key, place)) = needs::first_foreign(&table, needs) {
            if !needs.works_without_file() {
                // A key that long may be a value that slipped to the left of the equals sign.
                let key = if key.len() > 40 { "…" } else { key };
                problems.add(place, key, FOREIGN, FOUND);
                return problems.into_result().map(|()| Self::default());
            }
            left_aside = Some(place.clone());
            table = tree::Table::default();
        }
        let variables = environment.0.iter();
        let variables = variables.map(|(name, value)| (name.as_str(), value.as_str()));
        let is_needed = |path: &str| needs.has_part(path);
        tree::overlay(&mut table, variables, is_needed, &problems);
        let reader = Reader {
            problems: &problems,
            environment,
            needs,
            is_named,
            warnings: RefCell::default(),
            origins: RefCell::default(),
            unset: RefCell::default(),
        };
        let mut config = sections::read(Section::root(&reader, table));
        config.warnings = reader.warnings.into_inner();
        config.origins = reader.origins.into_inner();
        config.unset = reader.unset.into_inner();
        config.left_aside = left_aside;
        problems.into_result()?;
        Ok(config)
    }
}

/// Returns whether what bears the name of the configuration file is no text, or leads nowhere: nobody who writes one for
/// this program makes such a thing.
fn is_no_text(error: &ConfigError) -> bool {
    match error {
        ConfigError::Unreadable { path, cause, .. } => {
            !path.is_file() && cause.kind() != std::io::ErrorKind::PermissionDenied
        }
        // Not UTF-8. If it cannot be read again, it is not known whose it is.
        ConfigError::Invalid(_) => {
            bounded(Path::new(DEFAULT_FILE)).is_ok_and(|bytes| !needs::has_section_of_ours(&bytes))
        }
    }
}

const FOREIGN: &str =
    "this file seems to belong to another program: no configuration of Rescind has this";

/// Name of the folder of pattern files beside the configuration file, which are used if it exists and no other is named.
const DEFAULT_FORMATS: &str = "patterns";
