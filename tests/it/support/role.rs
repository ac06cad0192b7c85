//! A role of PostgreSQL that is no superuser, with a database.

use rescind::store::{Store, StoreOptions};

use super::databases::{Kind, TestDatabase};

/// A database, and a role that may do with it what it is granted.
pub(crate) struct WithRole {
    pub(crate) database: TestDatabase,
    pub(crate) role: String,
    /// URL of the database for that role.
    pub(crate) url: String,
}

impl WithRole {
    /// Creates a database that belongs to a new role with these clauses of `CREATE ROLE`.
    pub(crate) async fn owning(clauses: &str) -> Self {
        let with_role = Self::new(clauses).await;
        let (_, name) = with_role.database.url.rsplit_once('/').expect("a name");
        let owned = format!("ALTER DATABASE {name} OWNER TO {}", with_role.role);
        with_role.run(&owned).await;
        with_role
    }

    /// Creates a database, and a role with these clauses of `CREATE ROLE` that may connect to it.
    pub(crate) async fn new(clauses: &str) -> Self {
        let database = TestDatabase::new(Kind::Postgres).await;
        let (start, name) = database.url.rsplit_once('/').expect("a name");
        let (_, server) = start.split_once('@').expect("a server");
        let role = format!("role_{name}");
        let url = format!("postgres://{role}@{server}/{name}");
        let with_role = Self {
            database,
            role,
            url,
        };
        let made = format!("CREATE ROLE {} LOGIN {clauses}", with_role.role);
        with_role.run(&made).await;
        with_role
    }

    /// Runs a statement as a superuser.
    pub(crate) async fn run(&self, sql: &str) {
        let ran = self.database.run(sql).await;
        ran.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Opens the database as the role, migrated.
    pub(crate) async fn store(&self) -> Store {
        let opened = Store::open(StoreOptions::new(self.url.clone())).await;
        let store = opened.expect("an open database");
        store.migrate().await.expect("a migrated database");
        store
    }

    /// Removes the database and the role.
    pub(crate) async fn remove(self) {
        let Self { database, role, .. } = self;
        let gone = format!(
            "REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}"
        );
        database.run(&gone).await.expect("the role goes");
        database.remove().await;
    }
}
