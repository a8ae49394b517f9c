//! Users, capabilities, seccomp, privileged containers.

use crate::fixture::Fixture;
use orlop_integration::images::{BUSYBOX, DEBIAN};
use std::fs;

crate::tests![
    users_and_groups,
    default_capabilities,
    capabilities_added_and_dropped,
    capabilities_of_a_user,
    privileged,
    masked_and_read_only_paths,
    seccomp_default_and_unconfined,
    seccomp_profile_gives_its_errno,
    no_new_privileges,
    sysctls,
];

fn status(f: &Fixture, flags: &str, field: &str) -> String {
    let line = f.ok(&format!("run --rm {flags} {BUSYBOX} grep {field}: /proc/self/status"));
    line.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

fn users_and_groups(f: &Fixture) {
    let id = |flags: &str| f.ok(&format!("run --rm {flags} {BUSYBOX} sh -c 'echo $(id -u):$(id -g) $(id -G) $HOME'"));
    assert_eq!(id("--user tester"), "1000:1000 1000 29 /home/tester");
    assert_eq!(id("--user 12:34"), "12:34 34 /");
    assert_eq!(id("--user tester:audio"), "1000:29 29 /home/tester");
    assert_eq!(
        id("--user 1000 --group-add 77 --group-add audio")
            .split(' ')
            .skip(1)
            .filter(|g| ["29", "77"].contains(g))
            .count(),
        2
    );
    let error = f.fails(125, &format!("run --rm --user nobody-of-this-name {BUSYBOX} true"));
    assert!(error.contains("no matching entries in passwd file"), "{error}");
}

fn default_capabilities(f: &Fixture) {
    assert_eq!(status(f, "", "CapEff"), "00000000a80425fb");
    assert_eq!(status(f, "", "CapBnd"), "00000000a80425fb");
}

fn capabilities_added_and_dropped(f: &Fixture) {
    assert_eq!(status(f, "--cap-drop ALL --cap-add CHOWN --cap-add NET_RAW", "CapEff"), "0000000000002001");
    assert_eq!(status(f, "--cap-drop CHOWN", "CapEff"), "00000000a80425fa");
    f.fails(1, &format!("run --rm --cap-drop CHOWN {BUSYBOX} chown 1 /srv"));
    f.ok(&format!("run --rm --cap-add NET_ADMIN {BUSYBOX} ip link set lo mtu 1400"));
    f.fails(2, &format!("run --rm {BUSYBOX} ip link set lo mtu 1400"));
}

fn capabilities_of_a_user(f: &Fixture) {
    assert_eq!(status(f, "--user tester", "CapEff"), "0000000000000000");
    assert_eq!(status(f, "--user tester", "CapBnd"), "00000000a80425fb");
}

/// The capability set is what the daemon itself may give, even where the host keeps some back.
fn privileged(f: &Fixture) {
    let own = fs::read_to_string("/proc/self/status").expect("our status");
    let own = own.lines().find_map(|l| l.strip_prefix("CapBnd:")).expect("CapBnd").trim();
    // Docker 20.10 knows of no capability after CAP_AUDIT_READ, later ones do.
    const KNOWN: u64 = (1 << 38) - 1;
    let mask = |hex: &str| u64::from_str_radix(hex, 16).expect("a mask") & KNOWN;
    assert_eq!(mask(&status(f, "--privileged", "CapEff")), mask(own));
    assert_eq!(status(f, "--privileged", "Seccomp"), "0");
    let script = "mount -t tmpfs none /srv && ls /dev | wc -l && grep -c \" /proc/k\" /proc/self/mountinfo; touch /sys/fs/cgroup";
    let out = f.ok(&format!("run --rm --privileged {BUSYBOX} sh -c '{script}'"));
    let (devices, masks) = out.split_once('\n').expect("two lines");
    assert!(devices.parse::<u32>().is_ok_and(|n| n > 20), "only {devices} devices");
    assert_eq!(masks, "0", "paths below /proc are masked");
    let c = f.ok(&format!("run -d --privileged {BUSYBOX} sleep 300"));
    let line = f.ok(&format!("exec {c} grep CapEff: /proc/self/status"));
    assert_eq!(mask(line.split_whitespace().nth(1).expect("a mask")), mask(own));
}

fn masked_and_read_only_paths(f: &Fixture) {
    assert_eq!(f.ok(&format!("run --rm {BUSYBOX} sh -c 'cat /proc/timer_list /proc/keys | wc -c; ls /proc/scsi /sys/firmware 2>/dev/null | grep -v : | wc -w'")), "0\n0");
    let error = f.fails(1, &format!("run --rm {BUSYBOX} sh -c 'echo x > /proc/sys/kernel/domainname'"));
    assert!(error.contains("Read-only file system"), "{error}");
    let paths = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger";
    let script = "test -e $p && { grep -q \" $p ro,\" /proc/self/mountinfo || echo $p is not; }";
    assert_eq!(f.ok(&format!("run --rm {BUSYBOX} sh -c 'for p in {paths}; do {script}; done; true'")), "");
}

fn seccomp_default_and_unconfined(f: &Fixture) {
    assert_eq!(status(f, "", "Seccomp"), "2");
    assert_eq!(status(f, "--security-opt seccomp=unconfined", "Seccomp"), "0");
    f.fails(1, &format!("run --rm {BUSYBOX} unshare -r true"));
    // Docker's AppArmor profile denies it too.
    let unconfined = "--security-opt seccomp=unconfined --security-opt apparmor=unconfined";
    f.ok(&format!("run --rm {unconfined} {BUSYBOX} unshare -r true"));
    let c = f.ok(&format!("run -d {BUSYBOX} sleep 300"));
    assert_eq!(f.ok(&format!("exec {c} sh -c 'grep Seccomp: /proc/self/status | cut -f2'")), "2");
}

const PROFILE: &str = r#"{
  "defaultAction": "SCMP_ACT_ALLOW",
  "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
  "syscalls": [
    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
    {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}
  ]
}"#;

