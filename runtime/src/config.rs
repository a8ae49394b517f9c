//! config.json: read once, checked once, errors with JSON paths.

mod unseen;

use crate::error::{Error, Kind, On, Result, invalid};
use crate::netdevices;
use crate::plan::unsupported;
use crate::resctrl;
use crate::whole;
use log::warn;
use oci_spec::runtime::{LinuxNamespaceType as Ns, LinuxSeccompAction, Process, Spec};
use orlop_sys::{fds, file};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A bundle's configuration.
#[derive(Debug)]
pub struct Config {
    /// What it says.
    pub spec: Spec,
    /// The bytes that it was read from: kept with the state, so that later changes of the file have no effect.
    pub raw: Vec<u8>,
}

impl Config {
    /// Reads and parses `file`; see [`Config::check`] for whether it makes sense.
    pub fn load(path: &Path) -> Result<Config> {
        let raw = match whole::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let why = format!("JSON specification file {} not found", path.display());
                return Err(
                    Error::new(Kind::Invalid, why).hint("make one with `orlop spec`, or name the bundle with --bundle")
                );
            }
            other => other.on("read", path.display())?,
        };
        Config::of(raw, path)
    }

    /// The configuration of these bytes; `path` is for errors.
    pub(crate) fn of(raw: Vec<u8>, path: &Path) -> Result<Config> {
        let mut spec = parse(&raw, path)?;
        unseen::correct(&mut spec, &raw);
        Ok(Config { spec, raw })
    }

    /// Everything about the configuration that can be judged without making anything.
    pub fn check(&self) -> Result<()> {
        unseen::check(&self.raw)?;
        CHECKS.iter().try_for_each(|check| check(&self.spec))
    }

    /// The process; a container can be created without one, but not started.
    pub fn process(&self) -> Result<&Process> {
        self.spec.process().as_ref().ok_or_else(|| invalid("process", "must be set"))
    }
}

/// What runc says of a value that has the wrong form, by the start of its path: its users look for it.
const WORDS: &[(&str, &str)] =
    &[("linux.memoryPolicy.flags", "invalid memory policy flag"), ("linux.memoryPolicy", "invalid memory policy mode")];

/// JSON of a bundle or of `exec --process`.
pub fn parse<T: DeserializeOwned>(raw: &[u8], path: &Path) -> Result<T> {
    if let Ok(value) = serde_json::from_slice(raw) {
        return Ok(value);
    }
    // Slower from here on: a value with known gaps filled, or an error that says where.
    let mut tree: Value =
        serde_json::from_slice(raw).map_err(|e| invalid(path.display().to_string(), e.to_string()))?;
    drop_unknown_capabilities(&mut tree);
    fill_process(&mut tree);
    serde_path_to_error::deserialize(tree).map_err(|e| {
        let at = e.path().to_string();
        let mut why = e.into_inner().to_string();
        if let Some((_, words)) = WORDS.iter().find(|(field, _)| at.starts_with(field)) {
            why = format!("{words}: {why}");
        }
        invalid(if at == "." { path.display().to_string() } else { at }, why)
    })
}

/// The specification wants unknown capabilities warned about and left out (config.md, "Linux Process").
fn drop_unknown_capabilities(tree: &mut Value) {
    let process = if tree.get("process").is_some() { "/process/capabilities" } else { "/capabilities" };
    let Some(Value::Object(sets)) = tree.pointer_mut(process) else { return };
    // One name is most often in several of the sets.
    let mut unknown = BTreeSet::new();
    for list in sets.values_mut().filter_map(Value::as_array_mut) {
        list.retain(|c| {
            let known = serde_json::from_value::<oci_spec::runtime::Capability>(c.clone()).is_ok();
            if !known {
                unknown.insert(c.to_string());
            }
            known
        });
    }
    unknown.iter().for_each(|name| warn!("process.capabilities: {name} is unknown: left out"));
}

