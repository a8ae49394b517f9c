//! Compiles an OCI seccomp profile to BPF: what runc does with libseccomp, as a pure function.
//!
//! Profile → for each ABI the rules of each call → one outcome per call (a return, or a graph of questions about the
//! arguments) → ranges of numbers with equal outcomes → a binary search over them → instructions.
//!
//! What the profile means, where the specification is silent (config-linux.md, seccomp), follows runc and libseccomp:
//! - a rule whose action is the default one is as if it were not there;
//! - conditions of one rule hold together, unless two are about the same argument: then each is a rule of its own;
//! - the first unconditional rule of a call beats every conditional one;
//! - of conditional rules that hold at once, the one on the higher argument wins, then equality before an order, then
//!   the narrower bound (libseccomp keeps a tree in this order; the order in the profile decides among equals);
//! - a rule that begins with all conditions of an earlier one never comes to hold; the same conditions with two
//!   actions are an error;
//! - 32-bit ABIs, x32 with them, compare the low halves only;
//! - a call above the last one that the profile knows answers ENOSYS, unless the default lets calls pass, so that
//!   programs fall back to what they used before the call was invented.

use crate::error::{Result, invalid};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Op,
};
use orlop_sys::bpf::{
    Insn, MAX_INSNS, SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
};
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

mod graph;
#[cfg(any(test, fuzzing))]
#[allow(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests and the fuzz target alone have it"
)]
pub(crate) mod oracle;
mod syscalls;
#[cfg(test)]
mod tests;

use graph::{ARCH, Graph, Id, NR, Test, low};
use syscalls::{Abi, Numbers, lookup};

/// A filter, ready for seccomp(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The instructions.
    pub filter: Vec<Insn>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u32,
    /// Some calls go to a listener: `flags` asks for its fd.
    pub notify: bool,
    /// Names in the profile that no ABI of this machine has. They are skipped, as the specification wants; the debug log
    /// has them.
    pub unknown: Vec<String>,
}

/// Compiles a profile for this machine. Errors name the field at fault.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program> {
    let native = if cfg!(target_arch = "x86_64") { Abi::X86_64 } else { Abi::Aarch64 };
    compile_for(native, profile)
}

fn compile_for(native: Abi, profile: &LinuxSeccomp) -> Result<Program> {
    let default = default_action(profile)?;
    let groups = groups(profile)?;
    let (rules, unknown) = rules(&groups);
    let mut graph = Graph::default();
    let mut root = graph.ret(KILL_THREAD);
    for (audit, abis) in audited(native, profile).iter().rev() {
        let table = Table::new(&mut graph, default, &rules, abis)?;
        let search = search(&mut graph, &table.ranges, &table.weights);
        root = graph.branch(Test::whole(ARCH, Insn::JUMP_EQ, *audit), search, root);
    }
    let filter = graph.assemble(root).map_err(|n| {
        invalid("linux.seccomp", format!("the filter needs {n} instructions, the kernel takes {MAX_INSNS}"))
    })?;
    let notify = profile.syscalls().iter().flatten().any(|r| r.action() == Action::ScmpActNotify);
    let listener = if notify { SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    Ok(Program { filter, flags: flags(profile) | listener, notify, unknown })
}

// SECCOMP_RET_*, seccomp(2). The low 16 bits of ERRNO and TRACE are their data.
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Every action.
pub(crate) const ACTIONS: &[Action] = &[
    Action::ScmpActAllow,
    Action::ScmpActErrno,
    Action::ScmpActKill,
    Action::ScmpActKillProcess,
    Action::ScmpActKillThread,
    Action::ScmpActLog,
    Action::ScmpActNotify,
    Action::ScmpActTrace,
    Action::ScmpActTrap,
];

/// An action and its data as a return value. Only ERRNO and TRACE have data, EPERM unless the profile has another.
fn outcome(action: Action, data: Option<u32>, field: &str) -> Result<u32> {
    let data = data.unwrap_or(EPERM);
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => KILL_THREAD,
        Action::ScmpActKillProcess => KILL_PROCESS,
        Action::ScmpActTrap => TRAP,
        Action::ScmpActNotify => NOTIFY,
        Action::ScmpActLog => LOG,
        Action::ScmpActAllow => ALLOW,
        Action::ScmpActErrno | Action::ScmpActTrace if data > 0xffff => {
            return Err(invalid(field, format!("{data} does not fit into the filter's 16 bits")));
        }
        Action::ScmpActErrno => ERRNO | data,
        Action::ScmpActTrace => TRACE | data,
    })
}

