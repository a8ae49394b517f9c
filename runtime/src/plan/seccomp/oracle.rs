//! The profile read literally, and an interpreter for programs: what the tests and the fuzz target hold the compiler to.

use super::*;
use serde_json::json;

pub(super) const X86_64: u32 = 0xc000_003e;
pub(super) const I386: u32 = 0x4000_0003;
pub(super) const AARCH64: u32 = 0xc000_00b7;
pub(super) const ARM: u32 = 0x4000_0028;

/// A call as the filter sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    pub(super) nr: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
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
pub(super) fn run(filter: &[Insn], data: &Data) -> (u32, usize) {
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

/// What the profile says of a call, read literally and without regard to speed.
pub(super) fn meaning(native: Abi, p: &LinuxSeccomp, data: &Data) -> u32 {
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

pub(super) fn arg(index: usize, op: &str, value: u64, value_two: u64) -> LinuxSeccompArg {
    serde_json::from_value(json!({"index": index, "op": op, "value": value, "valueTwo": value_two})).unwrap()
}

pub(super) fn narrow(abi: Abi, value: u64) -> u64 {
    if matches!(abi, Abi::X86_64 | Abi::Aarch64) { value } else { value & 0xffff_ffff }
}

/// The operand as it is compared.
pub(super) fn operand(abi: Abi, a: &LinuxSeccompArg) -> u64 {
    let masked = a.op() == Op::ScmpCmpMaskedEq;
    narrow(abi, if masked { a.value() & a.value_two().unwrap_or(0) } else { a.value() })
}

pub(super) fn mask(abi: Abi, a: &LinuxSeccompArg) -> u64 {
    narrow(abi, if a.op() == Op::ScmpCmpMaskedEq { a.value() } else { u64::MAX })
}

pub(super) fn holds(abi: Abi, a: &LinuxSeccompArg, data: &Data) -> bool {
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

pub(super) fn same(abi: Abi, a: &LinuxSeccompArg, b: &LinuxSeccompArg) -> bool {
    let equality = |op| if op == Op::ScmpCmpMaskedEq { Op::ScmpCmpEq } else { op };
    (a.index(), equality(a.op()), mask(abi, a), operand(abi, a))
        == (b.index(), equality(b.op()), mask(abi, b), operand(abi, b))
}

/// Whether the conditions `a` are tried before `b`, which stands earlier in the profile.
pub(super) fn before(abi: Abi, a: &[LinuxSeccompArg], b: &[LinuxSeccompArg]) -> bool {
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

/// A profile of these bytes, and whether its program does what it means for every number of a call, with arguments around the
/// values that it compares with.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut byte = move || bytes.next();
    let names: Vec<&str> = syscalls::all_names().collect();
    let values = [0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX - 1, u64::MAX];
    let (Some(default), Some(archs)) = (byte(), byte()) else { return };
    let (mut rules, mut used) = (Vec::new(), vec![0u64, 1, u64::MAX]);
    'rules: while let (Some(high), Some(low), Some(action), Some(count)) = (byte(), byte(), byte(), byte()) {
        let mut args = Vec::new();
        for _ in 0..count % 4 {
            let (Some(index), Some(op), Some(value), Some(two)) = (byte(), byte(), byte(), byte()) else {
                break 'rules;
            };
            let of = |n: u8| if n < 128 { values[usize::from(n) % values.len()] } else { u64::from(n) };
            used.extend([of(value), of(value).wrapping_add(1), of(value).wrapping_sub(1), of(value) & of(two)]);
            args.push(json!({ "index": index % 6, "op": OPERATORS[usize::from(op) % OPERATORS.len()], "value": of(value), "valueTwo": of(two) }));
        }
        // Few names, so that rules meet.
        let name = if high < 200 {
            names[usize::from(low) % 24 * 16]
        } else {
            names[(usize::from(high) << 8 | usize::from(low)) % names.len()]
        };
        rules.push(json!({ "names": [name], "action": ACTIONS[usize::from(action) % ACTIONS.len()], "args": args }));
    }
    let archs: Vec<Arch> = [Arch::ScmpArchX86, Arch::ScmpArchX32, Arch::ScmpArchArm]
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| archs >> bit & 1 == 1)
        .map(|(_, arch)| arch)
        .collect();
    let profile = json!({ "defaultAction": ACTIONS[usize::from(default) % ACTIONS.len()], "architectures": archs, "syscalls": rules });
    let Ok(profile) = serde_json::from_value::<LinuxSeccomp>(profile) else { return };
    for (native, machines) in [(Abi::X86_64, [X86_64, I386]), (Abi::Aarch64, [AARCH64, ARM])] {
        let Ok(program) = compile_for(native, &profile) else { continue };
        assert!(program.filter.len() <= MAX_INSNS);
        let mut random = data
            .iter()
            .fold(0x9e37_79b9_7f4a_7c15u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            used[(random >> 33) as usize % used.len()]
        };
        for arch in machines {
            for nr in (0..480).chain(X32_BIT..X32_BIT + 560).chain([0x7fff_ffff, 0x8000_0000, u32::MAX]) {
                let data = Data { nr, arch, args: std::array::from_fn(|_| next()) };
                assert_eq!(
                    run(&program.filter, &data).0,
                    meaning(native, &profile, &data),
                    "{native:?} {data:x?} {profile:?}"
                );
            }
        }
    }
}
