//! What held under attack and under faults, and has to go on holding: hang-ups, races, several daemons on one
//! database, a database that goes away, requests of any shape, projects that must not see each other.

mod fleet;
mod projects;
mod races;
mod requests;
mod resets;