fn default_action(profile: &LinuxSeccomp) -> Result<u32> {
    match profile.default_action() {
        // The listener would have to answer for the calls that hand it over.
        Action::ScmpActNotify => {
            Err(invalid("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action"))
        }
        action => outcome(action, profile.default_errno_ret(), "linux.seccomp.defaultErrnoRet"),
    }
}

/// The flags, and what they are to seccomp(2). TSYNC is accepted and does nothing: a container's process has one thread.
pub(crate) const FLAGS: &[(Flag, u32)] = &[
    (Flag::SeccompFilterFlagLog, SECCOMP_FILTER_FLAG_LOG),
    (Flag::SeccompFilterFlagSpecAllow, SECCOMP_FILTER_FLAG_SPEC_ALLOW),
    (Flag::SeccompFilterFlagTsync, 0),
    (Flag::SeccompFilterFlagWaitKillableRecv, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
];

/// Without a list SPEC_ALLOW is set, since the mitigation costs more than it gives where the filter is not the only
/// boundary.
fn flags(profile: &LinuxSeccomp) -> u32 {
    let Some(flags) = profile.flags() else { return SECCOMP_FILTER_FLAG_SPEC_ALLOW };
    FLAGS.iter().filter(|(flag, _)| flags.contains(flag)).fold(0, |all, (_, bits)| all | bits)
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Check {
    arg: u8,
    op: Compare,
    /// All ones but for MASKED_EQ.
    mask: u64,
    value: u64,
}

/// The operators, with the order in which their rules are tried (libseccomp: equality, upper bounds, lower bounds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Ge,
    Gt,
}

/// Every operator.
pub(crate) const OPERATORS: &[Op] =
    &[Op::ScmpCmpEq, Op::ScmpCmpGe, Op::ScmpCmpGt, Op::ScmpCmpLe, Op::ScmpCmpLt, Op::ScmpCmpMaskedEq, Op::ScmpCmpNe];

impl Check {
    fn new(arg: &LinuxSeccompArg) -> Result<Check> {
        let Some(index) = u8::try_from(arg.index()).ok().filter(|i| *i < 6) else {
            return Err(invalid("index", format!("a system call has arguments 0 to 5, not {}", arg.index())));
        };
        let (op, mask, value) = match arg.op() {
            Op::ScmpCmpEq => (Compare::Eq, u64::MAX, arg.value()),
            Op::ScmpCmpNe => (Compare::Ne, u64::MAX, arg.value()),
            Op::ScmpCmpLt => (Compare::Lt, u64::MAX, arg.value()),
            Op::ScmpCmpLe => (Compare::Le, u64::MAX, arg.value()),
            Op::ScmpCmpGe => (Compare::Ge, u64::MAX, arg.value()),
            Op::ScmpCmpGt => (Compare::Gt, u64::MAX, arg.value()),
            Op::ScmpCmpMaskedEq => (Compare::Eq, arg.value(), arg.value_two().unwrap_or(0) & arg.value()),
        };
        Ok(Check { arg: index, op, mask, value })
    }

    /// The same condition on the bits that an ABI's rules compare; `None` when it always holds.
    fn on(self, bits: u64) -> Option<Check> {
        let mask = self.mask & bits;
        (mask != 0).then_some(Check { mask, value: self.value & mask, ..self })
    }

    /// What is tried first comes first: see the module's text.
    fn rank(self) -> (Reverse<u8>, u8, u64) {
        let (class, value) = match self.op {
            Compare::Eq | Compare::Ne => (0, !self.value),
            Compare::Lt | Compare::Le => (1, self.value),
            Compare::Ge | Compare::Gt => (2, !self.value),
        };
        (Reverse(self.arg), class, value)
    }

    /// The questions that lead to `yes` when the condition holds and to `no` otherwise.
    fn ask(self, graph: &mut Graph, yes: Id, no: Id) -> Id {
        let (op, yes, no) = match self.op {
            Compare::Eq => (Insn::JUMP_EQ, yes, no),
            Compare::Ne => (Insn::JUMP_EQ, no, yes),
            Compare::Gt => (Insn::JUMP_GT, yes, no),
            Compare::Le => (Insn::JUMP_GT, no, yes),
            Compare::Ge => (Insn::JUMP_GE, yes, no),
            Compare::Lt => (Insn::JUMP_GE, no, yes),
        };
        let word = low(self.arg);
        let low = Test { word, mask: self.mask as u32, op, k: self.value as u32 };
        let high =
            Test { word: word + 1, mask: (self.mask >> 32) as u32, op: Insn::JUMP_EQ, k: (self.value >> 32) as u32 };
        if high.mask == 0 {
            return graph.ask(low, yes, no);
        }
        let (then_yes, then_no) = (graph.assume(yes, high, true), graph.assume(no, high, true));
        let halves_equal = if low.mask == 0 { then_yes } else { graph.ask(low, then_yes, then_no) };
        // An order is decided by the high halves alone, unless they are equal.
        let otherwise = match op {
            Insn::JUMP_EQ => no,
            _ if high.k == 0 => yes,
            _ => graph.ask(Test { op: Insn::JUMP_GT, ..high }, yes, no),
        };
        graph.ask(high, halves_equal, otherwise)
    }
}

/// An entry of `linux.seccomp.syscalls`, read.
struct Group<'a> {
    names: &'a [String],
    action: u32,
    /// Each holds by itself: conditions that hold together, by rising argument.
    alternatives: Vec<Vec<Check>>,
    /// Its index in the profile.
    index: usize,
}

