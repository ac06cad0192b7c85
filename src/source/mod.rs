//! What is polled: cursors, gaps, work items.
