//! Access tokens of a source, each with its own account at GitHub's rate limit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

use super::answer::Quota;
use super::app::Installation;
use super::error::GitHubError;
use crate::backoff::Backoff;

/// Time for which a token is not used after it was refused.
const SET_ASIDE: Duration = Duration::from_hours(1);

/// Backoff of a token that was throttled without a `Retry-After`.
const PAUSES: Backoff = Backoff::new(Duration::from_mins(1), Duration::from_mins(15));

/// Credential that a source presents to GitHub.
#[derive(Debug, Clone)]
pub enum Credential {
    /// An access token.
    Token(SecretString),
    /// The tokens of an app's installation.
    App(Arc<Installation>),
}

/// All credentials of a source. If there are none, requests are sent without a token, which has a rate limit too.
#[derive(Debug)]
pub(crate) struct Tokens(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    credential: Option<Credential>,
    account: Mutex<Account>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Account {
    quota: Quota,
    paused_until: Option<Timestamp>,
    /// Duration of the pause. Caps the remaining time, in case the clock was set back.
    paused_for: Duration,
    refused_until: Option<Timestamp>,
    /// Number of times in a row it was throttled.
    strikes: u32,
}

impl Account {
    fn is_refused(&self, now: Timestamp) -> bool {
        let left = self.refused_until.map(|until| until.duration_since(now));
        let left = left.and_then(|left| Duration::try_from(left).ok());
        // If much more time is left, the clock was set back meanwhile.
        left.is_some_and(|left| !left.is_zero() && left <= SET_ASIDE * 2)
    }

    /// Returns the delay until `requests` requests may be sent.
    fn wait(&self, requests: u64, now: Timestamp) -> Duration {
        let used_up = self.quota.wait(requests, now);
        self.pause(now).max(used_up.unwrap_or_default())
    }

    /// Returns the time for which the token is throttled still.
    fn pause(&self, now: Timestamp) -> Duration {
        let paused = self.paused_until.map(|until| until.duration_since(now));
        let paused = paused.and_then(|wait| Duration::try_from(wait).ok());
        paused.unwrap_or_default().min(self.paused_for)
    }

    /// Returns the rate limit as it is now: of a token that is throttled nothing is left until that ends, whatever
    /// its last answer said.
    fn quota(&self, now: Timestamp) -> Quota {
        let pause = self.pause(now);
        if pause.is_zero() {
            return self.quota;
        }
        Quota {
            remaining: Some(0),
            resets_at: now.checked_add(pause).ok(),
            ..self.quota
        }
    }
}

impl Tokens {
    pub(crate) fn new(credentials: Vec<Credential>) -> Self {
        let mut credentials: Vec<_> = credentials.into_iter().map(Some).collect();
        if credentials.is_empty() {
            credentials.push(None);
        }
        let entries = credentials.into_iter().map(|credential| Entry {
            credential,
            account: Mutex::default(),
        });
        Self(entries.collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn credential(&self, index: usize) -> Option<&Credential> {
        self.0.get(index)?.credential.as_ref()
    }

    /// Returns the index of the token to use: of those that may be used now, the one with the most requests left.
    ///
    /// # Errors
    /// Returns [`GitHubError::RateLimited`] if none may be used now.
    pub(crate) fn pick(&self, now: Timestamp) -> Result<usize, GitHubError> {
        let accounts = self.accounts();
        let in_use: Vec<_> = accounts
            .iter()
            .enumerate()
            .filter(|(_, account)| !account.is_refused(now))
            .collect();
        if in_use.is_empty() {
            // All were refused. The one that was refused first is the most likely to be accepted again.
            let first = accounts
                .iter()
                .enumerate()
                .min_by_key(|(_, account)| account.refused_until);
            return Ok(first.map_or(0, |(index, _)| index));
        }
        let ready = in_use
            .iter()
            .filter(|(_, account)| account.wait(1, now).is_zero());
        let left = |account: &Account| account.quota.remaining.unwrap_or(u64::MAX);
        // Of equals, the first: a token that stays the same has the `ETag`s.
        let most = ready.min_by_key(|(_, account)| u64::MAX - left(account));
        match most {
            Some((index, _)) => Ok(*index),
            None => Err(GitHubError::RateLimited {
                status: 429,
                retry_after: in_use.iter().map(|(_, account)| account.wait(1, now)).min(),
            }),
        }
    }

    /// Returns the delay until `requests` requests may be sent with one of the tokens.
    pub(crate) fn wait(&self, requests: u64, now: Timestamp) -> Duration {
        let accounts = self.accounts();
        let in_use = accounts.iter().filter(|account| !account.is_refused(now));
        let waits = in_use.map(|account| account.wait(requests, now));
        waits.min().unwrap_or_default()
    }

    /// Returns the delay between two requests with which those that are left last until there are more. Zero if nothing
    /// is known of a limit.
    pub(crate) fn pace(&self, now: Timestamp) -> Duration {
        let accounts = self.accounts();
        let in_use = accounts.iter().filter(|account| !account.is_refused(now));
        in_use
            .map(|account| account.quota.pace(now))
            .min()
            .unwrap_or_default()
    }

    /// Records what a failed response tells of the limit.
    pub(crate) fn failed(&self, index: usize, quota: Quota) {
        if quota.remaining.is_some() {
            self.change(index, |account| account.quota = quota);
        }
    }

    /// Records a successful response.
    pub(crate) fn answered(&self, index: usize, quota: Quota) {
        self.change(index, |account| {
            *account = Account {
                quota,
                ..Account::default()
            };
        });
    }

    /// Records that a token was throttled.
    pub(crate) fn limited(&self, index: usize, told: Option<Duration>, now: Timestamp) {
        self.change(index, |account| {
            let pause = told.unwrap_or_else(|| PAUSES.after(account.strikes));
            account.strikes += 1;
            account.paused_for = pause;
            account.paused_until = now.checked_add(pause).ok();
        });
    }

    /// Records that a token was refused (HTTP 401).
    pub(crate) fn refused(&self, index: usize, now: Timestamp) {
        self.change(index, |account| {
            account.refused_until = now.checked_add(SET_ASIDE).ok();
        });
    }

    /// Returns whether any token may be used now.
    pub(crate) fn has_other(&self, now: Timestamp) -> bool {
        let usable = |account: &Account| !account.is_refused(now) && account.wait(1, now).is_zero();
        self.accounts().iter().any(usable)
    }

    /// Returns a description of the tokens that are set aside, by their position in the configuration, or `None` if
    /// there are none.
    pub(crate) fn complaint(&self, now: Timestamp) -> Option<String> {
        let accounts = self.accounts();
        let refused = accounts.iter().enumerate();
        let refused = refused.filter(|(_, account)| account.is_refused(now));
        let places: Vec<String> = refused.map(|(index, _)| (index + 1).to_string()).collect();
        if places.is_empty() {
            return None;
        }
        Some(format!(
            "access token {} of {} was refused (HTTP 401) and is set aside: renew it",
            places.join(", "),
            accounts.len()
        ))
    }

    /// Returns the combined rate limit of all tokens.
    pub(crate) fn quota(&self, now: Timestamp) -> Quota {
        let accounts = self.accounts();
        let quotas: Vec<Quota> = accounts.iter().map(|account| account.quota(now)).collect();
        let sum = |of: fn(&Quota) -> Option<u64>| {
            let known = quotas.iter().filter_map(of);
            known.reduce(u64::saturating_add)
        };
        Quota {
            limit: sum(|quota| quota.limit),
            remaining: sum(|quota| quota.remaining),
            resets_at: quotas.iter().filter_map(|quota| quota.resets_at).min(),
        }
    }

    fn accounts(&self) -> Vec<Account> {
        let accounts = self
            .0
            .iter()
            .map(|entry| *entry.account.lock().unwrap_or_else(PoisonError::into_inner));
        accounts.collect()
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut Account)) {
        if let Some(entry) = self.0.get(index) {
            let mut account = entry.account.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut account);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn three() -> (Tokens, Timestamp) {
        let tokens = ["a", "b", "c"].map(|token| Credential::Token(token.into()));
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        (Tokens::new(tokens.to_vec()), now)
    }

    fn quota(remaining: u64, now: Timestamp) -> Quota {
        Quota {
            limit: Some(5000),
            remaining: Some(remaining),
            resets_at: now.checked_add(SignedDuration::from_mins(30)).ok(),
        }
    }

    #[test]
    fn uses_the_one_with_the_most_left() {
        let (tokens, now) = three();
        assert_eq!(tokens.pick(now).unwrap(), 0);
        for (index, left) in [(0, 10), (1, 4000), (2, 4000)] {
            tokens.answered(index, quota(left, now));
        }
        assert_eq!(tokens.pick(now).unwrap(), 1);
        assert_eq!(tokens.quota(now).remaining, Some(8010));
        tokens.limited(1, None, now);
        let throttled = tokens.quota(now);
        assert_eq!(throttled.remaining, Some(4010));
        assert_eq!(throttled.limit, Some(15_000));
        let end = now + SignedDuration::from_mins(1);
        assert_eq!(throttled.resets_at, Some(end));
        assert_eq!(tokens.quota(end).remaining, Some(8010));
        assert_eq!(tokens.pick(now).unwrap(), 2);
        tokens.answered(2, quota(0, now));
        assert_eq!(tokens.pick(now).unwrap(), 0);
        tokens.refused(0, now);
        assert!(
            tokens
                .complaint(now)
                .unwrap()
                .starts_with("access token 1 of 3")
        );
        // One is paused for a minute, one has used up its period.
        let Err(GitHubError::RateLimited { retry_after, .. }) = tokens.pick(now) else {
            panic!("none is left");
        };
        assert_eq!(retry_after, Some(Duration::from_mins(1)));
        let later = now + SignedDuration::from_mins(1);
        assert_eq!(tokens.pick(later).unwrap(), 1);
    }

    #[test]
    fn requests_that_are_left_last_until_there_are_more() {
        let (tokens, now) = three();
        assert_eq!(tokens.pace(now), Duration::ZERO);
        for index in [0, 1, 2] {
            tokens.answered(index, quota(60, now));
        }
        assert_eq!(tokens.pace(now), Duration::from_secs(30));
        tokens.failed(1, Quota::default());
        tokens.failed(1, quota(45, now));
        tokens.failed(0, quota(30, now));
        tokens.failed(2, quota(0, now));
        assert_eq!(tokens.pace(now), Duration::from_secs(40));
        assert_eq!(
            tokens.pace(now + SignedDuration::from_hours(1)),
            Duration::ZERO
        );
    }

    #[test]
    fn pauses_grow_until_an_answer_comes() {
        let (tokens, now) = three();
        for index in [0, 1, 2] {
            tokens.limited(index, None, now);
            tokens.limited(index, None, now);
        }
        assert_eq!(tokens.wait(1, now), Duration::from_mins(2));
        tokens.answered(1, Quota::default());
        assert_eq!(tokens.wait(1, now), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_pause_longer() {
        let (tokens, now) = three();
        let before = now - SignedDuration::from_hours(24 * 30);
        for index in [0, 1, 2] {
            tokens.limited(index, None, now);
        }
        assert_eq!(tokens.wait(1, before), Duration::from_mins(1));
        tokens.refused(0, now);
        assert_eq!(tokens.complaint(before), None);
        assert!(tokens.complaint(now).is_some());
    }

    #[test]
    fn when_all_were_refused_the_first_is_tried_again() {
        let (tokens, now) = three();
        tokens.refused(1, now);
        tokens.refused(0, now + SignedDuration::from_secs(1));
        tokens.refused(2, now + SignedDuration::from_secs(2));
        assert!(!tokens.has_other(now));
        assert_eq!(tokens.pick(now + SignedDuration::from_secs(3)).unwrap(), 1);
    }
}