/// A rule for one name.
struct Rule<'a> {
    name: &'a str,
    numbers: Numbers,
    group: &'a Group<'a>,
}

fn groups(profile: &LinuxSeccomp) -> Result<Vec<Group<'_>>> {
    let entries = profile.syscalls().iter().flatten().enumerate();
    let read = entries.map(|(index, entry)| {
        let names = entry.names().as_slice();
        let action = outcome(entry.action(), entry.errno_ret(), "errnoRet")?;
        let alternatives = alternatives(entry.args().as_deref().unwrap_or_default())?;
        for (n, name) in names.iter().enumerate() {
            let why = match name.as_str() {
                "" => "empty string is not a valid syscall",
                // The child tells of its listener by a write, which nobody could yet answer for.
                "write" if action == NOTIFY => "SCMP_ACT_NOTIFY cannot be used for the write syscall",
                _ => continue,
            };
            return Err(invalid(format!("names[{n}]"), why));
        }
        Ok(Group { names, action, alternatives, index })
    });
    let at = |index| move |e: crate::error::Error| e.within(&format!("linux.seccomp.syscalls[{index}]"));
    read.enumerate().map(|(index, group)| group.map_err(at(index))).collect()
}

/// A rule for every name, and the names that no ABI has.
fn rules<'a>(groups: &'a [Group<'a>]) -> (Vec<Rule<'a>>, Vec<String>) {
    let mut rules = Vec::with_capacity(groups.iter().map(|g| g.names.len()).sum());
    let mut unknown = Vec::new();
    for group in groups {
        for name in group.names {
            match lookup(name) {
                Some(numbers) => rules.push(Rule { name, numbers, group }),
                None => unknown.push(name.clone()),
            }
        }
    }
    (rules, unknown)
}

/// Conditions that are all about different arguments hold together; otherwise each is a rule of its own, as in runc.
fn alternatives(args: &[LinuxSeccompArg]) -> Result<Vec<Vec<Check>>> {
    let mut checks = Vec::with_capacity(args.len());
    for (n, arg) in args.iter().enumerate() {
        checks.push(Check::new(arg).map_err(|e| e.within(&format!("args[{n}]")))?);
    }
    let seen = checks.iter().fold(0u8, |seen, check| seen | 1 << check.arg);
    if seen.count_ones() as usize != checks.len() {
        return Ok(checks.into_iter().map(|check| vec![check]).collect());
    }
    checks.sort_by_key(|check| check.arg);
    Ok(vec![checks])
}

