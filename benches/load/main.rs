//! Load test of `rescind serve` in a process of its own, on a SQLite file, with pushes from a GitHub-shaped feed
//! and from signed webhooks at the same time. This process serves all of its requests from memory, so that the
//! generator uses as little of the machine as possible.
//!
//! ```text
//! cargo bench --bench load -- pushes [--rate 100] [--seconds 120]
//! cargo bench --bench load -- webhooks [--rate 2000] [--seconds 30]
//! ```
//!
//! `pushes`: three fifths of the pushes are in the feed and three fifths arrive as webhooks, a fifth as both. One
//! in fifty leaks a key. The end of the test checks that no push was lost or fetched twice, that the numbers of
//! scanned and shed pushes add up, and that each leaked key that was read is revoked exactly once. The lag is the
//! time from the push to the end of its scan.
//!
//! `webhooks`: deliveries of unrelated events (stars, labels, comments without a key), each with its own
//! identifier, over keep-alive connections. The figures are those of the client.

mod daemon;
mod figures;
mod forge;
mod hooks;
mod packs;
#[path = "../support/random.rs"]
mod random;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::time::MissedTickBehavior;

use daemon::{Daemon, Memory};
use figures::{percentiles, row};
use forge::{Forge, Push};
use hooks::Hooks;

/// Number of pushes per leaked key.
const LEAK_EVERY: usize = 50;

/// Maximum time to drain the queue after the last push.
const PATIENCE: Duration = Duration::from_mins(3);

/// Options of the command line.
struct Options {
    mode: String,
    rate: usize,
    seconds: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = options()?;
    match options.mode.as_str() {
        "pushes" => pushes(&options).await,
        "webhooks" => webhooks(&options).await,
        other => bail!("`{other}` is neither `pushes` nor `webhooks`"),
    }
}

fn options() -> anyhow::Result<Options> {
    // cargo itself adds `--bench`.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let mode = words.next().unwrap_or_else(|| "pushes".to_owned());
    let (rate, seconds) = if mode == "webhooks" {
        (2000, 30)
    } else {
        (100, 120)
    };
    let mut options = Options {
        mode,
        rate,
        seconds,
    };
    while let Some(word) = words.next() {
        let value = words
            .next()
            .with_context(|| format!("{word} needs a number"))?;
        match word.as_str() {
            "--rate" => options.rate = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            _ => bail!("{word} is neither --rate nor --seconds"),
        }
    }
    ensure!(
        options.rate > 0 && options.rate * options.seconds <= 200_000,
        "too much"
    );
    Ok(options)
}

async fn pushes(options: &Options) -> anyhow::Result<()> {
    let count = options.rate * options.seconds;
    let folder = tempfile::tempdir()?;
    let forge = Forge::start().await?;
    let daemon = Daemon::start(folder.path(), forge.address()).await?;
    let keys = daemon.issue(count / LEAK_EVERY + 1).await?;
    println!("packing {count} pushes");
    let pushes = Arc::new(packs::pushes(count, LEAK_EVERY, &keys)?);
    let bytes: usize = pushes.iter().map(|push| push.pack.len()).sum();
    forge.offer(&pushes);

    println!(
        "{} pushes/s for {} s, {:.1} kB each",
        options.rate,
        options.seconds,
        mean(bytes, count)
    );
    let hooks = Hooks::new(daemon.url(), 8)?;
    let memory = daemon.watch_memory();
    let offered = offer(options, &forge, &hooks, &pushes).await?;
    ensure!(
        offered.refused == 0,
        "{} deliveries were refused",
        offered.refused
    );
    let drained = daemon.drained(PATIENCE).await?;
    let memory = memory.end();

    daemon.stop().await?;
    let outcome = daemon.outcome(&pushes).await?;
    println!(
        "{}",
        row("webhook answered, ms", &percentiles(offered.answers))
    );
    println!("{}", row("lag, ms", &percentiles(outcome.lags.clone())));
    tell(&memory);
    println!(
        "{count} pushed: {} scanned, {} shed, {} waiting, {} dead; feed: {} gaps; drained {:.1} s after the last push",
        outcome.scanned,
        outcome.shed,
        outcome.waiting,
        outcome.dead,
        outcome.gaps,
        drained.as_secs_f64()
    );
    println!(
        "{} leaks read, {} keys revoked, {} entries in the log",
        outcome.leaks, outcome.revoked, outcome.entries
    );
    outcome.check(count, forge.fetched_twice())
}

fn tell(memory: &Memory) {
    println!(
        "resident: {} MiB after 10 s, {} MiB at the end, {} MiB at most",
        memory.early >> 10,
        memory.late >> 10,
        memory.peak >> 10
    );
}

/// Results of the deliveries.
struct Offered {
    /// Response times of the webhooks.
    answers: Vec<Duration>,
    refused: usize,
}

/// Offers the pushes at a constant rate.
async fn offer(
    options: &Options,
    forge: &Forge,
    hooks: &Hooks,
    pushes: &Arc<Vec<Push>>,
) -> anyhow::Result<Offered> {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let start = Instant::now();
    let mut next = 0;
    while next < pushes.len() {
        ticks.tick().await;
        let due = due(start.elapsed(), options.rate);
        for (number, push) in pushes
            .iter()
            .enumerate()
            .take(due.min(pushes.len()))
            .skip(next)
        {
            push.happens();
            // Of five pushes, the first three are in the feed and the last three are webhooks.
            if number % 5 < 3 {
                forge.publish(number);
            }
            if number % 5 >= 2 {
                hooks.send("push", hooks::push(number, push, forge.address()));
            }
        }
        next = next.max(due);
    }
    hooks.finish().await
}

async fn webhooks(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let forge = Forge::start().await?;
    let daemon = Daemon::start(folder.path(), forge.address()).await?;
    let hooks = Hooks::new(daemon.url(), 32)?;
    let memory = daemon.watch_memory();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let start = Instant::now();
    let (mut sent, all) = (0, options.rate * options.seconds);
    while sent < all {
        ticks.tick().await;
        let due = due(start.elapsed(), options.rate);
        for number in sent..due.min(all) {
            let (event, body) = hooks::unrelated(number);
            hooks.send(event, body);
        }
        sent = sent.max(due);
    }
    let offered = hooks.finish().await?;
    let seconds = start.elapsed().as_secs().max(1);
    let rate = offered.answers.len() as u64 / seconds;
    let memory = memory.end();
    daemon.stop().await?;
    println!(
        "{rate:.0} deliveries/s of unrelated events, {} refused",
        offered.refused
    );
    let answered = percentiles(offered.answers);
    println!("{}", row("answered, ms", &answered));
    tell(&memory);
    ensure!(offered.refused == 0, "deliveries were refused");
    let met = answered.p99 < Duration::from_millis(50);
    println!(
        "target (p99 < 50 ms): {}",
        if met { "met" } else { "MISSED" }
    );
    Ok(())
}

/// Returns the number of offers that are due.
fn due(elapsed: Duration, rate: usize) -> usize {
    let due = elapsed.as_micros() * rate as u128 / 1_000_000;
    usize::try_from(due).unwrap_or(usize::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn mean(bytes: usize, count: usize) -> f64 {
    bytes as f64 / count as f64 / 1e3
}
