//! Tables of keys to import that are made to take time or memory.

use std::time::{Duration, Instant};

use rescind::issuer::{RowFormat, parse_rows};
use rescind::keyformat::FormatSet;
use rescind::scan::Redactor;

const HEADER: &str = "sha256,owner_type,owner_id,description\n";

/// More than any of these takes on a busy machine, and less than time in proportion to the square.
const PATIENCE: Duration = Duration::from_secs(15);

fn row(owner: &str) -> String {
    format!("{},user,{owner},\n", "ab".repeat(32))
}

/// Returns the number of good and bad rows. Panics if reading them takes too long.
#[track_caller]
fn read(format: RowFormat, table: &[u8]) -> (usize, usize) {
    let redactor = Redactor::new(&FormatSet::builtin());
    let started = Instant::now();
    let (mut good, mut bad) = (0, 0);
    for row in parse_rows(table, format, &redactor) {
        match row {
            Ok(_) => good += 1,
            Err(error) => {
                assert!(error.to_string().len() < 300, "{error}");
                bad += 1;
            }
        }
    }
    assert!(
        started.elapsed() < PATIENCE,
        "it took {:?}",
        started.elapsed()
    );
    (good, bad)
}

#[test]
fn quotation_marks_that_nobody_closes_cost_a_row_and_no_time() {
    // Each pattern made some reader look at the same lines again and again.
    for pattern in [
        "\"\n\n\n\n\n\n\n\n",
        "\"\"\"\n",
        "a\",b,\"c\n",
        "\"\n\"\"\n\"\"\n",
        "x,\"\n",
        "\",\"\"\n",
        "\"\n",
        "\n",
        "\"",
    ] {
        let table = format!("{HEADER}{}", pattern.repeat((256 << 10) / pattern.len()));
        let (good, _) = read(RowFormat::Csv, table.as_bytes());
        assert_eq!(good, 0, "{pattern:?}");
    }
    // One quotation mark, then as many lines as one row may have bytes, over and over.
    let stretch = format!("\"{}", "\n".repeat(66 << 10));
    let table = format!("{HEADER}{}{}", stretch.repeat(8), row("last"));
    assert_eq!(read(RowFormat::Csv, table.as_bytes()), (1, 8));
}

#[test]
fn a_bad_row_costs_no_other() {
    let mut table = HEADER.to_owned();
    table += &row("one");
    table += "\"never closed\n";
    for number in 0..100 {
        table += &row(&format!("owner {number}"));
    }
    assert_eq!(read(RowFormat::Csv, table.as_bytes()), (101, 1));
    let table = format!("{HEADER}{}{}", row("5\" wide"), row("6\" wide"));
    assert_eq!(
        read(RowFormat::Csv, table.as_bytes()),
        (2, 0),
        "no row is dropped in silence"
    );
}

#[test]
fn one_endless_line_and_deep_nesting_are_one_bad_row() {
    let good = format!(
        r#"{{"sha256":"{}","owner_type":"user","owner_id":"u"}}"#,
        "ab".repeat(32)
    );
    for endless in ["x", "[", "{\"a\":", "\"", "\\", "\u{0}"] {
        let endless = endless.repeat((25 << 20) / endless.len());
        let table = format!("{good}\n{endless}\n{good}\n");
        assert_eq!(read(RowFormat::JsonLines, table.as_bytes()), (2, 1));
    }
    // As deep as a line may be, on each of many lines.
    for deep in ["[", "{\"a\":"] {
        let deep = deep.repeat((60 << 10) / deep.len());
        let table = format!("{good}\n{deep}\n").repeat(40);
        assert_eq!(read(RowFormat::JsonLines, table.as_bytes()), (40, 40));
    }
    let endless = "x,".repeat(12 << 20);
    let table = format!("{HEADER}{}{endless}\n{}", row("a"), row("b"));
    assert_eq!(read(RowFormat::Csv, table.as_bytes()), (2, 1));
}