/// What runc's users rely on, above all in the file of `exec --process`: a process without `user` is root's, an I/O class without
/// `priority` has 0. And the scheduler's flags by the specification's names, for which the types have others.
fn fill_process(tree: &mut Value) {
    const FLAGS: &[(&str, &str)] =
        &[("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"), ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN")];
    let process = if tree.get("process").is_some() { tree.get_mut("process") } else { Some(tree) };
    let Some(Value::Object(process)) = process.filter(|p| p.get("cwd").is_some()) else { return };
    process.entry("user").or_insert_with(|| serde_json::json!({ "uid": 0, "gid": 0 }));
    if let Some(Value::Object(io)) = process.get_mut("ioPriority") {
        io.entry("priority").or_insert_with(|| serde_json::json!(0));
    }
    let flags = process.get_mut("scheduler").and_then(|s| s.get_mut("flags")?.as_array_mut());
    for flag in flags.into_iter().flatten() {
        if let Some((_, known)) = FLAGS.iter().find(|(name, _)| flag == name) {
            *flag = serde_json::json!(known);
        }
    }
}

/// Absolute, with every symlink resolved, and held open while that was found out.
pub fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf> {
    let root = spec.root().as_ref().ok_or_else(|| invalid("root", "must be set"))?;
    let path = bundle.join(root.path());
    let name = crate::plan::c_string(path.as_os_str().as_encoded_bytes(), "root.path")?;
    let fd = file::open(&name, file::O_PATH | file::O_DIRECTORY, 0)
        .on("open rootfs", format!("{path:?}"))
        .map_err(|e| e.at("root.path"))?;
    path_of(fds::Left::from(fd).as_fd()).map_err(|e| e.at("root.path"))
}

/// The path of an open file (proc(5), /proc/PID/fd).
pub fn path_of(fd: BorrowedFd) -> Result<PathBuf> {
    let link = crate::plan::c_string(format!("/proc/self/fd/{}", fd.as_raw_fd()), "")?;
    let mut buf = [0u8; file::PATH_MAX];
    let path = file::readlink(&link, &mut buf).on("readlink", format!("{link:?}"))?;
    Ok(PathBuf::from(OsString::from_vec(path.to_vec())))
}

type Check = fn(&Spec) -> Result<()>;

/// Every check, in the order of the specification's chapters.
const CHECKS: &[Check] = &[
    version,
    root,
    process,
    rlimits,
    names,
    hooks,
    other_platforms,
    annotations,
    kernel_memory,
    mappings,
    masks,
    sysctl,
    seccomp,
    labels,
    net_devices,
    intel_rdt,
];

fn kind(spec: &Spec, kind: Ns) -> Option<Option<&Path>> {
    let list = spec.linux().as_ref()?.namespaces().as_ref()?;
    let path = |n: &oci_spec::runtime::LinuxNamespace| n.path().is_some();
    let found = list.iter().find(|n| n.typ() == kind)?;
    Some(if path(found) { found.path().as_deref().filter(|p| !p.as_os_str().is_empty()) } else { None })
}

fn has(spec: &Spec, ns: Ns) -> bool {
    kind(spec, ns).is_some()
}

fn version(spec: &Spec) -> Result<()> {
    let version = spec.version();
    if version.is_empty() {
        // The specification has it required, and runc's users do without.
        warn!("ociVersion: must be set: taken for version {}", crate::OCI_VERSION);
    }
    if !version.is_empty() && !version.starts_with("1.") {
        return Err(invalid("ociVersion", format!("{version:?} is not a version 1 of the specification")));
    }
    Ok(())
}

fn root(spec: &Spec) -> Result<()> {
    match spec.root() {
        None => Err(invalid("root", "must be set")),
        Some(root) if root.path().as_os_str().is_empty() => Err(invalid("root.path", "must not be empty")),
        Some(_) => Ok(()),
    }
}

fn process(spec: &Spec) -> Result<()> {
    // Without one a container can be created, but not started.
    spec.process().as_ref().map_or(Ok(()), check_process)
}

/// What holds for the process of `exec` too.
pub fn check_process(process: &Process) -> Result<()> {
    if process.cwd().as_os_str().is_empty() {
        return Err(invalid("process.cwd", "Cwd property must not be empty"));
    }
    if !process.cwd().is_absolute() {
        return Err(invalid("process.cwd", "Cwd must be an absolute path"));
    }
    if process.args().iter().flatten().next().is_none() {
        return Err(invalid("process.args", "args must not be empty"));
    }
    if process.command_line().as_ref().is_some_and(|line| !line.is_empty()) {
        return Err(unsupported("process.commandLine", "is for another platform than Linux: use process.args"));
    }
    if let Some(name) = process.user().username().as_ref().filter(|name| !name.is_empty()) {
        warn!("process.user.username: {name:?} has no effect on Linux, where uid and gid are the user");
    }
    let size = process.console_size().filter(|_| process.terminal().unwrap_or(false));
    for (name, value) in size.iter().flat_map(|size| [("height", size.height()), ("width", size.width())]) {
        if u16::try_from(value).is_err() {
            return Err(invalid(
                format!("process.consoleSize.{name}"),
                format!("{value} is more than a terminal can have"),
            ));
        }
    }
    let ids = [("uid", process.user().uid()), ("gid", process.user().gid())];
    let extra = process.user().additional_gids().iter().flatten().enumerate();
    let extra = extra.map(|(i, gid)| (format!("additionalGids[{i}]"), *gid));
    // The number that setresuid(2) takes for "leave it as it is" (CVE-2024-40635).
    for (name, id) in ids.into_iter().map(|(n, id)| (n.to_string(), id)).chain(extra) {
        if id == u32::MAX {
            return Err(invalid(format!("process.user.{name}"), format!("{id} is not an id")));
        }
    }
    Ok(())
}

fn rlimits(spec: &Spec) -> Result<()> {
    let list: Vec<_> = spec.process().iter().flat_map(|p| p.rlimits().iter().flatten()).collect();
    for (i, limit) in list.iter().enumerate() {
        let field = format!("process.rlimits[{i}]");
        if list.iter().take(i).any(|other| other.typ() == limit.typ()) {
            return Err(invalid(field, format!("{} is set twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(invalid(
                field,
                format!("the soft limit {} is above the hard limit {}", limit.soft(), limit.hard()),
            ));
        }
    }
    Ok(())
}

fn names(spec: &Spec) -> Result<()> {
    let set = |name: &Option<String>| name.as_deref().is_some_and(|n| !n.is_empty());
    for (field, given) in [("hostname", set(spec.hostname())), ("domainname", set(spec.domainname()))] {
        if given && !has(spec, Ns::Uts) {
            return Err(invalid(field, format!("unable to set {field} without a private UTS namespace")));
        }
    }
    Ok(())
}

fn hooks(spec: &Spec) -> Result<()> {
    for name in crate::hooks::KINDS {
        for (i, hook) in crate::hooks::list(spec, name).iter().enumerate() {
            let field = format!("hooks.{name}[{i}]");
            if !hook.path().is_absolute() {
                return Err(invalid(format!("{field}.path"), format!("{:?} is not an absolute path", hook.path())));
            }
            if hook.timeout().is_some_and(|t| t <= 0) {
                return Err(invalid(format!("{field}.timeout"), "must be greater than 0"));
            }
        }
    }
    Ok(())
}

fn other_platforms(spec: &Spec) -> Result<()> {
    let sections = [
        ("vm", spec.vm().is_some()),
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    match sections.into_iter().find(|(_, given)| *given) {
        Some(("vm", _)) => Err(unsupported("vm", "orlop makes containers of the host's kernel, not virtual machines")),
        Some((field, _)) => Err(unsupported(field, "is for another platform than Linux")),
        None => Ok(()),
    }
}

fn annotations(spec: &Spec) -> Result<()> {
    match spec.annotations().iter().flatten().find(|(key, _)| key.is_empty()) {
        Some(_) => Err(invalid("annotations", "a key must not be an empty string")),
        None => Ok(()),
    }
}

/// What cgroups no longer have.
fn kernel_memory(spec: &Spec) -> Result<()> {
    let resources = spec.linux().as_ref().and_then(|l| l.resources().as_ref());
    let Some(memory) = resources.and_then(|r| r.memory().as_ref()) else { return Ok(()) };
    if memory.use_hierarchy() == Some(false) {
        let why = "cannot be false: since Linux 5.11 memory is counted in the whole hierarchy";
        return Err(invalid("linux.resources.memory.useHierarchy", why));
    }
    if memory.kernel().is_some_and(|limit| limit > 0) {
        warn!(
            "linux.resources.memory.kernel has no effect: the kernel counts its memory in with the rest since Linux 5.16"
        );
    }
    Ok(())
}

fn mappings(spec: &Spec) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let given = |m: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| m.as_ref().is_some_and(|m| !m.is_empty());
    for (field, given) in [("uidMappings", given(linux.uid_mappings())), ("gidMappings", given(linux.gid_mappings()))] {
        if given && !has(spec, Ns::User) {
            let why = "user namespace mappings specified, but user namespace isn't enabled in the config";
            return Err(invalid(format!("linux.{field}"), why));
        }
    }
    Ok(())
}

fn masks(spec: &Spec) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let given = |paths: &Option<Vec<String>>| paths.as_ref().is_some_and(|p| !p.is_empty());
    for (field, given) in
        [("maskedPaths", given(linux.masked_paths())), ("readonlyPaths", given(linux.readonly_paths()))]
    {
        if given && !has(spec, Ns::Mount) {
            return Err(invalid(
                format!("linux.{field}"),
                "unable to restrict sys entries without a private MNT namespace",
            ));
        }
    }
    Ok(())
}

/// The file of a setting below `/proc/sys`, and the namespace that it belongs to. Err: why nobody may set it but the host (CVE-2022-0811).
pub fn sysctl_of(key: &str) -> std::result::Result<(String, Ns), String> {
    const IPC: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let path = crate::plan::process::sysctl_path(key);
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("{key:?} is not the name of a setting"));
    }
    let name = path.replace('/', ".");
    let needs = if IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
        Ns::Ipc
    } else if name.starts_with("net.") {
        Ns::Network
    } else if name == "kernel.domainname" {
        Ns::Uts
    } else if name == "kernel.hostname" {
        return Err("sysctl \"kernel.hostname\" conflicts with the field hostname: use that".to_string());
    } else {
        return Err(format!("sysctl {key:?} is not in a separate kernel namespace"));
    };
    Ok((path, needs))
}