/// The AUDIT_ARCH_* values that the filter knows (linux/audit.h), each with its ABIs: the machine's own always, and
/// those of its 32-bit modes that the profile lists. Architectures of other machines cannot call this kernel.
fn audited(native: Abi, profile: &LinuxSeccomp) -> Vec<(u32, Vec<Abi>)> {
    let listed = |arch| profile.architectures().iter().flatten().any(|a| *a == arch);
    let (own, compat) = match native {
        Abi::Aarch64 | Abi::Arm => ((0xc000_00b7, Abi::Aarch64), (0x4000_0028, Abi::Arm, Arch::ScmpArchArm)),
        Abi::X86_64 | Abi::X86 | Abi::X32 => ((0xc000_003e, Abi::X86_64), (0x4000_0003, Abi::X86, Arch::ScmpArchX86)),
    };
    let mut all = vec![(own.0, vec![own.1])];
    if own.1 == Abi::X86_64 && listed(Arch::ScmpArchX32) {
        // x32 calls come under the same AUDIT_ARCH, with bit 30 in their numbers.
        all = vec![(own.0, vec![own.1, Abi::X32])];
    }
    if listed(compat.2) {
        all.push((compat.0, vec![compat.1]));
    }
    all
}

/// Every architecture. Those that this machine cannot run need no rules: their calls cannot come.
pub(crate) const ARCHS: &[Arch] = &[
    Arch::ScmpArchAarch64,
    Arch::ScmpArchArm,
    Arch::ScmpArchLoongarch64,
    Arch::ScmpArchM68k,
    Arch::ScmpArchMips,
    Arch::ScmpArchMips64,
    Arch::ScmpArchMips64n32,
    Arch::ScmpArchMipsel,
    Arch::ScmpArchMipsel64,
    Arch::ScmpArchMipsel64n32,
    Arch::ScmpArchNative,
    Arch::ScmpArchParisc,
    Arch::ScmpArchParisc64,
    Arch::ScmpArchPpc,
    Arch::ScmpArchPpc64,
    Arch::ScmpArchPpc64le,
    Arch::ScmpArchRiscv64,
    Arch::ScmpArchS390,
    Arch::ScmpArchS390x,
    Arch::ScmpArchSh,
    Arch::ScmpArchSheb,
    Arch::ScmpArchX32,
    Arch::ScmpArchX86,
    Arch::ScmpArchX86_64,
];

/// In the numbers of x32 calls (`__X32_SYSCALL_BIT`, asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;

/// What an ABI's calls of all numbers lead to.
struct Table {
    /// First number and outcome; each range ends where the next begins.
    ranges: Vec<(u32, Id)>,
    /// How much a short way to each range is worth.
    weights: Vec<u32>,
}

impl Table {
    fn new(graph: &mut Graph, default: u32, rules: &[Rule<'_>], abis: &[Abi]) -> Result<Table> {
        let mut ranges = Ranges::default();
        let mut points = Vec::new();
        let mut lasts = Vec::new();
        for abi in abis {
            let calls = Call::all(*abi, rules);
            lasts.push((*abi, calls.last().map_or(0, |c| c.number)));
            for same in calls.chunk_by(|a, b| a.number == b.number) {
                if let Some(id) = outcome_of(graph, default, *abi, same)? {
                    points.push((same.first().map_or(0, |c| c.number), id));
                }
            }
        }
        let zones = zones(graph, default, &lasts);
        let mut points = points.into_iter().peekable();
        for (i, (start, outside)) in zones.iter().enumerate() {
            let end = zones.get(i + 1).map_or(u64::from(u32::MAX) + 1, |z| u64::from(z.0));
            ranges.push(*start, *outside);
            while let Some((number, id)) = points.next_if(|p| u64::from(p.0) < end) {
                ranges.push(number, id);
                if u64::from(number) + 1 < end {
                    ranges.push(number + 1, *outside);
                }
            }
        }
        let weights = weights(&ranges.0, abis);
        Ok(Table { ranges: ranges.0, weights })
    }
}

/// Ranges by rising start, neighbours with one outcome merged.
#[derive(Default)]
struct Ranges(Vec<(u32, Id)>);

impl Ranges {
    fn push(&mut self, start: u32, id: Id) {
        if self.0.last().is_some_and(|last| last.0 == start) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|last| last.1 != id) {
            self.0.push((start, id));
        }
    }
}

