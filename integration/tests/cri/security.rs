//! Security contexts of containers, as the process itself sees them.

use crate::fixture::{Container, FOREVER, Lab, Pod, context, linux};
use orlop_integration::cri::messages::*;

pub const TESTS: &[crate::Test] = crate::tests![
    by_default,
    user_and_groups,
    groups_of_the_image,
    capabilities_added_and_dropped,
    capabilities_all_but_one,
    a_readonly_root,
    seccomp_default,
    seccomp_unconfined,
    seccomp_of_a_file,
    no_new_privileges,
    masked_and_readonly_paths,
    no_paths_masked,
    privileged,
    privileged_in_a_plain_pod,
];

fn with<'a>(pod: &'a Pod<'_>, change: impl FnOnce(&mut LinuxContainerSecurityContext)) -> Container<'a> {
    pod.run_with(FOREVER, |config| change(context(config)))
}

/// A line of the status of pid 1, and of a process that is run beside it, which must be the same.
fn status(container: &Container<'_>, name: &str) -> String {
    let line = |pid: &str| {
        let text = container.exec(&format!("grep ^{name}: /proc/{pid}/status"));
        text.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    let (init, exec) = (line("1"), line("self"));
    assert_eq!(init, exec, "{name} of the container, and of what is run in it");
    init
}

fn has(container: &Container<'_>, set: &str, capability: u32) -> bool {
    let mask = u64::from_str_radix(&status(container, set), 16).expect("a mask");
    mask & (1 << capability) != 0
}

const CHOWN: u32 = 0;
const NET_RAW: u32 = 13;
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;

fn by_default(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    assert!(has(&container, "CapEff", CHOWN) && has(&container, "CapBnd", NET_RAW));
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert!(!has(&container, set, SYS_ADMIN) && !has(&container, set, NET_ADMIN), "{set}");
    }
    assert_eq!(status(&container, "CapAmb"), "0000000000000000");
    assert_eq!(status(&container, "NoNewPrivs"), "0");
    assert_eq!(container.exec("id -u; id -g"), "0\n0");
    container.exec("echo >/written");
}

fn user_and_groups(lab: &Lab) {
    let pod = lab.pod();
    let container = with(&pod, |context| {
        context.run_as_user = Some(Int64Value { value: 12345 });
        context.run_as_group = Some(Int64Value { value: 2345 });
        context.supplemental_groups = vec![77, 88];
    });
    assert_eq!(status(&container, "Uid"), "12345 12345 12345 12345");
    assert_eq!(status(&container, "Gid"), "2345 2345 2345 2345");
    let groups = status(&container, "Groups");
    let mut groups: Vec<&str> = groups.split(' ').filter(|group| *group != "2345").collect();
    groups.sort_unstable();
    assert_eq!(groups, ["77", "88"]);
    assert_eq!(status(&container, "CapEff"), "0000000000000000");
    assert!(container.says("echo >/written").contains("Permission denied"));
}

/// A user of the image's own /etc/passwd has the groups of its /etc/group.
fn groups_of_the_image(lab: &Lab) {
    let pod = lab.pod();
    let container = with(&pod, |context| context.run_as_user = Some(Int64Value { value: 1000 }));
    assert_eq!(status(&container, "Uid"), "1000 1000 1000 1000");
    assert_eq!(status(&container, "Gid"), "1000 1000 1000 1000");
    assert!(status(&container, "Groups").split(' ').any(|group| group == "29"), "{}", status(&container, "Groups"));
}

fn capabilities_added_and_dropped(lab: &Lab) {
    let pod = lab.pod();
    let container = with(&pod, |context| {
        context.capabilities = Some(Capability {
            add_capabilities: vec!["NET_ADMIN".to_owned()],
            drop_capabilities: vec!["CHOWN".to_owned()],
        });
    });
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert!(has(&container, set, NET_ADMIN) && !has(&container, set, CHOWN), "{set}");
    }
    container.exec("ip link set dev lo mtu 60000");
    assert!(container.says("chown 1 /bin/busybox").contains("not permitted"));
    let without = pod.sleeping();
    assert!(without.says("ip link set dev lo mtu 50000").contains("not permitted"));
}

fn capabilities_all_but_one(lab: &Lab) {
    let pod = lab.pod();
    let container = with(&pod, |context| {
        context.capabilities = Some(Capability {
            add_capabilities: vec!["NET_RAW".to_owned()],
            drop_capabilities: vec!["ALL".to_owned()],
        });
    });
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(u64::from_str_radix(&status(&container, set), 16), Ok(1 << NET_RAW), "{set}");
    }
}

