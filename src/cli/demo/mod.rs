//! `rescind demo`: the whole pipeline with no set-up. Nothing is mocked: it runs a git repository behind smart
//! HTTP, a GitHub-shaped events feed, a signed partner report, and the daemon as a process of its own.

mod api;
mod leaks;
mod served;
mod timeline;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::served::Served;

use self::api::{Api, Checked, Revocation};
use self::leaks::Leak;
use self::timeline::Timeline;
use super::output::{self, say};
use super::{DONE, FOUND};
use crate::clock::{Clock as _, SystemClock};
use crate::keyformat::KeyValue;
use crate::sandbox::git_server::{GitServer, Repository};
use crate::sandbox::{Feed, Partner};

/// Maximum time until every leaked key must be revoked.
const PATIENCE: Duration = Duration::from_mins(1);
/// Interval at which the revocation log is polled.
const ASK_EVERY: Duration = Duration::from_millis(20);
const REPOSITORY: &str = "acme/webshop";
const REPOSITORY_ID: u64 = 4711;

/// Arguments of `rescind demo`.
#[derive(Debug, Args)]
#[command(
    after_help = "Needs nothing but `git`; everything happens in a temporary folder, on the loopback interface.

Examples:
  rescind demo               leaves the daemon running, to be looked at, until Ctrl-C
  rescind demo --exit        ends; non-zero unless each leaked secret key was revoked and nothing else"
)]
pub struct DemoArgs {
    /// Exit after the last step, with code 1 if any step went wrong
    #[arg(long)]
    exit: bool,
    /// Port of the API on 127.0.0.1 [default: a free one]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    port: u16,
}

/// Runs the demo and prints its results.
///
/// # Errors
/// Returns an error if the demo cannot be set up: no `git`, a port in use, a full disk.
pub fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(tell(args))
}

async fn tell(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let tracker = TaskTracker::new();
    let mut stage = Stage::set_up(&tracker, args.port).await?;
    let failures = stage.play().await?;
    for failure in &failures {
        say(&format!("FAILED: {failure}"))?;
    }
    if failures.is_empty() {
        say(
            "\nEvery leaked secret key was revoked; the public key and the one that never leaked are valid.",
        )?;
    }
    // Nobody looks around in what nobody reads of.
    if !args.exit && !output::is_left() {
        stage.stay_open().await?;
    }
    stage.served.stop().await?;
    Ok(if failures.is_empty() {
        DONE
    } else {
        ExitCode::from(FOUND)
    })
}

/// Key minted by the demo.
struct Minted {
    leak: Leak,
    id: String,
    value: KeyValue,
}

/// Running parts of the demo.
struct Stage {
    folder: TempDir,
    partner: Partner,
    feed: Feed,
    forge: GitServer,
    repository: Repository,
    served: Served,
    api: Api,
}

