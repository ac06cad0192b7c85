//! Text in, candidates out. Pure: no clock, no runtime, no database, no network.
