//! A decision graph over the words of `struct seccomp_data`, and its translation to classic BPF.
//!
//! A node is made after the nodes that it leads to, so that children have smaller ids. Emitting by rising id from the
//! end of the program therefore makes every jump a forward one, the only kind that classic BPF has.

use super::{Insn, MAX_INSNS};
use std::collections::BTreeMap;

/// A word of `struct seccomp_data` by its place: nr, arch, two of the instruction pointer, then low and high halves of
/// the six arguments (both machines are little-endian).
pub(super) type Word = u8;
/// The number of the call.
pub(super) const NR: Word = 0;
/// The AUDIT_ARCH_* of the call's ABI.
pub(super) const ARCH: Word = 1;

/// The low half of an argument; the high half is the next word.
pub(super) fn low(arg: u8) -> Word {
    4 + 2 * arg
}

/// A place in the graph.
pub(super) type Id = u32;

/// A question about one word: its bits in `mask`, compared with `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    pub(super) word: Word,
    pub(super) mask: u32,
    /// [`Insn::JUMP_EQ`], [`Insn::JUMP_GT`] or [`Insn::JUMP_GE`].
    pub(super) op: u16,
    pub(super) k: u32,
}

impl Test {
    /// A question about a whole word.
    pub(super) fn whole(word: Word, op: u16, k: u32) -> Test {
        Test { word, mask: u32::MAX, op, k }
    }

    /// What the answer to `other` says about this question.
    fn decided_by(self, other: Test, answer: bool) -> Option<bool> {
        let same = (self.word, self.mask, self.op) == (other.word, other.mask, other.op);
        match same {
            true if self.k == other.k => Some(answer),
            true if answer && self.op == Insn::JUMP_EQ => Some(false),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Return(u32),
    Branch(Test, Id, Id),
}

/// The nodes so far; equal ones are made once, whichever call or ABI they serve.
#[derive(Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    known: BTreeMap<Node, Id>,
}

impl Graph {
    /// The end of a path: the outcome of the call.
    pub(super) fn ret(&mut self, action: u32) -> Id {
        self.shared(Node::Return(action))
    }

    /// A question about an argument, with what follows from its answer taken out of the branches.
    pub(super) fn ask(&mut self, test: Test, yes: Id, no: Id) -> Id {
        let (yes, no) = (self.assume(yes, test, true), self.assume(no, test, false));
        if yes == no { yes } else { self.shared(Node::Branch(test, yes, no)) }
    }

    /// Where `id` leads when the answer to `test` is known already.
    pub(super) fn assume(&self, mut id: Id, test: Test, answer: bool) -> Id {
        while let Some(Node::Branch(next, yes, no)) = self.nodes.get(id as usize) {
            match next.decided_by(test, answer) {
                Some(true) => id = *yes,
                Some(false) => id = *no,
                None => break,
            }
        }
        id
    }

    /// A question that no other path asks: spares the search for an equal one.
    pub(super) fn branch(&mut self, test: Test, yes: Id, no: Id) -> Id {
        self.nodes.push(Node::Branch(test, yes, no));
        (self.nodes.len() - 1) as Id
    }

    fn shared(&mut self, node: Node) -> Id {
        let next = self.nodes.len() as Id;
        let id = *self.known.entry(node).or_insert(next);
        if id == next {
            self.nodes.push(node);
        }
        id
    }

    /// The program that begins at `root`, or the number of instructions that it would need.
    pub(super) fn assemble(&self, root: Id) -> Result<Vec<Insn>, usize> {
        let mut code = Code { nodes: &self.nodes, reversed: Vec::new(), places: vec![None; self.nodes.len()] };
        for (id, (node, need)) in self.nodes.iter().zip(self.needs(root)).enumerate() {
            if need.any() {
                code.emit(id, *node, need);
            }
        }
        let Code { mut reversed, .. } = code;
        reversed.reverse();
        if reversed.len() > MAX_INSNS { Err(reversed.len()) } else { Ok(reversed) }
    }

