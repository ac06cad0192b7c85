//! Construction of the table from a regular expression.

use std::collections::HashMap;

use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_syntax::hir::Hir;

use super::{Automaton, DEAD, START};
use crate::keyformat::problem::Fault;

/// Far more states than any real key needs, and few enough to compare two formats quickly.
const MAX_STATES: usize = 4096;
const MAX_COMPILER_BYTES: usize = 2 << 20;
/// Limit on the work of the subset construction, in states of the compiler's graph.
const MAX_EFFORT: usize = 1 << 18;

impl Automaton {
    /// Compiles a regular expression without assertions.
    pub(in crate::keyformat) fn new(hir: &Hir) -> Result<Self, Fault> {
        let config = thompson::Config::new()
            .utf8(false)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(MAX_COMPILER_BYTES));
        let graph = thompson::Compiler::new()
            .configure(config)
            .build_from_hir(hir);
        graph
            .ok()
            .and_then(|graph| Self::from_graph(&graph))
            .ok_or_else(|| {
                Fault::new(
                    "`regex` is too complex to be compiled",
                    "use fewer alternatives and repetitions, or split it into several formats",
                )
            })
    }

    /// Builds the automaton by subset construction: one state for every reachable set of the graph's
    /// states. Returns `None` if a limit is exceeded.
    fn from_graph(graph: &NFA) -> Option<Self> {
        let classes = graph.byte_classes();
        let mut columns = [0; 256];
        for byte in 0..=u8::MAX {
            columns[usize::from(byte)] = classes.get(byte);
        }
        let representatives = representatives(&columns);
        let width = representatives.len();
        let first = closure(graph, &[graph.start_anchored()]);
        let mut effort = 0;
        let mut numbers = HashMap::from([(Vec::new(), DEAD), (first.clone(), START)]);
        let mut sets = vec![Vec::new(), first];
        let mut next = vec![DEAD; width];
        let mut number = START as usize;
        while number < sets.len() {
            // Most columns of a state lead nowhere or to the same state as another column.
            let mut row: Vec<(Vec<StateID>, u32)> = vec![(Vec::new(), DEAD)];
            for &byte in &representatives {
                let ways = sets[number]
                    .iter()
                    .filter_map(|state| after(graph, *state, byte));
                let targets: Vec<StateID> = ways.collect();
                if let Some((_, known)) = row.iter().find(|(other, _)| *other == targets) {
                    next.push(*known);
                    continue;
                }
                let set = closure(graph, &targets);
                effort += set.len();
                let new = u32::try_from(sets.len()).ok()?;
                let successor = *numbers.entry(set).or_insert_with_key(|set| {
                    sets.push(set.clone());
                    new
                });
                if sets.len() > MAX_STATES || effort > MAX_EFFORT {
                    return None;
                }
                next.push(successor);
                row.push((targets, successor));
            }
            number += 1;
        }
        let is_match =
            |state: &StateID| matches!(graph.state(*state), thompson::State::Match { .. });
        let accepts = sets.iter().map(|set| set.iter().any(is_match)).collect();
        let mut automaton = Self {
            columns,
            width,
            next,
            accepts,
        };
        automaton.cut_dead_ends();
        Some(automaton)
    }

    /// Removes the transitions into states from which no match can be reached.
    fn cut_dead_ends(&mut self) {
        let mut live = self.accepts.clone();
        loop {
            let mut changed = false;
            for state in (0..live.len()).rev() {
                if !live[state] && self.row(state).iter().any(|next| live[*next as usize]) {
                    live[state] = true;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        for next in &mut self.next {
            if !live[*next as usize] {
                *next = DEAD;
            }
        }
    }
}

/// Returns one byte of each column, in column order: classes are numbered in the order of their first
/// bytes.
fn representatives(columns: &[u8; 256]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (byte, column) in (0..=u8::MAX).zip(columns) {
        if usize::from(*column) == bytes.len() {
            bytes.push(byte);
        }
    }
    bytes
}

/// Returns the successor of a state of the graph under `byte`.
fn after(graph: &NFA, state: StateID, byte: u8) -> Option<StateID> {
    match graph.state(state) {
        thompson::State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
        thompson::State::Sparse(ways) => ways.matches_byte(byte),
        thompson::State::Dense(ways) => ways.matches_byte(byte),
        _ => None,
    }
}

/// Returns the states that are reachable from `states` without consuming input and that either consume
/// input or end a match, sorted.
fn closure(graph: &NFA, states: &[StateID]) -> Vec<StateID> {
    let mut waiting = states.to_vec();
    let mut seen = vec![false; graph.states().len()];
    let mut reached = Vec::new();
    while let Some(state) = waiting.pop() {
        let ways: &[StateID] = match graph.state(state) {
            thompson::State::Union { alternates } => alternates,
            thompson::State::BinaryUnion { alt1, alt2 } => &[*alt1, *alt2],
            thompson::State::Look { next, .. } | thompson::State::Capture { next, .. } => &[*next],
            thompson::State::Fail => &[],
            _ => {
                reached.push(state);
                &[]
            }
        };
        for way in ways {
            if !std::mem::replace(&mut seen[way.as_usize()], true) {
                waiting.push(*way);
            }
        }
    }
    reached.sort_unstable();
    reached.dedup();
    reached
}
