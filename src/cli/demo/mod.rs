//! `rescind demo`: the whole main job on real input, in a temporary folder.

pub mod forge;
