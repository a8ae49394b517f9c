//! Device rules: config.json's list becomes an allow or deny list once; v1 prints it as lines for `devices.allow` and
//! `devices.deny`, v2 assembles a `BPF_CGROUP_DEVICE` program from it.

use super::tree;
use crate::error::{self, Error, On, Result, invalid};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use orlop_sys::Errno;
use orlop_sys::devices::{self, Instruction};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

const FIELD: &str = "linux.resources.devices";

/// Bits of `BPF_DEVCG_ACC_*` (linux/bpf.h).
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// Every container may use these after its own rules, whatever they say: the specification's default devices, the
/// pseudo terminals, /dev/net/tun (which engines have relied on since Docker's first releases), and mknod of anything,
/// which gives no access by itself. The same list as runc's.
const DEFAULTS: &[(Kind, Option<u32>, Option<u32>, u8)] = &[
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), ALL),    // null
    (Kind::Char, Some(1), Some(8), ALL),    // random
    (Kind::Char, Some(1), Some(7), ALL),    // full
    (Kind::Char, Some(5), Some(0), ALL),    // tty
    (Kind::Char, Some(1), Some(5), ALL),    // zero
    (Kind::Char, Some(1), Some(9), ALL),    // urandom
    (Kind::Char, Some(136), None, ALL),     // pts/*
    (Kind::Char, Some(5), Some(2), ALL),    // ptmx
    (Kind::Char, Some(10), Some(200), ALL), // net/tun
];

/// The type of a device node, with the values of `BPF_DEVCG_DEV_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A block device.
    Block = 1,
    /// A character device.
    Char = 2,
}

/// Which nodes an exception is for; no major or minor number means any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    major: Option<u32>,
    minor: Option<u32>,
    kind: Kind,
}

/// Nodes and what of their access is meant, in the order of the rules that named them first, as `devices.list` shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Exceptions(Vec<(Node, u8)>);

impl Exceptions {
    fn held(&self, node: &Node) -> u8 {
        self.0.iter().find(|(one, _)| one == node).map_or(0, |(_, access)| *access)
    }

    fn add(&mut self, node: Node, access: u8) {
        match self.0.iter_mut().find(|(one, _)| *one == node) {
            Some((_, held)) => *held |= access,
            None => self.0.push((node, access)),
        }
    }

    fn take(&mut self, node: Node, access: u8) {
        self.0.iter_mut().filter(|(one, _)| *one == node).for_each(|(_, held)| *held &= !access);
        self.0.retain(|(_, held)| *held != 0);
    }
}

/// An allow list (everything is denied but the exceptions) or a deny list (the other way round).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceList {
    default_allow: bool,
    exceptions: Exceptions,
}

impl DeviceList {
    /// The list that results from applying the rules in their order and then the defaults.
    ///
    /// # Errors
    /// A rule with an unknown access or type, numbers out of range, or one that would take away a part of an earlier
    /// wildcard: v1 ignores such a rule without a word, so that it would protect nothing.
    pub fn new(rules: &[LinuxDeviceCgroup]) -> Result<DeviceList> {
        let mut list = DeviceList::default();
        for (i, rule) in rules.iter().enumerate() {
            list.apply(rule).map_err(|e| e.within(&format!("{FIELD}[{i}]")))?;
        }
        for (kind, major, minor, access) in DEFAULTS {
            let node = Node { major: *major, minor: *minor, kind: *kind };
            list.change(node, *access, true).map_err(|e| e.within(FIELD))?;
        }
        Ok(list)
    }

    /// Whether every device is open, as in a privileged container.
    pub fn allows_all(&self) -> bool {
        self.default_allow && self.exceptions.0.is_empty()
    }

