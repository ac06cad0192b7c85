//! Sizes of everything that an outsider can have kept in memory.
//!
//! Whatever comes in, with default limits no more than [`TOTAL`] is resident. Each part of the program that holds what
//! others sent has a room of its own, and takes its size from here; this is where they are added up.

/// One mebibyte.
pub(crate) const MIB: usize = 1 << 20;

/// Maximum resident memory, in bytes.
pub(crate) const TOTAL: usize = 256 * MIB;

/// Memory of the program itself, in bytes, as measured: 24 MiB of its file, the heap of a daemon at rest, the list of
/// scanned files without a key, statements that were prepared, and what is known of senders and hosts.
const PROGRAM: usize = 40 * MIB;

/// Maximum number of connections, of momentary ones in addition, and memory of one whose request has begun, in
/// bytes, as measured.
pub(crate) const CONNECTIONS: usize = 1024;
pub(crate) const MOMENTARY_CONNECTIONS: usize = 64;
const CONNECTION: usize = 20 << 10;

/// Large heads of requests whose bodies are waited for, of anybody and in addition of clients that proved themselves.
pub(crate) const HEADS_OF_ANYBODY: usize = 3 * MIB;
pub(crate) const HEADS_OF_KNOWN: usize = MIB;

/// Bodies of requests: up to 8 KiB, up to 64 KiB, and larger ones, of which one may have 25 MiB.
pub(crate) const TINY_BODIES: usize = 4 * MIB;
pub(crate) const SMALL_BODIES: usize = 8 * MIB;
pub(crate) const LARGE_BODIES: usize = 27 * MIB;

/// Room for the work on bodies up to 64 KiB that are genuine, and on larger ones. A report of 25 MiB and 100,000 rows
/// takes up to 33 MiB beside its body.
pub(crate) const SMALL_WORK: usize = 12 * MIB;
pub(crate) const LARGE_WORK: usize = 36 * MIB;

/// Answers that were not read yet: lists and details, and those to reports.
pub(crate) const LISTS: usize = 6 * MIB;
pub(crate) const ANSWERS: usize = 8 * MIB;

/// Exports of the revocation log at a time, and what is kept of each that is not read yet: a piece that is being written
/// and the entries behind it, of which the last one may have 16 KiB.
pub(crate) const EXPORTS: usize = 8;
pub(crate) const EXPORTED_AT_ONCE: usize = 64 << 10;
const EXPORT: usize = 2 * EXPORTED_AT_ONCE + (16 << 10);

/// Answers of APIs that are polled: those up to 1 MiB, and a single larger one.
pub(crate) const PAGES: usize = 6 * MIB;
pub(crate) const LARGE_PAGE: usize = 8 * MIB;

/// Packs of pushes: the size of one, and how many there are.
pub(crate) const SMALL_PACK: usize = MIB;
pub(crate) const SMALL_PACKS: usize = 16;
pub(crate) const SMALL_PACKS_APART: usize = 4;
pub(crate) const MEDIUM_PACK: usize = 8 * MIB;
pub(crate) const MEDIUM_PACKS: usize = 2;
pub(crate) const LARGE_PACK: usize = 32 * MIB;

/// Room for the work on a pack: on each, and on a single one at a time. The latter is enough for a file of 32 MiB, the
/// largest that is read, and the paths of a large repository.
pub(crate) const LIGHT_VISIT: usize = MIB;
pub(crate) const HEAVY_VISIT: usize = 36 * MIB;

/// Names of the references of a repository, if they are long, and room for the work on those of all repositories that
/// are polled: 50,000 references take all of it.
pub(crate) const REFERENCES: usize = 4 * MIB;
pub(crate) const COMPARED_REFERENCES: usize = 12 * MIB;

/// Cache of the connection that writes to SQLite, and of each one that reads.
pub(crate) const WRITER_CACHE: usize = 7 * MIB;
pub(crate) const READER_CACHE: usize = MIB;
pub(crate) const READERS: usize = 6;

/// Log lines that nobody reads.
pub(crate) const LOG: usize = MIB;

/// Sum of all that is kept while somebody or something is waited for: senders, servers, readers.
const KEPT: usize = PROGRAM
    + (CONNECTIONS + MOMENTARY_CONNECTIONS) * CONNECTION
    + (HEADS_OF_ANYBODY + HEADS_OF_KNOWN)
    + (TINY_BODIES + SMALL_BODIES + LARGE_BODIES)
    + (LISTS + ANSWERS + EXPORTS * EXPORT)
    + (PAGES + LARGE_PAGE)
    + (SMALL_PACKS + SMALL_PACKS_APART) * SMALL_PACK
    + MEDIUM_PACKS * MEDIUM_PACK
    + LARGE_PACK
    + REFERENCES
    + (WRITER_CACHE + READERS * READER_CACHE)
    + LOG;

/// Sum of all that is made of what is kept, while somebody works on it.
const MADE: usize = (SMALL_WORK + LARGE_WORK)
    + COMPARED_REFERENCES
    + (SMALL_PACKS + SMALL_PACKS_APART) * LIGHT_VISIT
    + HEAVY_VISIT;

const fn largest(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

/// All that is kept, and the largest thing that is made of it.
const _: () = assert!(KEPT + largest(LARGE_WORK, HEAVY_VISIT) <= TOTAL);

/// The work takes no more than its rooms for moments, and each of them is for the worst that it may hold. With all
/// of these full to the brim at the same moment, this much would be missing.
const _: () = assert!(KEPT + MADE <= TOTAL + 80 * MIB);