/// What happens to the numbers that no rule names.
///
/// As runc's patched filter: above the last number that the profile names, ENOSYS, unless the default action lets calls
/// pass (a tracer answers for new calls itself). As libseccomp's: x32 numbers are of a foreign ABI unless x32 is
/// listed, except -1, by which a tracer skips a call.
fn zones(graph: &mut Graph, default: u32, lasts: &[(Abi, u32)]) -> Vec<(u32, Id)> {
    let passes = matches!(default & 0xffff_0000, ALLOW | LOG | TRACE);
    let (outside, kill, enosys) = (graph.ret(default), graph.ret(KILL_THREAD), graph.ret(ERRNO | ENOSYS));
    let newest = |abi| lasts.iter().find(|l| l.0 == abi).map(|l| l.1).filter(|n| *n != 0 && !passes);
    let beyond = |last: Option<u32>, otherwise| if last.is_some() { enosys } else { otherwise };
    let mut zones = vec![(0, outside)];
    if let [(Abi::X86_64, _), x32 @ ..] = lasts {
        let (last, last_x32) = (newest(Abi::X86_64), newest(Abi::X32));
        let foreign = if x32.is_empty() { kill } else { outside };
        zones.extend(last.map(|n| (n + 1, enosys)));
        zones.push((X32_BIT, foreign));
        zones.extend(last_x32.map(|n| (n + 1, enosys)));
        zones.push((0x8000_0000, beyond(last, foreign)));
        zones.push((0x8000_0000 | X32_BIT, beyond(last_x32, foreign)));
        if x32.is_empty() {
            zones.push((u32::MAX, outside));
        }
    } else if let [(abi, _)] = lasts {
        zones.extend(newest(*abi).map(|n| (n + 1, enosys)));
    }
    zones
}

/// A rule as it applies to one number of one ABI.
struct Call<'a> {
    number: u32,
    rule: &'a Rule<'a>,
    /// The call is reached through a multiplexer: `rule` holds for this first argument.
    multiplexed: Option<u8>,
}

impl<'a> Call<'a> {
    /// Every rule on every number, by number, then in the order of the profile.
    fn all(abi: Abi, rules: &'a [Rule<'a>]) -> Vec<Call<'a>> {
        let bit = if abi == Abi::X32 { X32_BIT } else { 0 };
        let mut calls = Vec::with_capacity(rules.len());
        for rule in rules {
            if abi == Abi::X86
                && let Some((multiplexer, function)) = multiplexed(rule.name)
            {
                calls.push(Call { number: multiplexer, rule, multiplexed: Some(function) });
            }
            if let Some(number) = rule.numbers.on(abi) {
                calls.push(Call { number: number | bit, rule, multiplexed: None });
            }
        }
        calls.sort_by_key(|call| call.number);
        calls
    }
}

