//! Three opinions on every program: the profile read literally, libseccomp, and seccompiler.

use super::*;
use oci_spec::runtime::LinuxSyscall;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;

/// A call as the filter sees it.
#[derive(Clone, Copy, Debug)]
struct Data {
    nr: u32,
    arch: u32,
    args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset / 4 {
            0 => self.nr,
            1 => self.arch,
            2 | 3 => panic!("no profile asks for the instruction pointer"),
            n => (self.args[(n as usize - 4) / 2] >> (32 * (n % 2))) as u32,
        }
    }
}

/// Runs a program: the outcome, and the number of instructions that it took.
fn run(filter: &[Insn], data: &Data) -> (u32, usize) {
    let (mut at, mut a, mut steps) = (0, 0, 0);
    loop {
        let Insn { code, jt, jf, k } = filter[at];
        at += 1;
        steps += 1;
        let holds = match code {
            Insn::LOAD => {
                a = data.word(k);
                continue;
            }
            Insn::AND => {
                a &= k;
                continue;
            }
            Insn::JUMP => {
                at += k as usize;
                continue;
            }
            Insn::RETURN => return (k, steps),
            Insn::JUMP_EQ => a == k,
            Insn::JUMP_GT => a > k,
            Insn::JUMP_GE => a >= k,
            0x45 => a & k != 0,
            _ => panic!("code {code:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

/// SplitMix64: the same profiles in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Small numbers, often with high halves that matter.
    fn value(&mut self) -> u64 {
        let low = self.pick(&[0, 1, 2, 3, 4, 5, 40, 0x7e02_0000, 0xffff_ffff, 0x8000_0000]);
        if self.chance(60) { low } else { low | self.pick(&[1, 2, 0xffff_ffff]) << 32 }
    }
}

fn profile(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).unwrap()
}

/// What the profile says of a call, read literally and without regard to speed.
fn meaning(native: Abi, p: &LinuxSeccomp, data: &Data) -> u32 {
    let listed = |a| p.architectures().iter().flatten().any(|x| *x == a);
    let x32 = native == Abi::X86_64 && listed(Arch::ScmpArchX32);
    let abi = match (native, data.arch) {
        (Abi::X86_64, X86_64) if data.nr & X32_BIT != 0 && (x32 || data.nr == u32::MAX) => Abi::X32,
        (Abi::X86_64, X86_64) => Abi::X86_64,
        (Abi::X86_64, I386) if listed(Arch::ScmpArchX86) => Abi::X86,
        (Abi::Aarch64, AARCH64) => Abi::Aarch64,
        (Abi::Aarch64, ARM) if listed(Arch::ScmpArchArm) => Abi::Arm,
        _ => return KILL_THREAD,
    };
    let default = p.default_action().as_u32(p.default_errno_ret());
    let bit = if abi == Abi::X32 { X32_BIT } else { 0 };
    let entries = || p.syscalls().iter().flatten().flat_map(|e| e.names().iter().map(move |n| (e, n)));
    let numbers = |name: &str| {
        let direct = lookup(name).and_then(|n| n.on(abi)).map(|n| (n | bit, None));
        let indirect = multiplexed(name).filter(|_| abi == Abi::X86).map(|(n, function)| (n, Some(function)));
        direct.into_iter().chain(indirect)
    };
    let last = entries().flat_map(|(_, n)| numbers(n)).map(|n| n.0).max().unwrap_or(0);
    let denies = !matches!(default & 0xffff_0000, ALLOW | LOG | TRACE);
    let foreign = native == Abi::X86_64 && abi != Abi::X86 && !x32 && data.nr & X32_BIT != 0;
    if denies && last != 0 && data.nr > last && !foreign {
        return ERRNO | ENOSYS;
    }
    if abi == Abi::X86_64 && !x32 && data.nr >= X32_BIT {
        return KILL_THREAD;
    }

    let mut rules: Vec<(Vec<LinuxSeccompArg>, u32)> = Vec::new();
    for (entry, name) in entries() {
        let action = entry.action().as_u32(entry.errno_ret());
        let mut args = entry.args().clone().unwrap_or_default();
        args.sort_by_key(|a| a.index());
        let repeated = args.windows(2).any(|w| w[0].index() == w[1].index());
        for (_, function) in numbers(name).filter(|n| n.0 == data.nr && action != default) {
            let cases = if repeated { args.iter().map(|a| vec![*a]).collect() } else { vec![args.clone()] };
            for mut case in cases {
                if let Some(function) = function {
                    case.retain(|a| a.index() != 0);
                    case.insert(0, arg(0, "SCMP_CMP_EQ", u64::from(function), 0));
                }
                case.retain(|a| a.op() != Op::ScmpCmpMaskedEq || narrow(abi, a.value()) != 0);
                rules.push((case, action));
            }
        }
    }
    if let Some((_, action)) = rules.iter().find(|r| r.0.is_empty()) {
        return *action;
    }
    let begins = |whole: &[LinuxSeccompArg], part: &[LinuxSeccompArg]| {
        whole.len() >= part.len() && whole.iter().zip(part).all(|(a, b)| same(abi, a, b))
    };
    let alive: Vec<usize> =
        (0..rules.len()).filter(|i| !rules[..*i].iter().any(|earlier| begins(&rules[*i].0, &earlier.0))).collect();
    let mut best: Option<usize> = None;
    for i in alive {
        if rules[i].0.iter().all(|a| holds(abi, a, data)) && best.is_none_or(|b| before(abi, &rules[i].0, &rules[b].0))
        {
            best = Some(i);
        }
    }
    best.map_or(default, |i| rules[i].1)
}

fn arg(index: usize, op: &str, value: u64, value_two: u64) -> LinuxSeccompArg {
    serde_json::from_value(json!({"index": index, "op": op, "value": value, "valueTwo": value_two})).unwrap()
}

fn narrow(abi: Abi, value: u64) -> u64 {
    if matches!(abi, Abi::X86_64 | Abi::Aarch64) { value } else { value & 0xffff_ffff }
}

/// The operand as it is compared.
fn operand(abi: Abi, a: &LinuxSeccompArg) -> u64 {
    let masked = a.op() == Op::ScmpCmpMaskedEq;
    narrow(abi, if masked { a.value() & a.value_two().unwrap_or(0) } else { a.value() })
}

fn mask(abi: Abi, a: &LinuxSeccompArg) -> u64 {
    narrow(abi, if a.op() == Op::ScmpCmpMaskedEq { a.value() } else { u64::MAX })
}

fn holds(abi: Abi, a: &LinuxSeccompArg, data: &Data) -> bool {
    let (have, want) = (data.args[a.index()] & mask(abi, a), operand(abi, a));
    match a.op() {
        Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => have == want,
        Op::ScmpCmpNe => have != want,
        Op::ScmpCmpLt => have < want,
        Op::ScmpCmpLe => have <= want,
        Op::ScmpCmpGe => have >= want,
        Op::ScmpCmpGt => have > want,
    }
}

fn same(abi: Abi, a: &LinuxSeccompArg, b: &LinuxSeccompArg) -> bool {
    let equality = |op| if op == Op::ScmpCmpMaskedEq { Op::ScmpCmpEq } else { op };
    (a.index(), equality(a.op()), mask(abi, a), operand(abi, a))
        == (b.index(), equality(b.op()), mask(abi, b), operand(abi, b))
}

/// Whether the conditions `a` are tried before `b`, which stands earlier in the profile.
fn before(abi: Abi, a: &[LinuxSeccompArg], b: &[LinuxSeccompArg]) -> bool {
    for (x, y) in a.iter().zip(b) {
        if x.index() != y.index() {
            return x.index() > y.index();
        }
        let class = |op| match op {
            Op::ScmpCmpEq | Op::ScmpCmpNe | Op::ScmpCmpMaskedEq => 0,
            Op::ScmpCmpLt | Op::ScmpCmpLe => 1,
            Op::ScmpCmpGe | Op::ScmpCmpGt => 2,
        };
        let (cx, cy) = (class(x.op()), class(y.op()));
        if cx != cy {
            return cx < cy;
        }
        let (vx, vy) = (operand(abi, x), operand(abi, y));
        if vx != vy {
            return if cx == 1 { vx < vy } else { vx > vy };
        }
    }
    a.len() > b.len()
}

const OPS: [&str; 7] =
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];
const DEFAULTS: [&str; 7] = [
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
];
const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_NOTIFY",
];

