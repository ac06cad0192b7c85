//! Work items as rows of the database.

use super::super::StoreError;
use super::super::db::sql::Row;
use super::item::{Lane, Lineage, NewWorkItem, Part, Priority, WorkItem, WorkKind};

macro_rules! item_columns {
    () => {
        "id, kind, host, repository_id, repository, clone_url, ref_name, before_id, after_id, source, \
         priority, event_at, created_at, tries, lane, deaths, origin, generation, parts_left, bytes_left, denials, \
         haves, dropped"
    };
}

/// Number of deaths of an item without the exemption of its current holder: see [`deaths`].
macro_rules! counted {
    () => {
        "CASE WHEN deaths < 0 THEN -1 - deaths ELSE deaths END"
    };
}

/// Statement that takes the items back whose lease expired while another worker held them without beginning them, or was
/// excused: as if they had been given back. Returns what `$returning` names.
macro_rules! give_back {
    ($returning:literal) => {
        concat!(
            "WITH picked AS (SELECT id AS picked_id FROM work_items
                WHERE leased_by IS NOT NULL AND leased_by <> $1 AND state = 'waiting'
                    AND ready_at <= {now} AND deaths < 0 {for update skip locked})
            UPDATE work_items SET leased_by = NULL, tries = tries - 1, ready_at = 0, deaths = ",
            counted!(),
            "
            WHERE id IN (SELECT picked_id FROM picked)",
            $returning
        )
    };
}

/// The items of a statement that sources named, given their coordinates. SQLite finds no index for several of them in a
/// list.
macro_rules! from_named {
    () => {
        "FROM (VALUES {rows:5}) AS named JOIN work_items AS item ON item.host = named.column1
            AND item.remote = named.column2 AND item.ref_name = named.column3
            AND item.before_id = named.column4 AND item.after_id = named.column5 AND item.part_of = ''"
    };
}

pub(in crate::store) use {counted, from_named, give_back, item_columns};

pub(in crate::store) fn item(row: &Row<'_>) -> Result<WorkItem, StoreError> {
    Ok(WorkItem {
        id: row.uuid("id")?,
        range: NewWorkItem {
            kind: {
                let name: String = row.get("kind")?;
                WorkKind::by_name(&name).ok_or_else(|| {
                    StoreError::row("a work item is of an unknown kind".to_owned())
                })?
            },
            host: row.get("host")?,
            repository_id: row.get("repository_id")?,
            repository: row.get("repository")?,
            clone_url: row.get("clone_url")?,
            ref_name: row.get("ref_name")?,
            before: row.get("before_id")?,
            after: row.get("after_id")?,
            source: row.get("source")?,
            priority: priority(row.get("priority")?),
            event_at: row.time("event_at")?,
        },
        created_at: row.time("created_at")?,
        tries: u32::try_from(row.count("tries")?).unwrap_or(u32::MAX),
        denials: u32::try_from(row.count("denials")?).unwrap_or(u32::MAX),
        lane: {
            let number = row.get("lane")?;
            Lane::from_number(number)
                .ok_or_else(|| StoreError::row(format!("{number} is no lane")))?
        },
        deaths: deaths(row.get("deaths")?),
        lineage: {
            let (origin, generation) = (row.optional_uuid("origin")?, row.count("generation")?);
            let (parts, bytes) = (
                row.optional_count("parts_left")?,
                row.optional_count("bytes_left")?,
            );
            origin.map(|origin| Lineage {
                origin,
                generation: u32::try_from(generation).unwrap_or(u32::MAX),
                parts_left: parts
                    .map_or(u32::MAX, |parts| u32::try_from(parts).unwrap_or(u32::MAX)),
                bytes_left: bytes.unwrap_or(u64::MAX),
            })
        },
        part: {
            let haves: String = row.get("haves")?;
            Part {
                haves: haves.split_whitespace().map(str::to_owned).collect(),
                is_dropped: row.get("dropped")?,
            }
        },
    })
}

/// Returns the number of workers that died while they held an item. A holder that is told to stop turns the stored
/// number into its complement, which exempts its own death. The complement can be set repeatedly, and preserves the
/// number for the next holder.
pub(in crate::store) fn deaths(number: i64) -> u32 {
    let counted = if number < 0 { -1 - number } else { number };
    u32::try_from(counted).unwrap_or(u32::MAX)
}

/// Parses a priority. An invalid number becomes the lowest priority: an item that cannot be read would prevent all
/// others from being taken.
fn priority(number: i64) -> Priority {
    Priority::from_number(number).unwrap_or_else(|| {
        tracing::warn!(
            number,
            "a priority in the database is damaged, the last is taken for it"
        );
        Priority::Backfill
    })
}
