//! Access tokens of Rescind itself. Like keys, they are stored by their digests.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::db::order::Locks;
use super::db::page::{Conditions, Page, PageRequest, position};
use super::db::retry::retried;
use super::db::sql::{Arg, LIST_MAX, Row, args, one, pad, statements};
use super::{Read, Store, StoreError, Tx};
use crate::keyformat::{Definition, Sha256Digest, StoredDigest};

/// Project whose access tokens may read what is shared by all projects: the revocation log is one chain over all of
/// them, and half a chain proves nothing.
pub const DEFAULT_PROJECT: &str = "default";

named! {
    /// Role of an access token.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Role {
        /// Full access.
        Admin = "admin",
        /// Issuing and managing keys. Intended for the provider's own back end.
        Issuer = "issuer",
        /// Read access, revoking keys, and requeuing work items.
        Operator = "operator",
        /// Read access only.
        Viewer = "viewer",
        /// Reporting leaks only.
        Reporter = "reporter",
    }
}

/// An access token as stored in the database: everything but its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Version 7 UUID.
    pub id: Uuid,
    /// Project that the token gives access to.
    pub project: String,
    /// Role of the token.
    pub role: Role,
    /// Purpose of the token, in the words of its creator.
    pub description: String,
    /// Part of the value that a redacted token shows before the `…`.
    pub prefix: String,
    /// Last four characters of the value.
    pub last_four: String,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of expiry. `None` if the token never expires.
    pub expires_at: Option<Timestamp>,
    /// Time of the revocation. `None` if the token has not been revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    /// Returns whether the token is accepted at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }
}

/// An access token to be stored.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Version 7 UUID.
    pub id: Uuid,
    /// Project that the token gives access to. Created if it does not exist.
    pub project: String,
    /// SHA-256 of the value.
    pub digest: Sha256Digest,
    /// Role of the token.
    pub role: Role,
    /// Purpose of the token, in the words of its creator.
    pub description: String,
    /// Part of the value that a redacted token shows before the `…`.
    pub prefix: String,
    /// Last four characters of the value.
    pub last_four: String,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of expiry. `None` if the token never expires.
    pub expires_at: Option<Timestamp>,
    /// Definition of the format in which the token was minted. `None` if that is not known.
    pub definition: Option<Definition>,
}

macro_rules! token_columns {
    () => {
        "id, project, role, description, prefix, last_four, created_at, expires_at, revoked_at"
    };
}

statements! {
    INSERT = "INSERT INTO tokens (id, project, digest, role, description, prefix, last_four,
            created_at, expires_at, pepper, definition)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (digest) DO NOTHING";
    BY_DIGESTS = concat!("SELECT digest, pepper, ", token_columns!(), " FROM tokens WHERE digest IN ({list:1})");
    REWRITE = "UPDATE tokens SET digest = $1, pepper = $4 WHERE id = $2 AND digest = $3";
    BY_ID = concat!("SELECT ", token_columns!(), " FROM tokens WHERE id = $1");
    REVOKE = "UPDATE tokens SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL";
    ANY = "SELECT COUNT(*) FROM (SELECT 1 FROM tokens LIMIT 1) AS first";
    /// Two initial starts at the same time take turns here, since both write this row. It is the last in the lock
    /// order, but whatever such a transaction adds next is its own, so that no other transaction waits for it.
    BOOTSTRAP_LOCK = "UPDATE log_head SET seq = seq WHERE id = 1";
}

fn token(row: &Row<'_>) -> Result<Token, StoreError> {
    Ok(Token {
        id: row.uuid("id")?,
        project: row.get("project")?,
        role: row.word("role", Role::by_name)?,
        description: row.get("description")?,
        prefix: row.get("prefix")?,
        last_four: row.get("last_four")?,
        created_at: row.time("created_at")?,
        expires_at: row.optional_time("expires_at")?,
        revoked_at: row.optional_time("revoked_at")?,
    })
}

