//! Issuance of keys and access tokens: minting, changing, rotating and importing them.

mod import;
mod tokens;

pub use import::{COLUMNS, ImportRow, RowError, RowFormat, UNNAMED_FORMAT, parse_rows};
pub use tokens::{FirstToken, MintTokenError, Show, mint_token};