    /// The list as the entries of a unit's `DeviceAllow` (systemd.resource-control(5)), and whether that is all of it: a unit
    /// can only allow, and cannot name a minor number of every major one.
    pub fn unit_rules(&self) -> (Vec<(String, String)>, bool) {
        if self.default_allow {
            return (Vec::new(), self.exceptions.0.is_empty());
        }
        let path = |node: &Node| {
            let kind = if node.kind == Kind::Block { "block" } else { "char" };
            match (node.major, node.minor) {
                (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
                (Some(major), None) => Some(format!("{kind}-{major}")),
                (None, None) => Some(format!("{kind}-*")),
                (None, Some(_)) => None,
            }
        };
        let rules: Vec<_> = self.exceptions.0.iter().filter_map(|(n, a)| Some((path(n)?, letters(*a)))).collect();
        let complete = rules.len() == self.exceptions.0.len();
        (rules, complete)
    }

    fn apply(&mut self, rule: &LinuxDeviceCgroup) -> Result<()> {
        let access = access(rule.access().as_deref().unwrap_or_default())?;
        let kind = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C => Kind::Char,
            LinuxDeviceType::A => {
                // "a" means every node and every access, and starts the list anew, whatever its other fields say.
                *self = DeviceList { default_allow: rule.allow(), exceptions: Exceptions::default() };
                return Ok(());
            }
            other => return Err(invalid("type", format!("invalid cgroup device type {:?}", other.as_str()))),
        };
        let node = Node { major: number(rule.major(), "major")?, minor: number(rule.minor(), "minor")?, kind };
        self.change(node, access, rule.allow())
    }

    fn change(&mut self, node: Node, access: u8, allow: bool) -> Result<()> {
        if allow != self.default_allow {
            self.exceptions.add(node, access);
            return Ok(());
        }
        for wider in
            [Node { major: None, ..node }, Node { minor: None, ..node }, Node { major: None, minor: None, ..node }]
        {
            if wider != node && self.exceptions.held(&wider) & access != 0 {
                return Err(Error::new(
                    error::Kind::Invalid,
                    format!(
                        "rule {} is not possible: an earlier rule {} covers it and more",
                        line(node, access),
                        line(wider, access)
                    ),
                )
                .hint("cgroups cannot make a hole in a wildcard rule: list what is wanted instead"));
            }
        }
        self.exceptions.take(node, access);
        Ok(())
    }

    /// What to write to a v1 devices cgroup, as (file, line), to come from `current` to this list. `None` is a cgroup
    /// whose state does not matter because nobody is inside. From an allow list to an allow list there is no moment in
    /// which a device that both lists allow is denied.
    pub fn lines(&self, current: Option<&DeviceList>) -> Vec<(&'static str, String)> {
        const FILES: [&str; 2] = ["devices.deny", "devices.allow"];
        let [same, other] = if self.default_allow { [FILES[1], FILES[0]] } else { FILES };
        let none = Exceptions::default();
        let mut lines = Vec::new();
        // devices.list does not show the exceptions of a deny list, so one always starts anew.
        let old = match current {
            Some(current) if !current.default_allow && !self.default_allow => &current.exceptions,
            _ => {
                lines.push((same, "a *:* rwm".to_string()));
                &none
            }
        };
        for (node, access) in &old.0 {
            match access & !self.exceptions.held(node) {
                0 => {}
                dropped => lines.push((same, line(*node, dropped))),
            }
        }
        for (node, access) in &self.exceptions.0 {
            match access & !old.held(node) {
                0 => {}
                gained => lines.push((other, line(*node, gained))),
            }
        }
        lines
    }

    /// Reads the text of `devices.list`.
    pub fn parse(text: &str) -> Option<DeviceList> {
        let mut list = DeviceList::default();
        for line in text.lines() {
            let mut words = line.split([' ', ':']);
            let (kind, major, minor, letters) = (words.next()?, words.next()?, words.next()?, words.next()?);
            let kind = match kind {
                "a" => return Some(DeviceList { default_allow: true, ..DeviceList::default() }),
                "b" => Kind::Block,
                "c" => Kind::Char,
                _ => return None,
            };
            let number = |s: &str| if s == "*" { Some(None) } else { s.parse().ok().map(Some) };
            let node = Node { major: number(major)?, minor: number(minor)?, kind };
            list.exceptions.add(node, access(letters).ok()?);
        }
        Some(list)
    }