fn seccomp_profile_gives_its_errno(f: &Fixture) {
    let file = f.dir().join("profile.json");
    fs::write(&file, PROFILE).expect("a file of the test");
    let run = |status, script: &str| {
        f.fails(status, &format!("run --rm --security-opt seccomp={} {BUSYBOX} sh -c '{script}'", file.display()))
    };
    assert!(run(1, "mkdir /srv/x").contains("No space left on device"));
    assert!(run(1, "kill -USR1 1").to_lowercase().contains("not supported"));
    run(0, "kill -0 1; rmdir /srv");
}

/// The bit that makes execve ignore set-user-ID, and its effect on such a program.
fn no_new_privileges(f: &Fixture) {
    for (flag, bit, uid) in [("", "0", "0"), ("--security-opt no-new-privileges", "1", "65534")] {
        assert_eq!(status(f, flag, "NoNewPrivs"), bit);
        let c = f.ok(&format!(
            "run -d {flag} {DEBIAN} sh -c 'cp /usr/bin/id /suid-id; chmod 4755 /suid-id; echo ready; sleep 300'"
        ));
        f.logs(&c, "ready");
        assert_eq!(f.ok(&format!("exec --user 65534 {c} /suid-id -u")), uid, "with flag {flag:?}");
    }
}

fn sysctls(f: &Fixture) {
    let flags = "--sysctl net.core.somaxconn=999 --sysctl kernel.shm_rmid_forced=1 --sysctl net.ipv4.ip_default_ttl=33";
    let out = f.ok(&format!(
        "run --rm {flags} {BUSYBOX} sysctl -n net.core.somaxconn kernel.shm_rmid_forced net.ipv4.ip_default_ttl"
    ));
    assert_eq!(out, "999\n1\n33");
    let own = fs::read_to_string("/proc/sys/net/core/somaxconn").expect("ours");
    assert_ne!(own.trim(), "999", "the sysctl reached the host");
}
