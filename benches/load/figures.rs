//! Percentiles.

use std::time::Duration;

/// Order statistics of a set of durations.
pub(crate) struct Percentiles {
    pub(crate) count: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

pub(crate) fn percentiles(mut all: Vec<Duration>) -> Percentiles {
    all.sort_unstable();
    let at = |percent: usize| {
        let index = (all.len() * percent / 100).min(all.len().saturating_sub(1));
        all.get(index).copied().unwrap_or_default()
    };
    Percentiles {
        count: all.len(),
        p50: at(50),
        p99: at(99),
        max: at(100),
    }
}

pub(crate) fn row(name: &str, figures: &Percentiles) -> String {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    format!(
        "{name}: p50 {:.1}, p99 {:.1}, max {:.1} ({} of them)",
        ms(figures.p50),
        ms(figures.p99),
        ms(figures.max),
        figures.count
    )
}
