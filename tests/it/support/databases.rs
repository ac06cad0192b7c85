//! Fresh databases of either kind for every test: a SQLite file, or a separate database in the PostgreSQL cluster
//! that `./test.sh` starts.

use rescind::keyformat::Peppers;
use rescind::store::{Store, StoreOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

/// Kind of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// Empty database. [`TestDatabase::remove`] deletes it.
pub(crate) struct TestDatabase {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    name: String,
    folder: TempDir,
}

impl TestDatabase {
    /// Creates an empty database.
    pub(crate) async fn new(kind: Kind) -> Self {
        Self::with(kind, "").await
    }

    /// Creates an empty database on PostgreSQL with further clauses of `CREATE DATABASE`.
    pub(crate) async fn postgres_with(clauses: &str) -> Self {
        Self::with(Kind::Postgres, clauses).await
    }

    async fn with(kind: Kind, clauses: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let name = format!("rescind_{}", Uuid::now_v7().simple());
        let url = match kind {
            Kind::Sqlite => format!("sqlite://{}/rescind.db", folder.path().display()),
            Kind::Postgres => {
                let mut admin = admin().await;
                admin
                    .execute(AssertSqlSafe(format!("CREATE DATABASE {name} {clauses}")))
                    .await
                    .expect("a new database");
                let (cluster, _) = admin_url_parts();
                format!("{cluster}/{name}")
            }
        };
        Self {
            kind,
            url,
            name,
            folder,
        }
    }

    /// Returns the folder of the SQLite file, or an empty folder for PostgreSQL.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Opens the database, migrated and without peppers.
    pub(crate) async fn store(&self) -> Store {
        self.store_with(&[]).await
    }

    /// Opens the database, migrated and with these peppers, of which the first is the current one.
    pub(crate) async fn store_with(&self, peppers: &[&str]) -> Store {
        let mut options = StoreOptions::new(self.url.clone());
        options.peppers = Peppers::new(peppers.iter().map(|&pepper| pepper.into()).collect());
        let store = Store::open(options).await.expect("an open database");
        store.migrate().await.expect("a migrated database");
        store
    }

    /// Creates the schema as of the migration `last`.
    pub(crate) async fn migrate_to(&self, last: i64) {
        use sqlx::migrate::{Migration, MigrationType, Migrator};
        use sqlx::{ConnectOptions as _, SqlSafeStr as _};
        let kind = match self.kind {
            Kind::Sqlite => "sqlite",
            Kind::Postgres => "postgres",
        };
        let folder = format!("{}/src/store/migrations/{kind}", env!("CARGO_MANIFEST_DIR"));
        let mut migrations = Vec::new();
        for file in std::fs::read_dir(folder).expect("the migrations") {
            let path = file.expect("a file").path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let (version, name) = stem.and_then(|stem| stem.split_once('_')).expect("a name");
            let (version, name) = (version.parse().expect("a number"), name.to_owned());
            let sql = std::fs::read_to_string(&path).expect("statements");
            let sql = AssertSqlSafe(sql).into_sql_str();
            let kind = MigrationType::Simple;
            migrations.push(Migration::new(version, name.into(), kind, sql, false));
        }
        migrations.retain(|migration| migration.version <= last);
        migrations.sort_by_key(|migration| migration.version);
        let migrator = Migrator::with_migrations(migrations);
        let done = match self.kind {
            Kind::Sqlite => {
                let options: sqlx::sqlite::SqliteConnectOptions = self.url.parse().expect("a URL");
                let opened = options.create_if_missing(true).connect().await;
                let mut connection = opened.expect("an open database");
                migrator.run_direct(None, &mut connection, false).await
            }
            Kind::Postgres => {
                let opened = PgConnection::connect(&self.url).await;
                let mut connection = opened.expect("an open database");
                migrator.run_direct(None, &mut connection, false).await
            }
        };
        done.expect("a migrated database");
    }

    /// Runs a statement on a connection of its own, bypassing the program.
    pub(crate) async fn run(&self, sql: &str) -> Result<u64, sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        Ok(match self.kind {
            Kind::Sqlite => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await?;
                connection.execute(sql).await?.rows_affected()
            }
            Kind::Postgres => {
                let mut connection = PgConnection::connect(&self.url).await?;
                connection.execute(sql).await?.rows_affected()
            }
        })
    }

    /// Returns the number selected by a query, on a connection of its own, bypassing the program.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.kind {
            Kind::Sqlite => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut connection).await
            }
            Kind::Postgres => {
                let mut connection = PgConnection::connect(&self.url).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut connection).await
            }
        }
        .expect("a number")
    }

    /// Removes the database. After a failed test, it remains for as long as the cluster.
    pub(crate) async fn remove(self) {
        if self.kind == Kind::Postgres {
            let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
            admin()
                .await
                .execute(AssertSqlSafe(drop))
                .await
                .expect("the database goes");
        }
    }
}

fn admin_url() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests have no configuration: the script hands them the cluster in the environment"
    )]
    std::env::var("RESCIND_TEST_POSTGRES").expect(
        "RESCIND_TEST_POSTGRES names no PostgreSQL cluster: run ./test.sh, which starts one",
    )
}

/// Returns the URL of the cluster, and the database to connect to in order to create others.
fn admin_url_parts() -> (String, String) {
    let url = admin_url();
    let (cluster, database) = url.rsplit_once('/').expect("a URL that ends in a database");
    (cluster.to_owned(), database.to_owned())
}

async fn admin() -> PgConnection {
    PgConnection::connect(&admin_url())
        .await
        .expect("the PostgreSQL cluster of ./test.sh answers")
}

/// Declares test cases that run on both kinds of database, as `case::sqlite` and `case::postgres`.
macro_rules! on_both_databases {
    ($($(#[$meta:meta])* async fn $case:ident($database:ident) $body:block)*) => {$(
        mod $case {
            #[allow(clippy::wildcard_imports, unused_imports, clippy::allow_attributes, reason = "a case sees what its file sees")]
            use super::*;

            $(#[$meta])*
            async fn case($database: &$crate::support::databases::TestDatabase) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let database = $crate::support::databases::TestDatabase::new(
                    $crate::support::databases::Kind::Sqlite).await;
                case(&database).await;
                database.remove().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let database = $crate::support::databases::TestDatabase::new(
                    $crate::support::databases::Kind::Postgres).await;
                case(&database).await;
                database.remove().await;
            }
        }
    )*};
}
pub(crate) use on_both_databases;
