//! Acquisition of a connection when none is idle: the first one that is returned or opened is used.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::{Database, Executor};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::gate::{Pass, Urgency};
use super::super::idle::Found;
use super::{CONNECT_PAUSE, Held, Idle, Pool, is_locked, is_silence, silence};

/// A connection that is being opened.
type Connecting<DB> = Pin<Box<dyn Future<Output = Result<Idle<DB>, sqlx::Error>> + Send>>;

impl<DB: Database> Pool<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    /// Acquires a connection for exclusive use.
    pub(in crate::store) async fn acquire(
        &self,
        urgency: Urgency,
        until: Instant,
    ) -> Result<Held<DB>, sqlx::Error> {
        let whole = until.saturating_duration_since(Instant::now());
        let place = self.enter(urgency, until).await?;
        loop {
            let turn = match self.0.shelf.take_or_wait() {
                Found::Idle(idle) => {
                    if let Some(idle) = Box::pin(self.alive(idle)).await {
                        return Ok(Held::new(self, idle, place));
                    }
                    continue;
                }
                Found::Turn(turn) => turn,
            };
            let mut refusal = None;
            let left = until.saturating_duration_since(Instant::now());
            let racing = Box::pin(self.race(turn, place, until, &mut refusal));
            return match self.within(left, racing).await {
                // The reason of a refusal says more than the timeout that ended the wait.
                Err(error) if is_silence(&error) && until <= Instant::now() => {
                    Err(refusal.unwrap_or_else(|| silence(whole)))
                }
                raced => raced,
            };
        }
    }

    /// Waits for a connection to be returned while opening another one, and yields whichever is first. `refusal` is set
    /// to the last error of opening one.
    async fn race(
        &self,
        mut turn: oneshot::Receiver<Held<DB>>,
        place: Pass,
        until: Instant,
        refusal: &mut Option<sqlx::Error>,
    ) -> Result<Held<DB>, sqlx::Error> {
        let closed = |_| sqlx::Error::PoolClosed;
        let mut pause = Duration::ZERO;
        loop {
            let may_connect = async {
                tokio::time::sleep(pause).await;
                self.0.shelf.may_connect().await;
            };
            tokio::select! {
                biased;
                held = &mut turn => return held.map_err(closed),
                () = may_connect => {}
            }
            let mut connecting = self.connecting(until);
            let error = tokio::select! {
                biased;
                held = &mut turn => {
                    let held = held.map_err(closed)?;
                    self.finish(connecting, place);
                    return Ok(held);
                }
                connected = &mut connecting => match connected {
                    Ok(idle) => return Ok(Held::new(self, idle, place)),
                    Err(error) => error,
                },
            };
            if !self.passes(&error) {
                return Err(error);
            }
            self.note(&error);
            *refusal = Some(error);
            pause = CONNECT_PAUSE;
        }
    }

    /// Returns whether to keep waiting after this error: it is transient, or there are connections that may be
    /// returned.
    fn passes(&self, error: &sqlx::Error) -> bool {
        is_locked(error)
            || self.0.manners.may_die
                && (is_refused(error) || self.0.in_use.load(Ordering::Relaxed) > 0)
    }

    /// Records that the server accepts no further connection, and logs it when that begins.
    fn note(&self, error: &sqlx::Error) {
        if self.0.manners.may_die && self.0.shelf.refused() {
            let in_use = self.0.in_use.load(Ordering::Relaxed);
            let remedy = if is_crowded(error) {
                "raise max_connections, or the limit of the role or the database, or have other programs take fewer"
            } else {
                "see to the server"
            };
            tracing::warn!(
                %error,
                in_use,
                "the server of the database gives no further connection, those that are open are shared: {remedy}"
            );
        }
    }

    /// Opens a connection. If it is no longer needed, it can be passed to [`Pool::finish`].
    fn connecting(&self, until: Instant) -> Connecting<DB> {
        let pool = self.clone();
        let wait = until.saturating_duration_since(Instant::now());
        Box::pin(async move { pool.within(wait, pool.connect_once()).await })
    }

    /// Finishes opening a connection in the background although no task waits for it: the next one will use it.
    fn finish(&self, connecting: Connecting<DB>, place: Pass) {
        let pool = self.clone();
        self.in_background(async move {
            match connecting.await {
                Ok(idle) => pool.take_back(idle, place),
                Err(error) => {
                    pool.note(&error);
                    drop(place);
                }
            }
        });
    }
}

/// Returns whether the server may accept a connection a little later: it is starting, or has no room at the moment.
fn is_refused(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(reported) => reported
            .code()
            .is_some_and(|code| code == "57P03" || code.starts_with("53")),
        _ => false,
    }
}

/// Returns whether all connections that the server allows are taken.
fn is_crowded(error: &sqlx::Error) -> bool {
    let reported = error.as_database_error();
    reported.is_some_and(|reported| reported.code().is_some_and(|code| code == "53300"))
}