    /// The program for `BPF_PROG_TYPE_CGROUP_DEVICE`. Its context is `struct bpf_cgroup_dev_ctx`: the kind in the low
    /// and the access in the high half of the first word, then major and minor.
    pub fn program(&self) -> Vec<Instruction> {
        let mut p = vec![
            op(LOAD_WORD, 2, 1, 0, 0),
            op(MOV32_REG, 3, 2, 0, 0),
            op(AND32, 2, 0, 0, 0xffff),
            op(RSH32, 3, 0, 0, 16),
            op(LOAD_WORD, 4, 1, 4, 0),
            op(LOAD_WORD, 5, 1, 8, 0),
        ];
        for (node, access) in &self.exceptions.0 {
            let mut tests = vec![(JNE32, 2, node.kind as i32)];
            tests.extend(node.major.map(|n| (JNE32, 4, n as i32)));
            tests.extend(node.minor.map(|n| (JNE32, 5, n as i32)));
            let mut block: Vec<_> = tests.into_iter().map(|(code, reg, imm)| op(code, reg, 0, 0, imm)).collect();
            if *access != ALL {
                // Who asks for more than an allow rule gives is not let in by it; who asks for any part of what a deny
                // rule takes is stopped by it. (v1 decides alike: match_exception and match_exception_partial.)
                let (mask, leave) = if self.default_allow { (*access, JEQ32) } else { (ALL & !*access, JNE32) };
                block.push(op(MOV32_REG, 0, 3, 0, 0));
                block.push(op(AND32, 0, 0, 0, i32::from(mask)));
                block.push(op(leave, 0, 0, 0, 0));
            }
            block.push(op(MOV32, 0, 0, 0, i32::from(!self.default_allow)));
            block.push(op(EXIT, 0, 0, 0, 0));
            let length = block.len();
            for (i, step) in block.iter_mut().enumerate() {
                if matches!(step.code, JNE32 | JEQ32) {
                    step.off = (length - i - 1) as i16;
                }
            }
            p.append(&mut block);
        }
        p.push(op(MOV32, 0, 0, 0, i32::from(self.default_allow)));
        p.push(op(EXIT, 0, 0, 0, 0));
        p
    }

    /// Applies the list to a v1 devices cgroup; `fresh` says that nobody is inside.
    pub fn write_v1(&self, dir: &Path, fresh: bool) -> Result<()> {
        let current = if fresh {
            None
        } else {
            let path = dir.join("devices.list");
            DeviceList::parse(&tree::read_all(&path).on("read", format!("{path:?}"))?)
        };
        // No reading back: every line either takes effect or is refused with an errno, since `change` already refused
        // the ones that the kernel would ignore.
        match tree::write_lines(dir, &self.lines(current.as_ref())) {
            Err(e) if matches!(e.errno(), Some(Errno::EPERM | Errno::EACCES)) && tree::in_user_namespace() => Ok(()),
            Err(e) if e.errno() == Some(Errno::EPERM) => Err(e
                .at(FIELD)
                .hint("a parent cgroup denies this device, and a child cannot have more than its parent")),
            result => result.map_err(|e| e.at(FIELD)),
        }
    }

    /// Applies the list to a v2 cgroup; `fresh` says that it was made a moment ago and has no program yet.
    pub fn attach(&self, dir: BorrowedFd<'_>, fresh: bool) -> Result<()> {
        if fresh && self.allows_all() {
            return Ok(());
        }
        let attached = devices::load(&self.program()).on("bpf BPF_PROG_LOAD of", "the device filter").and_then(|p| {
            let attach = if fresh { devices::attach } else { devices::replace };
            attach(dir, p.as_fd()).on("bpf BPF_PROG_ATTACH of", "the device filter")
        });
        match attached {
            // bpf(2) is not for user namespaces. Device nodes of the host cannot be made or mounted there either.
            Err(e) if matches!(e.errno(), Some(Errno::EPERM | Errno::EACCES)) && tree::in_user_namespace() => Ok(()),
            result => result.map_err(|e| e.at(FIELD)),
        }
    }
}

fn access(letters: &str) -> Result<u8> {
    if letters.is_empty() {
        return Err(invalid("access", "device access cannot be empty"));
    }
    let bits = letters.chars().try_fold(0, |bits, letter| match letter {
        'm' => Ok(bits | MKNOD),
        'r' => Ok(bits | READ),
        'w' => Ok(bits | WRITE),
        // runc passes over it beside the others, and configurations have it.
        'a' => Ok(bits),
        _ => Err(invalid("access", format!("unknown device access {letter:?}")).hint("any of r, w and m")),
    })?;
    if bits == 0 {
        return Err(invalid("access", format!("{letters:?} names no access")).hint("any of r, w and m"));
    }
    if letters.contains('a') {
        log::warn!("linux.resources.devices: access {letters:?}: \"a\" has no effect: any of r, w and m");
    }
    Ok(bits)
}

/// Absent and -1 mean any number.
fn number(value: Option<i64>, field: &'static str) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n)
            .map(Some)
            .map_err(|_| invalid(field, format!("{n} is not a device number (0 to 4294967295, or -1 for any)"))),
    }
}

