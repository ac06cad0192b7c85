//! The configuration: typed sections, overrides from the environment, errors that name file and line, and
//! masked secrets.
//!
//! [`Config::load`] reads the file, applies the variables `RESCIND__SECTION__KEY` on top of it, and
//! returns either a fully validated configuration or every problem that it found.

mod duration;
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
use std::io::{self, Read as _};
use std::path::Path;

pub use duration::parse_duration;
pub use needs::Needs;
pub use problem::{ConfigError, ConfigPlace, Problem, nearest};
pub use sections::{
    App, Config, Database, Formats, Issuer, Keys, OnLeak, Partner, Partners, Policy, Redelivery,
    Scan, Server, Source, SourceKind, Webhook, Webhooks, Work,
};

pub use url::without_slash;

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
    /// environment. Secrets that are not in `needs` are not looked up.
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
        let default = Path::new(DEFAULT_FILE);
        let (path, text, is_named) = match file {
            Some(path) => (path, read(path, NAMED)?, true),
            None if default.exists() => (default, read(default, FOUND)?, false),
            None => return Self::parse_for(default, "", environment, needs, true),
        };
        let mut config = Self::parse_for(path, &text, environment, needs, is_named)?;
        if config.formats.dir.is_none() && config.left_aside.is_none() {
            let beside = path.with_file_name(DEFAULT_FORMATS);
            config.formats.dir = Some(beside).filter(|beside| beside.is_dir());
        }
        Ok(config)
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
        let problems = Problems::default();
        let mut table = tree::parse_file(path, text, &problems);
        let mut left_aside = None;
        if !is_named && let Some((key, place)) = needs::first_foreign(&table) {
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
        tree::overlay(&mut table, variables, &problems);
        let reader = Reader {
            problems: &problems,
            environment,
            needs,
            warnings: RefCell::default(),
            origins: RefCell::default(),
        };
        let mut config = sections::read(Section::root(&reader, table));
        config.warnings = reader.warnings.into_inner();
        config.origins = reader.origins.into_inner();
        config.left_aside = left_aside;
        problems.into_result()?;
        Ok(config)
    }
}

const NAMED: &str =
    "name an existing file with --config or RESCIND_CONFIG, or use neither for the defaults";
const FOUND: &str =
    "it is read because it is in the current folder; name another one with --config";
const FOREIGN: &str =
    "this file seems to belong to another program: no configuration of Rescind has this";

/// Name of the folder of pattern files beside the configuration file, which are used if it exists and no other is named.
const DEFAULT_FORMATS: &str = "patterns";

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Reads a file of at most [`MAX_FILE`] bytes. A file that was found may be anyone's, and opening a pipe would wait for
/// a writer. A file that was named may be a pipe, or the null device.
fn bounded(path: &Path, is_named: bool) -> io::Result<Vec<u8>> {
    if !is_named && !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let mut file = std::fs::File::open(path)?.take(MAX_FILE + 1);
    if file.read_to_end(&mut bytes)? as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

fn read(path: &Path, hint: &'static str) -> Result<String, ConfigError> {
    let bytes = bounded(path, hint == NAMED).map_err(|cause| ConfigError::Unreadable {
        path: path.to_owned(),
        cause,
        hint,
    })?;
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
