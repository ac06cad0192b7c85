//! Guarantees that held under attacks and faults, and must keep holding: clients that hang up, races, several daemons
//! on one database, a database that goes away, requests of any shape, projects that must not see each other.

mod fleet;
mod projects;
mod races;
mod requests;
mod resets;