/// Only settings that belong to a namespace of the container: the others are the host's.
fn sysctl(spec: &Spec) -> Result<()> {
    let list = spec.linux().iter().filter_map(|l| l.sysctl().as_ref()).flatten();
    for (key, _) in list {
        let field = format!("linux.sysctl.{key}");
        let (_, needs) = sysctl_of(key).map_err(|why| invalid(field.clone(), why))?;
        match kind(spec, needs) {
            None => return Err(invalid(field, format!("sysctl {key:?} is not allowed in the host {needs} namespace"))),
            Some(Some(path)) if is_own(needs, path) => {
                return Err(invalid(
                    field,
                    format!("sysctl {key:?} is not allowed: {path:?} is the host's {needs} namespace"),
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Its name in `/proc/PID/ns`, of a namespace that settings belong to.
pub fn namespace_file(kind: Ns) -> &'static str {
    match kind {
        Ns::Network => "net",
        Ns::Uts => "uts",
        _ => "ipc",
    }
}

/// Whether a namespace file is that of the runtime itself.
fn is_own(kind: Ns, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    id(path).is_some_and(|theirs| id(&Path::new("/proc/self/ns").join(namespace_file(kind))) == Some(theirs))
}

fn seccomp(spec: &Spec) -> Result<()> {
    let Some(profile) = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()) else { return Ok(()) };
    // An errno that no one would ever see is a mistake in the profile (config-linux.md, "Seccomp").
    let errnos = |a| matches!(a, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace);
    let no_errno = |field: String, action| invalid(field, format!("the action {action} has no errno"));
    if profile.default_errno_ret().is_some() && !errnos(profile.default_action()) {
        return Err(no_errno("linux.seccomp.defaultErrnoRet".into(), profile.default_action()));
    }
    for (i, rule) in profile.syscalls().iter().flatten().enumerate() {
        let field = |name: &str| format!("linux.seccomp.syscalls[{i}].{name}");
        if rule.names().is_empty() {
            return Err(invalid(field("names"), "must name a system call"));
        }
        if rule.errno_ret().is_some() && !errnos(rule.action()) {
            return Err(no_errno(field("errnoRet"), rule.action()));
        }
    }
    let notifies = |a| matches!(a, LinuxSeccompAction::ScmpActNotify);
    let uses = profile.syscalls().iter().flatten().any(|s| notifies(s.action()));
    let listener = profile.listener_path().as_deref().filter(|p| !p.as_os_str().is_empty());
    if listener.is_none() && profile.listener_metadata().as_ref().is_some_and(|data| !data.is_empty()) {
        return Err(invalid("linux.seccomp.listenerMetadata", "must not be set without listenerPath"));
    }
    if uses && listener.is_none() {
        return Err(invalid("linux.seccomp.listenerPath", "must be set, because a rule's action is SCMP_ACT_NOTIFY"));
    }
    if !uses && listener.is_some() {
        warn!("linux.seccomp.listenerPath: no rule's action is SCMP_ACT_NOTIFY: left out");
    }
    Ok(())
}

fn labels(spec: &Spec) -> Result<()> {
    let set = |label: Option<&String>| label.is_some_and(|l| !l.is_empty());
    let process = spec.process().as_ref().and_then(|p| p.selinux_label().as_ref());
    let mount = spec.linux().as_ref().and_then(|l| l.mount_label().as_ref());
    for (field, given) in [("process.selinuxLabel", set(process)), ("linux.mountLabel", set(mount))] {
        if given && !Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(invalid(
                field,
                "selinux label is specified in config, but selinux is disabled or not supported",
            ));
        }
    }
    Ok(())
}

fn net_devices(spec: &Spec) -> Result<()> {
    let list = netdevices::list(spec);
    for (i, wanted) in list.iter().enumerate() {
        let field = format!("linux.netDevices.{}", wanted.name);
        let invalid_name = |name: &str| invalid(&*field, format!("invalid network device name {name:?}"));
        if !netdevices::is_name(wanted.name) {
            return Err(invalid_name(wanted.name));
        }
        if !netdevices::is_name_or_template(wanted.inside) {
            return Err(invalid_name(wanted.inside));
        }
        let same = |other: &&netdevices::Wanted| other.inside == wanted.inside && !wanted.inside.contains('%');
        if let Some(other) = list.iter().take(i).find(same) {
            let why = format!("gets the name {:?}, which {:?} has got already", wanted.inside, other.name);
            return Err(invalid(field, why));
        }
    }
    if list.is_empty() {
        return Ok(());
    }
    match kind(spec, Ns::Network) {
        None => Err(invalid("linux.netDevices", "unable to move network devices without a NET namespace")),
        Some(Some(path)) if is_own(Ns::Network, path) => {
            Err(invalid("linux.netDevices", format!("{path:?} is the network namespace that the devices are in")))
        }
        Some(_) => Ok(()),
    }
}

fn intel_rdt(spec: &Spec) -> Result<()> {
    spec.linux().as_ref().and_then(|l| l.intel_rdt().as_ref()).map_or(Ok(()), resctrl::check)
}