impl Stage {
    async fn set_up(tracker: &TaskTracker, port: u16) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("rescind-demo-").tempdir()?;
        let root = folder.path();
        let forge = GitServer::start(&root.join("forge"), tracker).await?;
        let repository = forge.create(REPOSITORY)?;
        repository.write("README", b"A web shop.\n")?;
        repository.commit("Begin")?;
        repository.push(leaks::BRANCH)?;
        let partner = Partner::new()?;
        let feed = Feed::start(tracker, 1, partner.public_keys()).await?;
        let config = root.join("config.toml");
        std::fs::write(&config, configuration(root, port, &feed, &forge)?)?;
        let served = Served::start(
            &config,
            &root.join("rescind.log"),
            &root.join("rescind.db.admin-token"),
        )
        .await?;
        let client = crate::fetch::direct_client()?;
        let api = Api::new(client, &served.url, served.admin_token.clone());
        say(&format!(
            "Rescind listens on {}, its data is in {}\n",
            served.url,
            root.display()
        ))?;
        Ok(Self {
            folder,
            partner,
            feed,
            forge,
            repository,
            served,
            api,
        })
    }

    /// Mints and leaks the keys, and waits for their revocation. Returns everything that went wrong.
    async fn play(&mut self) -> anyhow::Result<Vec<String>> {
        let mut timeline = Timeline::starting_at(SystemClock.now());
        let keys = self.mint(&mut timeline).await?;
        self.leak_by_push(&keys, &mut timeline)?;
        let mut failures = self.leak_by_report(&keys, &mut timeline).await?;
        self.wait_for_revocations(&keys, &mut timeline).await?;
        say(&format!("{timeline}"))?;
        failures.extend(self.judge(&keys).await?);
        say("The revocation log (rescind log list):\n")?;
        self.rescind(&["log", "list"])?;
        say("\nIts chain, computed anew (rescind log verify):\n")?;
        if !self.rescind(&["log", "verify"])? {
            failures.push("the revocation log does not verify".to_owned());
        }
        Ok(failures)
    }

    async fn mint(&self, timeline: &mut Timeline) -> anyhow::Result<Vec<Minted>> {
        let mut keys = Vec::new();
        for (number, leak) in Leak::ALL.into_iter().enumerate() {
            let public = leak == Leak::PublicKey;
            let user = format!("user-{}", number + 1);
            let (id, value) = self.api.mint(&user, leak.description(), public).await?;
            timeline.minted(&id, leak, &value, SystemClock.now());
            keys.push(Minted { leak, id, value });
        }
        Ok(keys)
    }

    fn leak_by_push(&self, keys: &[Minted], timeline: &mut Timeline) -> anyhow::Result<()> {
        let leaking: Vec<(Leak, &KeyValue)> =
            keys.iter().map(|key| (key.leak, &key.value)).collect();
        let pushed = leaks::push(&self.repository, &leaking)?;
        let at = SystemClock.now();
        self.feed.push(REPOSITORY_ID, REPOSITORY, &pushed, at);
        for key in keys.iter().filter(|key| key.leak.is_pushed()) {
            timeline.leaked(&key.id, at);
        }
        Ok(())
    }

    /// Sends one report with one of the keys (twice), a string that was never minted and a row without a token.
    async fn leak_by_report(
        &self,
        keys: &[Minted],
        timeline: &mut Timeline,
    ) -> anyhow::Result<Vec<String>> {
        let key = keys
            .iter()
            .find(|key| key.leak == Leak::PartnerReport)
            .context("no key to report")?;
        let row = |token: &str| {
            json!({
                "token": token,
                "type": "rescind_secret",
                "url": "https://example.com/acme/webshop/issues/1",
                "source": "issue_body",
            })
        };
        let stranger = "not-one-of-our-keys";
        let ours = key.value.expose();
        let rows = json!([row(ours), row(stranger), { "type": "rescind_secret" }, row(ours)]);
        let body = serde_json::to_vec(&rows)?;
        let signature = self.partner.sign(&body);
        timeline.leaked(&key.id, SystemClock.now());
        let feedback = self
            .api
            .partner_report(body, self.partner.identifier(), &signature)
            .await?;
        let expected = [
            (ours, "true_positive"),
            (stranger, "false_positive"),
            ("", "false_positive"),
            (ours, "true_positive"),
        ];
        Ok(wrong_feedback(&feedback, &expected))
    }

    /// Waits until each key that must be revoked has been, or [`PATIENCE`] ends.
    async fn wait_for_revocations(
        &self,
        keys: &[Minted],
        timeline: &mut Timeline,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for key in keys.iter().filter(|key| key.leak.must_be_revoked()) {
            loop {
                if let Some(Revocation {
                    detected_at,
                    at,
                    source,
                }) = self.api.revocation(&key.id).await?
                {
                    timeline.revoked(&key.id, detected_at, at, source);
                    break;
                }
                if Instant::now() > deadline {
                    break;
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
        Ok(())
    }

    /// Checks every key as a backend would. Returns a description of each unexpected answer.
    async fn judge(&self, keys: &[Minted]) -> anyhow::Result<Vec<String>> {
        let mut failures = Vec::new();
        for key in keys {
            let expected = if key.leak.must_be_revoked() {
                Checked::Refused("API_KEY_REVOKED".to_owned())
            } else {
                Checked::Valid
            };
            let found = self.api.check(&key.value).await?;
            if found != expected {
                let what = key.leak.description();
                failures.push(format!("{what}: expected {expected:?}, found {found:?}"));
            }
        }
        Ok(failures)
    }

    /// Runs a command of this binary on the demo's data. Returns whether it exited with 0.
    fn rescind(&self, arguments: &[&str]) -> anyhow::Result<bool> {
        let config = self.folder.path().join("config.toml");
        let status = served::own_command(&config)?.args(arguments).status()?;
        Ok(status.success())
    }

    async fn stay_open(&mut self) -> anyhow::Result<()> {
        say("\nRescind goes on running until Ctrl-C. Look around:\n")?;
        say(&format!(
            "  curl -H 'Authorization: Bearer {}' \\",
            self.served.admin_token.expose()
        ))?;
        say(&format!("    {}/api/v1/incidents", self.served.url))?;
        say(&format!("  the events feed:  {}/events", self.feed.url()))?;
        say(&format!(
            "  the repository:   git clone {}/{REPOSITORY}.git",
            self.forge.url()
        ))?;
        tokio::select! {
            ended = self.served.wait() => ended,
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        }
    }
}

/// Returns the daemon's configuration, in which all data is in the temporary folder and every server on the
/// loopback interface.
fn configuration(root: &Path, port: u16, feed: &Feed, forge: &GitServer) -> anyhow::Result<String> {
    let database = root.join("rescind.db");
    let database = database
        .to_str()
        .context("the temporary folder's path is not UTF-8")?;
    let (api_url, clone_url) = (feed.url(), forge.url());
    let value = json!({
        "server": { "bind": format!("127.0.0.1:{port}") },
        "database": { "url": format!("sqlite://{database}") },
        "partners": { "github": {
            "enabled": true,
            "public_keys_url": format!("{api_url}/meta/public_keys/secret_scanning"),
        }},
        "sources": [{
            "name": "demo-feed",
            "kind": "github_events",
            "scope": "public",
            "api_url": api_url,
            "clone_url": clone_url,
            "schedule": "poll",
        }],
    });
    Ok(toml::to_string(&value)?)
}

/// Compares the feedback rows with the expected labels. Returns a description of each mismatch.
fn wrong_feedback(feedback: &[Value], expected: &[(&str, &str)]) -> Vec<String> {
    use crate::keyformat::Sha256Digest;
    let mut failures = Vec::new();
    if feedback.len() != expected.len() {
        failures.push(format!(
            "{} rows were answered with {}",
            expected.len(),
            feedback.len()
        ));
    }
    for (number, (row, (token, label))) in feedback.iter().zip(expected).enumerate() {
        let digest = Sha256Digest::of(token.as_bytes()).to_hex();
        if row["token_hash"] != digest.as_str() || row["label"] != *label {
            failures.push(format!("feedback row {} is not `{label}`", number + 1));
        }
    }
    failures
}
