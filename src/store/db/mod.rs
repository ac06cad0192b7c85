//! Access to the database: connections, transactions, statements and their errors, the same for SQLite and PostgreSQL.

pub(super) mod access;
mod address;
pub(super) mod connect;
pub(super) mod damage;
pub(super) mod error;
pub(super) mod files;
pub(super) mod gate;
pub(super) mod ground;
pub(super) mod idle;
pub(super) mod marker;
pub(super) mod migrate;
pub(super) mod order;
pub(super) mod others;
pub(super) mod page;
pub(super) mod pieces;
pub(super) mod pool;
pub(super) mod read;
pub(super) mod ready;
pub(super) mod retry;
pub(super) mod session;
pub(super) mod space;
pub(super) mod sql;
pub(super) mod statements;
pub(super) mod tx;
pub(super) mod wal;
pub(super) mod whole;