/// All names of the table, by way of the numbers that they have somewhere.
fn names() -> Vec<&'static str> {
    syscalls::all_names().collect()
}

/// A profile of random rules. With `one_action`, a name's rules never contradict each other.
fn random_profile(random: &mut Random, archs: &[&str], one_action: bool) -> Value {
    let all = names();
    let crowded = ["socket", "bind", "semctl", "clone", "personality", "read", "ioctl", "accept4"];
    let mut rules = Vec::new();
    for _ in 0..random.pick(&[0, 1, 3, 8, 40, 400]) {
        let name = if random.chance(40) { random.pick(&crowded) } else { random.pick(&all) };
        let seed = name.bytes().fold(0usize, |sum, b| (sum * 31 + usize::from(b)) % 100_003);
        let action = if one_action { ACTIONS[seed % 8] } else { random.pick(&ACTIONS) };
        if action == "SCMP_ACT_NOTIFY" && name == "write" {
            continue;
        }
        let args: Vec<Value> = (0..if random.chance(50) { 0 } else { random.below(4) })
            .map(|_| {
                let arguments = random.pick(&[3, 3, 3, 3, 6]);
                json!({"index": random.below(arguments), "value": random.value(),
                    "valueTwo": random.value(), "op": random.pick(&OPS)})
            })
            .collect();
        rules.push(json!({"names": [name], "action": action, "args": args}));
        if random.chance(30) {
            let errno = if one_action { seed % 50 } else { random.below(50) };
            rules.last_mut().unwrap()["errnoRet"] = json!(errno);
        }
    }
    let archs: Vec<&str> = archs.iter().copied().filter(|_| random.chance(70)).collect();
    json!({"defaultAction": random.pick(&DEFAULTS), "architectures": archs, "syscalls": rules})
}

