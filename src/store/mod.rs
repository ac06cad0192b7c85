//! The database: SQLite or PostgreSQL behind one enum, one SQL text per operation.