    /// How each node is entered, from the root down.
    fn needs(&self, root: Id) -> Vec<Need> {
        let mut needs = vec![Need::default(); self.nodes.len()];
        if let Some(need) = needs.get_mut(root as usize) {
            need.load = true;
        }
        for (id, node) in self.nodes.iter().enumerate().rev() {
            let (Node::Branch(test, yes, no), true) = (node, needs.get(id).is_some_and(|n| n.any())) else { continue };
            for child in [*yes, *no] {
                let loaded = entered_loaded(*test, self.nodes.get(child as usize));
                if let Some(need) = needs.get_mut(child as usize) {
                    need.load |= !loaded;
                    need.loaded |= loaded;
                }
            }
        }
        needs
    }
}

/// Whether the accumulator holds what `child` asks about, when it comes after `test`.
fn entered_loaded(test: Test, child: Option<&Node>) -> bool {
    match child {
        Some(Node::Branch(next, ..)) => test.mask == u32::MAX && next.word == test.word,
        _ => true,
    }
}

/// The ways in which a node is entered: with its word to be loaded, or in the accumulator.
#[derive(Clone, Copy, Default)]
struct Need {
    load: bool,
    loaded: bool,
}

impl Need {
    fn any(self) -> bool {
        self.load || self.loaded
    }
}

/// Where a node stands, counted from the end of the program: (to be loaded, loaded).
type Place = Option<(usize, usize)>;

struct Code<'a> {
    nodes: &'a [Node],
    /// The last instruction first.
    reversed: Vec<Insn>,
    places: Vec<Place>,
}

impl Code<'_> {
    fn emit(&mut self, id: usize, node: Node, need: Need) {
        let place = match node {
            Node::Return(action) => {
                let at = self.push(Insn { code: Insn::RETURN, jt: 0, jf: 0, k: action });
                (at, at)
            }
            Node::Branch(test, yes, no) => {
                self.bring_near(test, yes);
                self.bring_near(test, no);
                let (jt, jf) = (self.distance(test, yes) as u8, self.distance(test, no) as u8);
                let mut loaded = self.push(Insn { code: test.op, jt, jf, k: test.k });
                if test.mask != u32::MAX {
                    loaded = self.push(Insn { code: Insn::AND, jt: 0, jf: 0, k: test.mask });
                }
                let word = Insn { code: Insn::LOAD, jt: 0, jf: 0, k: 4 * u32::from(test.word) };
                (if need.load { self.push(word) } else { loaded }, loaded)
            }
        };
        if let Some(slot) = self.places.get_mut(id) {
            *slot = Some(place);
        }
    }

    fn push(&mut self, insn: Insn) -> usize {
        self.reversed.push(insn);
        self.reversed.len() - 1
    }

    /// The instructions that a jump written now from `test` to `child` skips.
    fn distance(&self, test: Test, child: Id) -> usize {
        let loaded = entered_loaded(test, self.nodes.get(child as usize));
        let (load, body) = self.places.get(child as usize).copied().flatten().unwrap_or_default();
        self.reversed.len() - 1 - if loaded { body } else { load }
    }

    /// A conditional jump reaches 255 instructions. A farther return is written once more; to a farther question
    /// there is one long jump, which later jumps share.
    fn bring_near(&mut self, test: Test, child: Id) {
        // The other branch may need an instruction of its own in between.
        if self.distance(test, child) < usize::from(u8::MAX) {
            return;
        }
        let Some(node) = self.nodes.get(child as usize).copied() else { return };
        let insn = match node {
            Node::Return(action) => Insn { code: Insn::RETURN, jt: 0, jf: 0, k: action },
            Node::Branch(..) => Insn { code: Insn::JUMP, jt: 0, jf: 0, k: self.distance(test, child) as u32 },
        };
        let at = self.push(insn);
        let loaded = entered_loaded(test, Some(&node));
        if let Some(Some(place)) = self.places.get_mut(child as usize) {
            match node {
                Node::Return(_) => *place = (at, at),
                Node::Branch(..) if loaded => place.1 = at,
                Node::Branch(..) => place.0 = at,
            }
        }
    }
}
