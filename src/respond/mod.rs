//! Candidate to key to incident to revocation to log entry, in one transaction.
