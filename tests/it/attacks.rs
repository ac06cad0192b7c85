<<<<<<< HEAD
//! What somebody from outside, or a fault, may do to Rescind. Each test is an attack that worked once, or that
//! must not begin to.

mod local;
mod records;
=======
//! What an attacker or a fault would do, and what has to hold all the same.

mod database;
>>>>>>> 94f9f40 (Attack the database: full, frozen, locked, flooded)
