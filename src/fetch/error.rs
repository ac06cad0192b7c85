//! Failures between a push and its texts, distinguished by what the caller should do about them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use thiserror::Error;

use super::token::Token;

/// End of a text in a message that was cut there. Whoever keeps the message has to look for the beginning of a key in
/// front of it.
pub(crate) const CUT: &str = "[…]";

/// Returns the characters of base64 that stand for `text` alone where `before` bytes precede it in its group of three.
fn within_base64(text: &str, before: usize) -> String {
    let encoded = STANDARD_NO_PAD.encode([&" ".repeat(before), text].concat());
    // The first and the last character may have bits of what is beside the text.
    let start = (before * 8).div_ceil(6);
    let end = (before + text.len()) * 8 / 6;
    encoded.get(start..end).unwrap_or_default().to_owned()
}

/// Error returned when a range could not be fetched. No message contains contents of a repository.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The repository does not exist (404, 410) or may not be shown (451). Retrying is pointless.
    #[error("the repository is gone or not public any more (HTTP {status})")]
    Gone {
        /// HTTP status code.
        status: u16,
    },
    /// The server no longer has the pushed commit: the branch was deleted or force-pushed, and the commit
    /// was garbage-collected.
    #[error("the server no longer has the pushed commit")]
    CommitGone,
    /// The server requires credentials (401) or rejects those it received (403). Without a token GitHub
    /// gives this answer for every repository that is not public.
    #[error(
        "the server refuses access (HTTP {status}); check the source's token if it should be allowed"
    )]
    Unauthorized {
        /// HTTP status code.
        status: u16,
    },
    /// The client is throttled (429, or 403 with rate-limit headers).
    #[error("the server asks to slow down (HTTP {status})")]
    RateLimited {
        /// HTTP status code.
        status: u16,
        /// Time to wait according to the server, if it states one.
        retry_after: Option<Duration>,
    },
    /// Any other HTTP status that is not 200.
    #[error("the server answered HTTP {status}")]
    Server {
        /// HTTP status code.
        status: u16,
    },
    /// The connection to the server could not be established.
    #[error("the connection failed: {0}")]
    Unreachable(String),
    /// The address of the server is one that only the configuration may name.
    #[error("the connection failed: {0}")]
    NotAdmitted(String),
    /// The connection was closed before any answer came.
    #[error("the server closed the connection without an answer: {0}")]
    Unanswered(String),
    /// The connection broke.
    #[error("the connection failed: {0}")]
    Network(String),
    /// The server sent nothing for too long.
    #[error("the server sent nothing for {seconds} s")]
    Stalled {
        /// Time waited, in seconds.
        seconds: u64,
    },
    /// The server kept sending, but too slowly, or did not finish before the deadline.
    #[error("the server sends too slowly: the fetch was given up after {seconds} s")]
    TooSlow {
        /// Time waited, in seconds.
        seconds: u64,
    },
    /// The server, or reading what it sent, takes longer than others can be kept waiting for the place.
    /// The push is to be fetched in a lane for slower ones.
    #[error(
        "others wait, and it takes longer than its place allows: the push goes on among slower ones after {seconds} s"
    )]
    Outpaced {
        /// Time waited, in seconds.
        seconds: u64,
    },
    /// The push is larger than its place allows, and no larger place is free.
    #[error("the push is larger than its place allows, and waits for its turn among larger ones")]
    Busy,
    /// The same of a push that was received to its end, without being kept, and fits the next larger place.
    #[error("the push is larger than its place allows, and waits for its turn among larger ones")]
    SizedBusy,
    /// The same of the largest place.
    #[error("the push is larger than its place allows, and waits for its turn among the largest")]
    LargeBusy,
    /// The answers of other servers left no room for this one, or waited for the room that it had.
    #[error("the answers of other servers take all room for answers")]
    Crowded,
    /// The answer is not git's protocol.
    #[error("the server does not speak git's protocol as expected: {0}")]
    Protocol(&'static str),
    /// The server answered with nothing at all. Git's own does so when it is asked for what it does not know.
    #[error("the server's answer is empty")]
    Empty,
    /// The server reported an error of its own.
    #[error("the git server reports: {0}")]
    Refused(String),
    /// The pack is corrupt.
    #[error("the pack is damaged: {0}")]
    Corrupt(&'static str),
    /// The caller could not tell what counts as read.
    #[error("what was read before could not be looked up: {0}")]
    Undecided(String),
    /// The pushed commit has a name by another hash function than the objects of the repository. That says nothing of
    /// the repository: only whoever announced the commit is wrong.
    #[error(
        "the pushed commit has {digits} digits, and the objects of the repository have names of another length"
    )]
    OtherHash {
        /// Number of hexadecimal digits of the pushed commit.
        digits: usize,
    },
    /// The work item names something that cannot be requested.
    #[error("the pushed range cannot be asked for: {0}")]
    BadRequest(&'static str),
}

impl FetchError {
    /// Returns the error without the token that was sent, which a server may tell of: whoever reads the log need not know
    /// it.
    pub(super) fn without(self, token: Option<&Token>) -> Self {
        let (Self::Refused(said), Some(token)) = (&self, token.map(Token::expose)) else {
            return self;
        };
        // Base64 has three forms of it, by the number of characters in front of it: the credentials are one of them.
        let is_told = said.contains(token)
            || (0..3).any(|before| said.contains(&within_base64(token, before)));
        if is_told {
            return Self::Refused("(a message that holds the token that it was sent)".to_owned());
        }
        self
    }

    /// Returns whether the server cannot be reached, or fails, at the moment: it said nothing about the request itself,
    /// nor about when to come again.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Server { status } => *status >= 500,
            Self::Unreachable(_)
            | Self::NotAdmitted(_)
            | Self::Unanswered(_)
            | Self::Network(_)
            | Self::Stalled { .. }
            | Self::TooSlow { .. }
            | Self::Crowded
            | Self::Protocol(_)
            | Self::Empty => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::super::token::TokenUser;
    use super::*;

    #[test]
    fn no_message_tells_the_token_that_was_sent() {
        let token = |user| Token::new(user, "ghs_0123456789abcdefghijABCDEFGHIJ".into());
        let token = token(TokenUser::Itself);
        let plain = token.expose();
        let said = |text: String| FetchError::Refused(text).without(Some(&token)).to_string();
        for told in [
            format!("bad credentials: {plain}"),
            STANDARD.encode(format!("x-access-token:{plain}")),
            STANDARD.encode(plain),
            STANDARD.encode(format!("a:{plain}!")),
            STANDARD.encode(format!("user:{plain} and more")),
            STANDARD.encode(format!("u:{plain}")),
        ] {
            let shown = said(told.clone());
            assert!(!shown.contains(&told) && shown.contains("token"), "{shown}");
        }
        assert!(said("access denied".to_owned()).contains("access denied"));
        let none = FetchError::Refused(plain.to_owned()).without(None);
        assert!(none.to_string().contains(plain));
    }
}