/// Every number that a table has, and the edges between the zones.
fn numbers() -> impl Iterator<Item = u32> {
    let edges = [0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xc000_0000, 0xffff_fffe, 0xffff_ffff];
    (0..620).chain(X32_BIT..X32_BIT + 620).chain(0xf_0000..0xf_0009).chain(edges)
}

fn random_args(random: &mut Random) -> [u64; 6] {
    std::array::from_fn(|_| {
        let value = random.value();
        random.pick(&[value, value, value.wrapping_add(1), value.wrapping_sub(1)])
    })
}

#[test]
fn programs_do_what_profiles_say() {
    let mut random = Random(1);
    let (mut compiled, mut refused) = (0, 0);
    for round in 0..250 {
        let (native, archs) = if round % 3 == 0 {
            (Abi::Aarch64, ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_MIPS"])
        } else {
            (Abi::X86_64, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
        };
        let p = profile(random_profile(&mut random, &archs, false));
        let Ok(program) = compile_for(native, &p) else {
            refused += 1;
            continue;
        };
        compiled += 1;
        let mut named: Vec<u32> = Vec::new();
        for name in p.syscalls().iter().flatten().flat_map(|e| e.names()) {
            for abi in [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64, Abi::Arm] {
                let bit = if abi == Abi::X32 { X32_BIT } else { 0 };
                named.extend(lookup(name).and_then(|n| n.on(abi)).map(|n| n | bit));
            }
        }
        let often = named.into_iter().flat_map(|n| [n; 4]).take(400).collect::<Vec<_>>();
        for arch in [X86_64, I386, AARCH64, ARM, 8] {
            let few = if p.syscalls().iter().flatten().count() > 50 { 7 } else { 1 };
            for nr in numbers().step_by(few).chain([102, 117, 102, 117]).chain(often.iter().copied().step_by(few)) {
                let mut data = Data { nr, arch, args: random_args(&mut random) };
                if matches!(nr, 102 | 117) {
                    data.args[0] = random.below(22) as u64;
                }
                let (ours, said) = (run(&program.filter, &data).0, meaning(native, &p, &data));
                assert_eq!(ours, said, "round {round}, {data:x?}: {ours:#x}, not {said:#x}");
            }
        }
    }
    assert!(compiled > 100 && refused > 5, "{compiled} compiled, {refused} refused");
}
