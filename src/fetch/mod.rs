//! A work item becomes blobs in memory, by git protocol v2, within budgets.