/// A rule as the v1 files want it: `c 1:3 rwm`.
fn line(node: Node, access: u8) -> String {
    let kind = match node.kind {
        Kind::Block => 'b',
        Kind::Char => 'c',
    };
    let number = |n: Option<u32>| n.map_or("*".to_string(), |n| n.to_string());
    format!("{kind} {}:{} {}", number(node.major), number(node.minor), letters(access))
}

/// An access as it is written: `rwm`.
fn letters(access: u8) -> String {
    let letters = [(READ, "r"), (WRITE, "w"), (MKNOD, "m")];
    letters.iter().filter(|(bit, _)| access & bit != 0).map(|(_, letter)| *letter).collect()
}

// Opcodes (linux/bpf_common.h, linux/bpf.h): class | operation | source.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOV32: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const MOV32_REG: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND32: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RSH32: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JNE32: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K; 32 bits, because a 64-bit test would sign-extend large numbers
const JEQ32: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

fn op(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Instruction {
    let regs = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    Instruction { code, regs, off, imm }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str) -> Result<DeviceList> {
        DeviceList::new(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap())
    }

    fn written(json: &str) -> Vec<String> {
        list(json).unwrap().lines(None).into_iter().map(|(file, line)| format!("{file}: {line}")).collect()
    }

    const DEFAULT_LINES: [&str; 12] = [
        "devices.deny: a *:* rwm",
        "devices.allow: c *:* m",
        "devices.allow: b *:* m",
        "devices.allow: c 1:3 rwm",
        "devices.allow: c 1:8 rwm",
        "devices.allow: c 1:7 rwm",
        "devices.allow: c 5:0 rwm",
        "devices.allow: c 1:5 rwm",
        "devices.allow: c 1:9 rwm",
        "devices.allow: c 136:* rwm",
        "devices.allow: c 5:2 rwm",
        "devices.allow: c 10:200 rwm",
    ];

    #[test]
    fn the_letter_a_beside_others_changes_nothing() {
        let rule = |access: &str| {
            written(&format!(r#"[{{"allow":true,"type":"c","major":9,"minor":9,"access":"{access}"}}]"#))
        };
        assert_eq!(rule("rwa"), rule("rw"));
        assert_ne!(rule("rwa"), rule("rwm"));
    }

    #[test]
    fn no_rules_are_an_allow_list_of_the_defaults() {
        assert_eq!(written("[]"), DEFAULT_LINES);
        assert_eq!(written(r#"[{"allow":false,"access":"rwm"}]"#), DEFAULT_LINES);
    }

    #[test]
    fn a_privileged_container_has_no_exceptions() {
        let json = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"a","major":5,"access":"r"}]"#;
        assert!(list(json).unwrap().allows_all());
        assert_eq!(written(json), ["devices.allow: a *:* rwm"]);
    }

    #[test]
    fn rules_join_and_take_away() {
        let own = |json: &str| -> Vec<String> {
            written(json).into_iter().filter(|line| !DEFAULT_LINES.contains(&line.as_str())).collect()
        };
        assert_eq!(
            own(
                r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"r"},{"allow":true,"type":"b","major":8,"minor":0,"access":"w"}]"#
            ),
            ["devices.allow: b 8:0 rw"]
        );
        assert_eq!(
            own(
                r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"rw"},{"allow":false,"type":"b","major":8,"minor":0,"access":"w"}]"#
            ),
            ["devices.allow: b 8:0 r"]
        );
        // In a deny list the defaults can only take exceptions away.
        assert_eq!(
            own(
                r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":3,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"w"}]"#
            ),
            ["devices.allow: a *:* rwm", "devices.deny: c 1:11 w"]
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (json, expected) in [
            (r#"[{"allow":true}]"#, "linux.resources.devices[0].access: device access cannot be empty"),
            (r#"[{"allow":true,"access":"a"}]"#, "linux.resources.devices[0].access: \"a\" names no access"),
            (r#"[{"allow":true,"access":"rx"}]"#, "linux.resources.devices[0].access: unknown device access 'x'"),
            (
                r#"[{"allow":true,"type":"p","access":"r"}]"#,
                "linux.resources.devices[0].type: invalid cgroup device type \"p\"",
            ),
            (
                r#"[{"allow":true,"type":"c","major":-2,"access":"r"}]"#,
                "linux.resources.devices[0].major: -2 is not a device number",
            ),
            (
                r#"[{"allow":true,"type":"c","major":4294967296,"access":"r"}]"#,
                "linux.resources.devices[0].major: 4294967296 is not a device number",
            ),
            // A hole in a wildcard: v1 would ignore the second rule and leave 1:11 open.
            (
                r#"[{"allow":true,"type":"c","major":1,"access":"rw"},{"allow":false,"type":"c","major":1,"minor":11,"access":"w"}]"#,
                "linux.resources.devices[1]: rule c 1:11 w is not possible",
            ),
        ] {
            let got = list(json).unwrap_err().to_string();
            assert!(got.starts_with(expected), "{json}: {got}");
        }
        // The same rules for different accesses do not overlap.
        assert!(list(r#"[{"allow":true,"type":"c","major":1,"access":"r"},{"allow":false,"type":"c","major":1,"minor":11,"access":"w"}]"#).is_ok());
    }

    #[test]
    fn a_change_touches_only_what_changes() {
        let old = list(r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"rw"}]"#).unwrap();
        let new = list(r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"rm"}]"#).unwrap();
        assert_eq!(
            new.lines(Some(&old)),
            [("devices.deny", "b 8:0 w".to_string()), ("devices.allow", "b 8:0 m".to_string())]
        );
        assert_eq!(new.lines(Some(&new)), []);
        // What a deny list holds cannot be read, so it is always written anew.
        let all = DeviceList::parse("a *:* rwm\n").unwrap();
        assert!(all.allows_all());
        assert_eq!(new.lines(Some(&all)), new.lines(None));
    }

    #[test]
    fn devices_list_is_read_back() {
        let list = list("[]").unwrap();
        let text: String = list.lines(None).iter().skip(1).map(|(_, line)| format!("{line}\n")).collect();
        assert_eq!(DeviceList::parse(&text), Some(list));
        assert_eq!(DeviceList::parse("c 1:x rwm\n"), None);
        assert_eq!(DeviceList::parse("c 1:3\n"), None);
    }

    /// Runs a program as the kernel would, on (kind, access, major, minor).
    fn run(program: &[Instruction], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
        let context = [u32::from(access) << 16 | kind as u32, major, minor];
        let mut r = [0_u32; 6];
        let mut pc = 0_usize;
        loop {
            let step = program[pc];
            let (dst, src) = ((step.regs & 15) as usize, (step.regs >> 4) as usize);
            let imm = step.imm as u32;
            let jump = match step.code {
                LOAD_WORD => {
                    r[dst] = context[step.off as usize / 4];
                    false
                }
                MOV32 => {
                    r[dst] = imm;
                    false
                }
                MOV32_REG => {
                    r[dst] = r[src];
                    false
                }
                AND32 => {
                    r[dst] &= imm;
                    false
                }
                RSH32 => {
                    r[dst] >>= imm;
                    false
                }
                JNE32 => r[dst] != imm,
                JEQ32 => r[dst] == imm,
                EXIT => return r[0] == 1,
                code => panic!("opcode {code:#x}"),
            };
            pc += 1 + if jump { step.off as usize } else { 0 };
        }
    }

    #[test]
    fn the_program_decides_as_the_list_says() {
        let allow = list(r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"r"},{"allow":true,"type":"c","major":4294967295,"access":"rw"}]"#)
            .unwrap()
            .program();
        let deny =
            list(r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"w"}]"#)
                .unwrap()
                .program();
        for (program, kind, access, major, minor, expected) in [
            (&allow, Kind::Char, ALL, 1, 3, true),
            (&allow, Kind::Char, READ | WRITE, 136, 77, true),
            (&allow, Kind::Block, ALL, 1, 3, false),
            (&allow, Kind::Char, MKNOD, 99, 99, true),
            (&allow, Kind::Char, READ, 1, 11, false),
            (&allow, Kind::Char, MKNOD | READ, 1, 11, false),
            (&allow, Kind::Block, READ, 8, 0, true),
            (&allow, Kind::Block, READ | WRITE, 8, 0, false),
            (&allow, Kind::Block, READ, 8, 1, false),
            (&allow, Kind::Char, READ | WRITE, u32::MAX, 5, true),
            (&deny, Kind::Char, READ, 1, 11, true),
            (&deny, Kind::Char, WRITE, 1, 11, false),
            // Opening for both asks for a part of what is denied.
            (&deny, Kind::Char, READ | WRITE, 1, 11, false),
            (&deny, Kind::Block, WRITE, 1, 11, true),
            (&deny, Kind::Char, ALL, 1, 12, true),
        ] {
            assert_eq!(run(program, kind, access, major, minor), expected, "{kind:?} {major}:{minor} access {access}");
        }
    }
}
