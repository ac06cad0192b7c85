//! What an attacker or a fault would do, and what has to hold all the same.

mod records;
