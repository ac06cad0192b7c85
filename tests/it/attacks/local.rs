//! Attacks by what is scanned or imported: repositories whose configuration names programs, names of files that
//! fool a terminal, tables without an end.

#[cfg(unix)]
mod names;
#[cfg(unix)]
mod repositories;
mod tables;