fn a_readonly_root(lab: &Lab) {
    let pod = lab.pod();
    let container = with(&pod, |context| context.readonly_rootfs = true);
    for path in ["/written", "/etc/written", "/tmp/written"] {
        assert!(container.says(&format!("echo >{path}")).contains("Read-only file system"), "{path}");
    }
    container.exec("echo >/dev/shm/written; echo >/dev/null");
}

fn profile(kind: ProfileType) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() })
}

/// What the default profile lets nobody do without CAP_SYS_ADMIN.
const FILTERED: &str = "unshare -U true && echo made";

fn seccomp_default(lab: &Lab) {
    let pod = lab.pod();
    let container = with(&pod, |context| context.seccomp = profile(ProfileType::RuntimeDefault));
    assert_eq!(status(&container, "Seccomp"), "2");
    assert!(container.says(FILTERED).contains("Operation not permitted"), "{}", container.says(FILTERED));
}

fn seccomp_unconfined(lab: &Lab) {
    let pod = lab.pod();
    let container = with(&pod, |context| {
        context.seccomp = profile(ProfileType::Unconfined);
        // containerd's default profile, where the host has AppArmor, denies new user namespaces as well.
        context.apparmor = profile(ProfileType::Unconfined);
    });
    assert_eq!(status(&container, "Seccomp"), "0");
    assert_eq!(container.says(FILTERED), "made");
}

fn seccomp_of_a_file(lab: &Lab) {
    let file = lab.daemon.file("no-mkdir.json");
    let text = r#"{ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122 }] }"#;
    std::fs::write(&file, text).expect("a file of ours");
    let pod = lab.pod();
    let container = with(&pod, |context| {
        let localhost_ref = file.display().to_string();
        context.seccomp = Some(SecurityProfile { profile_type: ProfileType::Localhost.into(), localhost_ref });
    });
    assert_eq!(status(&container, "Seccomp"), "2");
    assert!(container.says("mkdir /tmp/new").contains("quota exceeded"), "{}", container.says("mkdir /tmp/new"));
}

fn no_new_privileges(lab: &Lab) {
    let pod = lab.pod();
    let container = with(&pod, |context| context.no_new_privs = true);
    assert_eq!(status(&container, "NoNewPrivs"), "1");
}

fn masked_and_readonly_paths(lab: &Lab) {
    let pod = lab.pod();
    let container = with(&pod, |context| {
        context.masked_paths = vec!["/proc/version".to_owned(), "/etc/".to_owned(), "/not/there".to_owned()];
        context.readonly_paths = vec!["/proc/sys".to_owned(), "/srv".to_owned()];
    });
    assert_eq!(container.exec("cat /proc/version; ls -A /etc"), "");
    assert!(container.says("echo >/srv/written").contains("Read-only file system"));
    assert!(container.says("echo 1 >/proc/sys/kernel/shm_rmid_forced").contains("Read-only file system"));
}

/// The kubelet names every path; the runtime has no list of its own.
fn no_paths_masked(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.sleeping();
    assert_eq!(container.exec("grep -c ' /proc/' /proc/mounts || true"), "0");
}

fn privileged_pod(lab: &Lab) -> Pod<'_> {
    lab.pod_with(|config| linux(config).security_context.get_or_insert_default().privileged = true)
}

fn privileged(lab: &Lab) {
    let pod = privileged_pod(lab);
    let container = with(&pod, |context| context.privileged = true);
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert!(has(&container, set, SYS_ADMIN) && has(&container, set, NET_ADMIN), "{set}");
    }
    assert_eq!(status(&container, "Seccomp"), "0");
    container.exec("mount -t tmpfs none /srv && umount /srv");
    // The host's devices, and nothing masked.
    container.exec("test -c /dev/kmsg -o -c /dev/fuse -o -c /dev/loop-control");
    assert_eq!(container.exec("grep -c ' /proc/' /proc/mounts || true"), "0");
    container.exec("cd /sys/fs/cgroup/memory 2>/dev/null || cd /sys/fs/cgroup; mkdir new && rmdir new");
    let other = pod.sleeping();
    assert!(!has(&other, "CapBnd", SYS_ADMIN), "the one beside it is not");
}

fn privileged_in_a_plain_pod(lab: &Lab) {
    let pod = lab.pod();
    let refused = pod.try_create_with(FOREVER, |config| context(config).privileged = true);
    let error = refused.err().expect("the pod is not privileged");
    assert!(error.message.contains("privileged"), "{error}");
}
