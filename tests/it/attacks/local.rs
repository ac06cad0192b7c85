//! Attacks by what is scanned or imported: repositories whose configuration names programs, names of files that
//! fool a terminal, ignore files and tables without an end.

#[cfg(unix)]
mod endless;
#[cfg(unix)]
mod ignored;
#[cfg(unix)]
mod names;
#[cfg(unix)]
mod repositories;
mod tables;