impl Store {
    /// Returns the access token whose value has this digest, valid or not.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn find_token(&self, digest: &Sha256Digest) -> Result<Option<Token>, StoreError> {
        Ok(self
            .find_tokens(std::slice::from_ref(digest))
            .await?
            .remove(digest))
    }

    /// Returns the access tokens whose values have these digests. A token that was stored under a retired pepper is
    /// rewritten to the current one, as is one that does not say what it stands under.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read. A rewrite that fails is left to the next look-up.
    pub async fn find_tokens(
        &self,
        digests: &[Sha256Digest],
    ) -> Result<HashMap<Sha256Digest, Token>, StoreError> {
        let mut found = HashMap::new();
        let mut read = self;
        for forms in self.0.peppers.lookups_of(digests, LIST_MAX) {
            let mut args: Vec<Arg> = forms.keys().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            let rows = read
                .fetch(BY_DIGESTS.of(n), args, |row| {
                    let is_unknown = row.get::<Option<i64>>("pepper")?.is_none();
                    Ok((StoredDigest(row.digest("digest")?), is_unknown, token(row)?))
                })
                .await?;
            for (form, is_unknown, token) in rows {
                let Some((rank, digest)) = forms.get(&form) else {
                    continue;
                };
                if (*rank > 0 || is_unknown)
                    && let Err(error) = self
                        .in_passing(self.rewrite_token(&token, form, digest))
                        .await
                {
                    tracing::warn!(%error, token = %token.id, "an access token was not rewritten to the current pepper, will retry");
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
        let pepper = self.0.peppers.current();
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.register_pepper().await?;
            tx.locks(Locks::Tokens);
            let args = args![current, token.id, found, pepper];
            tx.execute(REWRITE, args).await?;
            tx.commit().await
        })
        .await
    }

    /// Returns the access tokens of one project or of all, newest first.
    ///
    /// # Errors
    /// Returns [`StoreError::Cursor`], or any [`StoreError`] of a read.
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

    /// Returns whether any access token was ever created.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
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
    /// Returns [`StoreError::Exists`] if the same value is stored already, or any [`StoreError`] of a change.
    pub async fn insert_token(&mut self, new: NewToken) -> Result<Token, StoreError> {
        self.ensure_project(&new.project).await?;
        self.keep_definitions(new.definition.iter()).await?;
        self.register_pepper().await?;
        self.locks(Locks::Tokens);
        let digest = self.store.0.peppers.stored(&new.digest);
        let args = args![
            new.id,
            &new.project,
            digest,
            new.role.name(),
            &new.description,
            &new.prefix,
            &new.last_four,
            new.created_at,
            new.expires_at,
            self.store.0.peppers.current(),
            new.definition.as_ref().map(Definition::id),
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
            created_at: super::keys::key::micros(new.created_at),
            expires_at: new.expires_at.map(super::keys::key::micros),
            revoked_at: None,
        })
    }

    /// Stores the very first access token. Returns `None` if there is one already. Of any number of concurrent first
    /// starts, exactly one stores its token.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn bootstrap_token(&mut self, new: NewToken) -> Result<Option<Token>, StoreError> {
        self.locks(Locks::Tokens);
        self.execute(BOOTSTRAP_LOCK, args![]).await?;
        if any_token(self).await? {
            return Ok(None);
        }
        self.insert_token(new).await.map(Some)
    }

    /// Revokes an access token. Returns it as it is now, or `None` if there is none with this identifier. The time of
    /// the first revocation is kept.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn revoke_token(
        &mut self,
        id: Uuid,
        at: Timestamp,
    ) -> Result<Option<Token>, StoreError> {
        self.locks(Locks::Tokens);
        self.execute(REVOKE, args![at, id]).await?;
        self.fetch_first(BY_ID, args![id], token).await
    }

    /// Revokes an access token that leaked. Returns whether this revoked it, and the token as it is stored afterward, or
    /// `None` if there is none with this identifier.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub(crate) async fn revoke_leaked_token(
        &mut self,
        id: Uuid,
        at: Timestamp,
    ) -> Result<(bool, Option<Token>), StoreError> {
        self.locks(Locks::Tokens);
        let is_revoked = self.execute(REVOKE, args![at, id]).await? > 0;
        Ok((is_revoked, self.fetch_first(BY_ID, args![id], token).await?))
    }
}