/// i386 has these calls through socketcall(2) and ipc(2) as well, or only: the function's number is the first argument
/// (linux/net.h, linux/ipc.h). A rule's own condition on the first argument cannot be asked there, nor can the filter
/// see what the others point to; like libseccomp's, it compares them as they are.
fn multiplexed(name: &str) -> Option<(u32, u8)> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    const FUNCTIONS: [(&str, u32, u8); 32] = [
        ("accept", SOCKETCALL, 5),
        ("accept4", SOCKETCALL, 18),
        ("bind", SOCKETCALL, 2),
        ("connect", SOCKETCALL, 3),
        ("getpeername", SOCKETCALL, 7),
        ("getsockname", SOCKETCALL, 6),
        ("getsockopt", SOCKETCALL, 15),
        ("listen", SOCKETCALL, 4),
        ("msgctl", IPC, 14),
        ("msgget", IPC, 13),
        ("msgrcv", IPC, 12),
        ("msgsnd", IPC, 11),
        ("recv", SOCKETCALL, 10),
        ("recvfrom", SOCKETCALL, 12),
        ("recvmmsg", SOCKETCALL, 19),
        ("recvmsg", SOCKETCALL, 17),
        ("semctl", IPC, 3),
        ("semget", IPC, 2),
        ("semop", IPC, 1),
        ("semtimedop", IPC, 4),
        ("send", SOCKETCALL, 9),
        ("sendmmsg", SOCKETCALL, 20),
        ("sendmsg", SOCKETCALL, 16),
        ("sendto", SOCKETCALL, 11),
        ("setsockopt", SOCKETCALL, 14),
        ("shmat", IPC, 21),
        ("shmctl", IPC, 24),
        ("shmdt", IPC, 22),
        ("shmget", IPC, 23),
        ("shutdown", SOCKETCALL, 13),
        ("socket", SOCKETCALL, 1),
        ("socketpair", SOCKETCALL, 8),
    ];
    let found = FUNCTIONS.binary_search_by_key(&name, |f| f.0).ok()?;
    FUNCTIONS.get(found).map(|f| (f.1, f.2))
}

/// Conditions that hold together, what then happens, and the index of the rule in the profile.
type Case = (Vec<Check>, u32, usize);

/// Where the calls of one number lead; `None` when no rule but redundant ones names it.
fn outcome_of(graph: &mut Graph, default: u32, abi: Abi, calls: &[Call<'_>]) -> Result<Option<Id>> {
    let mut cases: Vec<Case> = Vec::new();
    for Call { rule, multiplexed, .. } in calls.iter().filter(|c| c.rule.group.action != default) {
        for checks in &rule.group.alternatives {
            let checks = adapted(checks, abi, *multiplexed);
            if checks.is_empty() {
                return Ok(Some(graph.ret(rule.group.action)));
            }
            cases.push((checks, rule.group.action, rule.group.index));
        }
    }
    if cases.is_empty() {
        return Ok(None);
    }
    let name = calls.first().map_or("", |c| c.rule.name);
    let cases = in_order(cases, name)?;
    let mut id = graph.ret(default);
    for (checks, action, _) in cases.iter().rev() {
        let (mut yes, no) = (graph.ret(*action), id);
        for check in checks.iter().rev() {
            yes = check.ask(graph, yes, no);
        }
        id = yes;
    }
    Ok(Some(id))
}

/// The conditions as the ABI compares them, without those that always hold.
fn adapted(checks: &[Check], abi: Abi, multiplexed: Option<u8>) -> Vec<Check> {
    let bits = match abi {
        Abi::X86_64 | Abi::Aarch64 => u64::MAX,
        Abi::X86 | Abi::X32 | Abi::Arm => u64::from(u32::MAX),
    };
    let function = multiplexed.map(|n| Check { arg: 0, op: Compare::Eq, mask: bits, value: u64::from(n) });
    let others = checks.iter().filter(|check| function.is_none() || check.arg != 0);
    function.into_iter().chain(others.filter_map(|check| check.on(bits))).collect()
}

/// The cases that can come to hold, in the order in which they are tried.
fn in_order(cases: Vec<Case>, name: &str) -> Result<Vec<Case>> {
    let mut kept: Vec<Case> = Vec::with_capacity(cases.len());
    let mut seen: BTreeMap<Vec<Check>, (u32, usize)> = BTreeMap::new();
    'cases: for (checks, action, index) in cases {
        for len in 1..=checks.len() {
            let Some((other, first)) = checks.get(..len).and_then(|prefix| seen.get(prefix)) else { continue };
            if len == checks.len() && action != *other {
                let why = format!("syscalls[{first}] has another action for {name} under the same conditions");
                return Err(invalid(format!("linux.seccomp.syscalls[{index}].action"), why));
            }
            continue 'cases;
        }
        seen.insert(checks.clone(), (action, index));
        kept.push((checks, action, index));
    }
    kept.sort_by(|a, b| compare_cases(&a.0, &b.0));
    Ok(kept)
}

