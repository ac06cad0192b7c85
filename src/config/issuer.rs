//! The parts of the configuration that concern key formats, checked against the formats themselves.

use std::path::Path;

use super::file::Occasion;
use super::problem::{ConfigError, Problems, nearest};
use super::{Config, ConfigPlace, DEFAULT_FILE, DEFAULT_FORMATS, Environment, Needs};
use crate::issuer::IssuerFormats;
use crate::keyformat::{FormatSet, FormatsError, KeyFormat, Visibility};

impl Config {
    /// Loads the key formats that the configuration names: those in `formats.dir`, or the built-in ones.
    ///
    /// # Errors
    /// Returns every problem of the pattern files.
    pub fn load_formats(&self) -> Result<FormatSet, FormatsError> {
        match &self.formats.dir {
            Some(dir) => FormatSet::load_dir(dir),
            None => Ok(FormatSet::builtin()),
        }
    }

    /// Returns the key formats by which a message is redacted, whatever is wrong with the configuration: those that it
    /// names, or else those of a variable or of the folder beside the file, or else the built-in ones.
    pub fn formats_of_messages(file: Option<&Path>, environment: &Environment) -> FormatSet {
        let load = |config: Self| config.load_formats().ok();
        let named = || Self::load_on(file, environment, Needs::FORMATS, Occasion::Message);
        let of_variable = || {
            let path = Path::new(DEFAULT_FILE);
            let config = Self::parse_for(path, "", environment, Needs::FORMATS, true).ok()?;
            load(config.formats.dir.is_some().then_some(config)?)
        };
        let beside = || {
            let file = file.unwrap_or(Path::new(DEFAULT_FILE));
            FormatSet::load_dir(&file.with_file_name(DEFAULT_FORMATS)).ok()
        };
        let formats = named().ok().and_then(load);
        let formats = formats.or_else(of_variable).or_else(beside);
        formats.unwrap_or_else(FormatSet::builtin)
    }

    /// Returns the formats that `[issuer]` names, in which keys can be minted.
    ///
    /// # Errors
    /// Fails if one of them is not in `formats`, has the wrong visibility or cannot mint.
    pub fn issuer_formats(&self, formats: &FormatSet) -> Result<IssuerFormats, ConfigError> {
        let problems = Problems::default();
        for (key, id, visibility) in [
            ("issuer.secret", &self.issuer.secret, Visibility::Secret),
            ("issuer.public", &self.issuer.public, Visibility::Public),
        ] {
            let usable = formats
                .iter()
                .filter(|format| format.visibility() == visibility && format.can_mint());
            let usable: Vec<&str> = usable.map(KeyFormat::id).collect();
            if usable.contains(&id.as_str()) {
                continue;
            }
            let what = match formats.get(id) {
                None => "is not the id of a key format".to_owned(),
                Some(format) if format.visibility() != visibility => {
                    format!("names a format that is not {}", visibility.name())
                }
                Some(format) if format.is_retired() => {
                    "names a format that is retired, in which no keys are minted".to_owned()
                }
                Some(_) => "names a format that keys cannot be minted in".to_owned(),
            };
            let hint = match nearest(id, usable.iter().copied()) {
                Some(word) => format!("did you mean `{word}`?"),
                None if usable.is_empty() => {
                    format!(
                        "add a {} format with a body to formats.dir",
                        visibility.name()
                    )
                }
                None => format!("usable here: {}", usable.join(", ")),
            };
            let place = self.origins.get(key).unwrap_or(&ConfigPlace::Default);
            problems.add(place, key, what, hint);
        }
        problems.into_result()?;
        Ok(IssuerFormats {
            secret: self.issuer.secret.clone(),
            public: self.issuer.public.clone(),
        })
    }
}
