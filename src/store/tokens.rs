//! Access tokens of Rescind itself: kept like keys, by their digests.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::order::Locks;
use super::page::{Conditions, Page, PageRequest, position};
use super::sql::{Arg, Fields, LIST_MAX, args, one, pad, statements};
use super::{Read, Store, StoreError, Tx};
use crate::keyformat::{Sha256Digest, StoredDigest};

/// What an access token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Issues and manages keys: the provider's own back end.
    Issuer,
    /// Works on incidents.
    Operator,
    /// Reads.
    Viewer,
    /// Reports leaks only.
    Reporter,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [
        Self::Admin,
        Self::Issuer,
        Self::Operator,
        Self::Viewer,
        Self::Reporter,
    ];

    /// The role's name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Issuer => "issuer",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Reporter => "reporter",
        }
    }

    /// Reads a role's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// An access token as the database knows it: everything but its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// A version 7 UUID.
    pub id: Uuid,
    /// The project it acts in.
    pub project: String,
    /// What it may do.
    pub role: Role,
    /// What it is for, in its maker's words.
    pub description: String,
    /// What it shows redacted before the `…`.
    pub prefix: String,
    /// The value's last four characters.
    pub last_four: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; never, if absent.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    /// Whether the token is accepted at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }
}

/// An access token to be stored.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// A version 7 UUID.
    pub id: Uuid,
    /// The project it acts in, made if need be.
    pub project: String,
    /// SHA-256 of its value.
    pub digest: Sha256Digest,
    /// What it may do.
    pub role: Role,
    /// What it is for, in its maker's words.
    pub description: String,
    /// What it shows redacted before the `…`.
    pub prefix: String,
    /// The value's last four characters.
    pub last_four: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; never, if absent.
    pub expires_at: Option<Timestamp>,
}

macro_rules! token_columns {
    () => {
        "id, project, role, description, prefix, last_four, created_at, expires_at, revoked_at"
    };
}

statements! {
    INSERT = "INSERT INTO tokens (id, project, digest, role, description, prefix, last_four,
            created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (digest) DO NOTHING";
    BY_DIGESTS = concat!("SELECT digest, ", token_columns!(), " FROM tokens WHERE digest IN ({list:1})");
    REWRITE = "UPDATE tokens SET digest = $1 WHERE id = $2 AND digest = $3";
    BY_ID = concat!("SELECT ", token_columns!(), " FROM tokens WHERE id = $1");
    REVOKE = "UPDATE tokens SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL";
    ANY = "SELECT COUNT(*) FROM (SELECT 1 FROM tokens LIMIT 1) AS first";
    /// Two first starts at once take turns here, since both write this row. It is the last in the order of
    /// locks, but what such a transaction adds next is its own, so that nobody waits for it.
    BOOTSTRAP_LOCK = "UPDATE log_head SET seq = seq WHERE id = 1";
}

fn token(row: &mut Fields<'_>) -> Result<Token, StoreError> {
    Ok(Token {
        id: row.uuid()?,
        project: row.next()?,
        role: row.word(Role::parse)?,
        description: row.next()?,
        prefix: row.next()?,
        last_four: row.next()?,
        created_at: row.time()?,
        expires_at: row.optional_time()?,
        revoked_at: row.optional_time()?,
    })
}

impl Store {
    /// The access token whose value has this digest, valid or not.
    ///
    /// # Errors
    /// Any [`StoreError`] of a read.
    pub async fn find_token(&self, digest: &Sha256Digest) -> Result<Option<Token>, StoreError> {
        Ok(self
            .find_tokens(std::slice::from_ref(digest))
            .await?
            .remove(digest))
    }

