//! Command line. Each module holds one command: its arguments, the call into the library and the output.

mod actor;
mod allocator;
mod backup;
mod config;
mod context;
pub mod demo;
mod doctor;
mod exit;
mod file;
mod first_token;
mod formats;
mod interrupted;
mod kept;
mod keys;
mod log;
mod logging;
mod migrate;
mod output;
mod restore;
mod scan;
mod serve;
mod sources;
mod text;
mod time;
mod tokens;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Config, ConfigError, Environment, Needs};
use crate::daemon::{deliver, hold_back};
use crate::keyformat::{FormatSet, FormatsError};

use exit::COULD_NOT_RUN;
pub use exit::{DONE, FOUND};
pub use logging::LogFormat;
use logging::Whose;
pub use usage::UsageError;

/// Arguments of the `rescind` binary.
#[derive(Debug, Parser)]
#[command(
    name = "rescind",
    version,
    about,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 leaks found or verification failed, 2 usage or configuration error,
3 could not run or not to its end.

Examples:
  rescind serve
  rescind --config /etc/rescind/config.toml --log json serve"
)]
pub struct Cli {
    /// Configuration file [default: config.toml in the current folder, if it exists]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "RESCIND_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    /// Format of the log lines on standard error
    #[arg(long, global = true, value_enum, default_value_t)]
    log: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole pipeline with no set-up: mint keys, leak them, watch them being revoked
    Demo(demo::DemoArgs),
    /// Run the daemon: the API and the configured sources
    Serve(serve::ServeArgs),
    /// Issue, list, check, revoke, rotate and import keys
    Keys(keys::KeysArgs),
    /// Create, list and revoke access tokens of Rescind itself
    Tokens(tokens::TokensArgs),
    /// Read, export and verify the revocation log
    Log(log::LogArgs),
    /// Show the state of the sources, poll one now, requeue dead-lettered work
    Sources(sources::SourcesArgs),
    /// Check the configuration, the database, the key formats and every server that must be reachable
    Doctor(doctor::DoctorArgs),
    /// Apply pending database migrations
    Migrate(migrate::MigrateArgs),
    /// Copy the database while it is used (SQLite)
    Backup(backup::BackupArgs),
    /// Put a backup back (SQLite)
    Restore(restore::RestoreArgs),
    /// Print the effective configuration
    Config(config::ConfigArgs),
    /// Find keys in files, folders, standard input and git histories
    Scan(scan::ScanArgs),
    /// Show, check and try key formats
    Formats(formats::FormatsArgs),
}

impl Command {
    /// Returns the log level that applies unless `RESCIND_LOG` is set. The daemon reports its progress; other
    /// commands print their result and log problems only.
    fn log_level(&self) -> LevelFilter {
        match self {
            Self::Serve(_) => LevelFilter::INFO,
            _ => LevelFilter::WARN,
        }
    }

    fn whose_log(&self) -> Whose {
        match self {
            Self::Serve(_) => Whose::Daemon,
            _ => Whose::Command,
        }
    }
}

/// State shared by all commands.
#[derive(Debug, Clone)]
pub struct Context {
    /// Configuration file named by `--config` or `RESCIND_CONFIG`.
    pub config_path: Option<PathBuf>,
    /// Format of log lines.
    pub log: LogFormat,
    /// Environment of the process.
    pub environment: Environment,
}

impl Context {
    /// Loads and validates the configuration, with the secrets that the command needs. Says so if a file is left aside.
    ///
    /// # Errors
    /// Returns an error if the configuration cannot be read or is invalid.
    pub fn config(&self, needs: Needs) -> Result<Config, ConfigError> {
        let config = Config::load(self.config_path.as_deref(), &self.environment, needs)?;
        if let Some(place) = &config.left_aside {
            output::note(&format!(
                "{place}: this file seems to belong to another program and is left aside; the defaults are used"
            ));
        }
        Ok(config)
    }

    /// Loads the key formats that `config` names.
    ///
    /// # Errors
    /// Returns every problem of the pattern files.
    pub fn formats(&self, config: &Config) -> Result<FormatSet, FormatsError> {
        config.load_formats()
    }
}

/// Parses the command line of this process and runs the command.
pub fn main() -> ExitCode {
    // Before anything that takes a while. Signals that the daemon outlives would end the process that it replaces, and
    // the daemon before its handlers are there.
    if std::env::args_os().skip(1).any(|word| word == "serve") {
        // What cannot be held back may end a process that did nothing yet.
        let _ = hold_back();
        allocator::settle();
    }
    match Cli::try_parse() {
        Ok(cli) => {
            // Another command, of which an argument is the word.
            if !matches!(cli.command, Command::Serve(_)) {
                let _ = deliver();
            }
            run(cli)
        }
        Err(error) => exit::refused_arguments(&error),
    }
}

/// Runs one command and reports its error, if any, on standard error.
pub fn run(cli: Cli) -> ExitCode {
    let context = Context {
        // An empty variable counts as unset.
        config_path: cli.config.filter(|path| !path.as_os_str().is_empty()),
        log: cli.log,
        environment: Environment::of_process(),
    };
    let (level, whose) = (cli.command.log_level(), cli.command.whose_log());
    let result = logging::start(&context, level, whose);
    let result = result.and_then(|()| dispatch(cli.command, &context));
    let code = result.unwrap_or_else(|error| exit::report(&error, &context));
    logging::end();
    code
}

fn dispatch(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(&args, context),
        Command::Keys(args) => keys::run(args, context),
        Command::Tokens(args) => tokens::run(args, context),
        Command::Log(args) => log::run(args, context),
        Command::Sources(args) => sources::run(args, context),
        Command::Doctor(args) => doctor::run(&args, context),
        Command::Migrate(args) => migrate::run(&args, context),
        Command::Backup(args) => backup::run(&args, context),
        Command::Restore(args) => restore::run(&args, context),
        Command::Config(args) => config::run(&args, context),
        Command::Scan(args) => scan::run(&args, context),
        Command::Formats(args) => formats::run(&args, context),
    }
}