/// By the rank of the first condition that differs; of two that begin alike the longer one is first.
fn compare_cases(a: &[Check], b: &[Check]) -> Ordering {
    let differing = a.iter().zip(b).map(|(a, b)| a.rank().cmp(&b.rank())).find(|o| o.is_ne());
    differing.unwrap_or_else(|| b.len().cmp(&a.len()))
}

/// Calls that programs make most, by their weight against all others: the search finds these numbers first. Only
/// speed depends on this table.
const FREQUENT: [(&str, u32); 50] = [
    ("accept4", 8),
    ("access", 8),
    ("brk", 8),
    ("clock_gettime", 16),
    ("clock_nanosleep", 8),
    ("clone", 4),
    ("close", 32),
    ("connect", 8),
    ("dup", 4),
    ("epoll_ctl", 16),
    ("epoll_pwait", 16),
    ("epoll_wait", 32),
    ("execve", 4),
    ("exit_group", 4),
    ("faccessat2", 4),
    ("fcntl", 16),
    ("fstat", 32),
    ("fsync", 4),
    ("futex", 64),
    ("getcwd", 4),
    ("getdents64", 8),
    ("getpid", 16),
    ("getrandom", 8),
    ("gettid", 16),
    ("getuid", 4),
    ("ioctl", 16),
    ("lseek", 16),
    ("madvise", 16),
    ("mmap", 32),
    ("mprotect", 16),
    ("munmap", 16),
    ("nanosleep", 8),
    ("newfstatat", 16),
    ("openat", 32),
    ("pipe2", 4),
    ("poll", 16),
    ("ppoll", 8),
    ("pread64", 16),
    ("pwrite64", 16),
    ("read", 64),
    ("readlink", 8),
    ("recvfrom", 32),
    ("recvmsg", 16),
    ("rt_sigaction", 16),
    ("rt_sigprocmask", 32),
    ("sched_yield", 16),
    ("sendmsg", 16),
    ("sendto", 32),
    ("write", 64),
    ("writev", 16),
];

/// One for each range, and the weights of the frequent calls in it.
fn weights(ranges: &[(u32, Id)], abis: &[Abi]) -> Vec<u32> {
    let mut weights = vec![1; ranges.len()];
    let Some(abi) = abis.first() else { return weights };
    for (name, weight) in FREQUENT {
        let Some(number) = lookup(name).and_then(|n| n.on(*abi)) else { continue };
        let at = ranges.partition_point(|r| r.0 <= number).saturating_sub(1);
        if let Some(sum) = weights.get_mut(at) {
            *sum += weight;
        }
    }
    weights
}

/// A search tree over the ranges that halves the weight at every question, so that a path is as long as its ranges are
/// rarely used, and no longer than the logarithm of the whole weight.
fn search(graph: &mut Graph, ranges: &[(u32, Id)], weights: &[u32]) -> Id {
    match ranges {
        [] => graph.ret(KILL_THREAD),
        [(_, id)] => *id,
        // One number among others that have one outcome.
        [(_, before), (number, id), (next, after)] if before == after && *next == number + 1 => {
            graph.branch(Test::whole(NR, Insn::JUMP_EQ, *number), *id, *before)
        }
        _ => {
            let at = even_split(weights);
            let ((low, high), (low_weights, high_weights)) = (ranges.split_at(at), weights.split_at(at));
            let start = high.first().map_or(0, |r| r.0);
            let yes = search(graph, high, high_weights);
            let no = search(graph, low, low_weights);
            graph.branch(Test::whole(NR, Insn::JUMP_GE, start), yes, no)
        }
    }
}

/// Where to cut so that both sides weigh as nearly the same as can be; neither side is empty.
fn even_split(weights: &[u32]) -> usize {
    let total: u32 = weights.iter().sum();
    let mut left = 0;
    let uneven = weights.iter().map(|w| {
        left += w;
        left.abs_diff(total - left)
    });
    uneven.take(weights.len() - 1).enumerate().min_by_key(|u| u.1).map_or(1, |u| u.0 + 1)
}