    /// The access tokens whose values have these digests. One stored under a retired pepper is
    /// rewritten to the current one.
    ///
    /// # Errors
    /// Any [`StoreError`] of a read.
    pub async fn find_tokens(
        &self,
        digests: &[Sha256Digest],
    ) -> Result<HashMap<Sha256Digest, Token>, StoreError> {
        let mut forms = HashMap::with_capacity(digests.len());
        for digest in digests {
            for (rank, form) in self.0.peppers.lookups(digest).into_iter().enumerate() {
                forms.insert(form, (rank, *digest));
            }
        }
        let all: Vec<StoredDigest> = forms.keys().copied().collect();
        let mut found = HashMap::new();
        let mut read = self;
        for chunk in all.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            let rows = read
                .fetch(BY_DIGESTS.of(n), args, |row| {
                    Ok((StoredDigest(row.digest()?), token(row)?))
                })
                .await?;
            for (form, token) in rows {
                let Some((rank, digest)) = forms.get(&form) else {
                    continue;
                };
                if *rank > 0
                    && let Err(error) = self
                        .in_passing(self.rewrite_token(&token, form, digest))
                        .await
                {
                    tracing::warn!(%error, token = %token.id, "an access token stays under a retired pepper");
                }
                found.insert(*digest, token);
            }
        }
        Ok(found)
    }

    async fn rewrite_token(
        &self,
        token: &Token,
        found: StoredDigest,
        digest: &Sha256Digest,
    ) -> Result<(), StoreError> {
        let current = self.0.peppers.stored(digest);
        let mut tx = self.begin().await?;
        tx.execute(REWRITE, args![current, token.id, found]).await?;
        tx.commit().await
    }

    /// Access tokens, newest first; of one project, or of all.
    ///
    /// # Errors
    /// [`StoreError::Cursor`], and any [`StoreError`] of a read.
    pub async fn list_tokens(
        &self,
        project: Option<&str>,
        request: &PageRequest,
    ) -> Result<Page<Token>, StoreError> {
        let mut conditions = Conditions::new();
        if let Some(project) = project {
            conditions.and("project = ?", args![project]);
        }
        if let Some((at, id)) = request.after()? {
            conditions.and("(created_at, id) < (?, ?)", args![at, id]);
        }
        let (sql, args) = conditions.finish(
            concat!("SELECT ", token_columns!(), " FROM tokens"),
            "ORDER BY created_at DESC, id DESC",
            request.fetch(),
        );
        let mut read = self;
        let tokens = read.fetch(sql, args, token).await?;
        Ok(request.page(tokens, |token| position(token.created_at, token.id)))
    }

    /// Whether any access token was ever made.
    ///
    /// # Errors
    /// Any [`StoreError`] of a read.
    pub async fn any_token_exists(&self) -> Result<bool, StoreError> {
        let mut read = self;
        any_token(&mut read).await
    }
}

async fn any_token(read: &mut impl Read) -> Result<bool, StoreError> {
    let count = read.fetch_first(ANY, args![], one::count).await?;
    Ok(count.unwrap_or(0) > 0)
}

impl Tx {
    /// Stores a new access token.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when the same value is stored already.
    pub async fn insert_token(&mut self, new: NewToken) -> Result<Token, StoreError> {
        self.ensure_project(&new.project).await?;
        self.locks(Locks::Tokens);
        let digest = self.store.0.peppers.stored(&new.digest);
        let args = args![
            new.id,
            &new.project,
            digest,
            new.role.as_str(),
            &new.description,
            &new.prefix,
            &new.last_four,
            new.created_at,
            new.expires_at
        ];
        if self.execute(INSERT, args).await? == 0 {
            return Err(StoreError::Exists("an access token with this value"));
        }
        Ok(Token {
            id: new.id,
            project: new.project,
            role: new.role,
            description: new.description,
            prefix: new.prefix,
            last_four: new.last_four,
            created_at: super::key::micros(new.created_at),
            expires_at: new.expires_at.map(super::key::micros),
            revoked_at: None,
        })
    }

    /// Stores the very first access token; `None` when there is one already. Of any number of first
    /// starts at once, one gets its token in.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn bootstrap_token(&mut self, new: NewToken) -> Result<Option<Token>, StoreError> {
        self.execute(BOOTSTRAP_LOCK, args![]).await?;
        if any_token(self).await? {
            return Ok(None);
        }
        self.insert_token(new).await.map(Some)
    }

    /// Revokes an access token; gives it as it is now, or `None` when there is none with this
    /// identifier. The first revocation's time stays.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub async fn revoke_token(
        &mut self,
        id: Uuid,
        at: Timestamp,
    ) -> Result<Option<Token>, StoreError> {
        self.locks(Locks::Tokens);
        self.execute(REVOKE, args![at, id]).await?;
        self.fetch_first(BY_ID, args![id], token).await
    }

    /// Revokes an access token that was seen where it does not belong; whether it was not revoked before.
    ///
    /// # Errors
    /// Any [`StoreError`] of a change.
    pub(crate) async fn revoke_leaked_token(
        &mut self,
        id: Uuid,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.locks(Locks::Tokens);
        Ok(self.execute(REVOKE, args![at, id]).await? > 0)
    }
}
