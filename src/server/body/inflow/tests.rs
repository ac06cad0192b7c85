//! Tests of bodies that are worked on while they come.

use futures_util::stream;

use super::*;
use crate::issuer::{RowError, RowFormat, parse_rows};
use crate::keyformat::FormatSet;
use crate::scan::Redactor;

fn terms(limit: usize, patience: Duration) -> Terms {
    Terms {
        limit,
        patience,
        is_proved: true,
    }
}

/// Returns both ends of a body that consists of these pieces, of which none comes after `None`.
fn body_of(pieces: Vec<Option<&'static str>>, terms: Terms) -> (Feed, Inflow, CancellationToken) {
    let chunks = stream::iter(pieces).then(|piece| async move {
        match piece {
            Some(piece) => Ok::<_, Error>(Bytes::from(piece)),
            None => std::future::pending().await,
        }
    });
    let (parts, body) = axum::extract::Request::new(Body::from_stream(chunks)).into_parts();
    let abandoned = CancellationToken::new();
    let (feed, inflow) = inflow(&parts, body, terms, abandoned.clone());
    (feed, inflow, abandoned)
}

/// Reads all of it on a thread that may block.
async fn lines_of(inflow: Inflow) -> Vec<IoResult<String>> {
    let read = move || {
        let mut lines = Vec::new();
        for line in inflow.lines() {
            let is_last = line.is_err();
            lines.push(line);
            if is_last {
                break;
            }
        }
        lines
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

#[tokio::test]
async fn all_of_it_is_handed_over_in_order() {
    let pieces = std::iter::repeat_n([Some("ab\nc"), Some(""), Some("d\n")], 100);
    let all = terms(700, Duration::from_mins(1));
    let (feed, inflow, _) = body_of(pieces.flatten().collect(), all);
    let (outcome, lines) = tokio::join!(feed.run(|| false), lines_of(inflow));
    outcome.unwrap();
    let lines: Vec<_> = lines.into_iter().map(Result::unwrap).collect();
    assert_eq!(lines, ["ab", "cd"].repeat(100));
}

#[tokio::test]
async fn what_is_too_large_or_late_is_refused_and_never_looks_whole() {
    let minute = Duration::from_mins(1);
    let moment = Duration::from_millis(300);
    for (last, limit, patience, is_wanted, expected) in [
        (Some("ef"), 5, minute, false, 413),
        (None, 9, moment, false, 408),
        (None, 9, minute, true, 503),
    ] {
        let pieces = vec![Some("ab\n"), Some("cd"), last];
        let (feed, inflow, _) = body_of(pieces, terms(limit, patience));
        let (outcome, lines) = tokio::join!(feed.run(|| is_wanted), lines_of(inflow));
        assert_eq!(outcome.unwrap_err().status().as_u16(), expected);
        assert!(
            matches!(&lines[..], [Ok(first), Err(_)] if first == "ab"),
            "{lines:?}"
        );
    }
}

#[tokio::test]
async fn no_more_than_a_window_is_taken_while_nobody_reads() {
    let all = terms(1 << 20, Duration::from_mins(1));
    let (feed, inflow, abandoned) = body_of(vec![Some("x\n"); 10 * PIECES], all);
    let handed_over = tokio::time::timeout(Duration::from_millis(100), feed.run(|| true));
    let waits = handed_over.await;
    assert!(waits.is_err());
    assert_eq!(inflow.pieces.len(), PIECES);
    // Of what is in the window, nothing is read for whoever hung up.
    abandoned.cancel();
    assert!(matches!(&lines_of(inflow).await[..], [Err(_), ..]));
}

#[tokio::test]
async fn what_nobody_wants_is_read_to_its_end() {
    let all = terms(1 << 20, Duration::from_mins(1));
    let (feed, inflow, _) = body_of(vec![Some("x\n"); 10 * PIECES], all);
    drop(inflow);
    feed.run(|| false).await.unwrap();
}

/// However long a row is that does not end.
#[tokio::test]
async fn no_row_is_read_for_whoever_hung_up() {
    let redactor = Redactor::new(&FormatSet::builtin());
    for more in ["{}\n", "\n", "x"] {
        let all = terms(1 << 20, Duration::from_mins(1));
        let pieces = std::iter::once("{}\n").chain(std::iter::repeat_n(more, PIECES / 2));
        let (feed, inflow, abandoned) = body_of(pieces.map(Some).collect(), all);
        feed.run(|| false).await.unwrap();
        let mut rows = parse_rows(inflow, RowFormat::JsonLines, &redactor);
        let read = move || {
            assert!(rows.next().is_some());
            abandoned.cancel();
            let is_end = |row: &Result<_, RowError>| {
                let error = row.as_ref().err();
                error.is_some_and(|error| error.problem.starts_with("cannot be read"))
            };
            rows.filter(|row| !is_end(row)).count()
        };
        let read = tokio::task::spawn_blocking(read).await.unwrap();
        assert_eq!(read, 0, "{more:?}");
    }
}
