//! What containerd runs: `start` gives the address of a daemon, `delete` cleans up where none is left, `-info` tells what there is.

use crate::args::Args;
use crate::container::{INIT_PID, delete_by_force};
use crate::events::timestamp;
use crate::mounts;
use crate::options::Options;
use crate::serve;
use crate::worker;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use orlop_sys::process::SIGKILL;
use orlop_sys::{fds, file, process};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The name that containerd knows this runtime by.
const NAME: &str = "io.containerd.orlop.v2";
/// What containerd calls the JSON of runtime-spec's features.md.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
/// The version of the Task API that we prefer; 2 is served as well.
const TASK_API: i32 = 3;
/// Annotations that put several containers into one daemon; the first one that is there counts.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];
/// Where sockets are, unless containerd says otherwise: the path of a socket has at most 107 bytes.
const SOCKETS: &str = "/run/containerd/s";
/// containerd's requests are small; a longer one is none of its.
const MOST: u64 = 10 << 20;

/// Text of `-v`.
pub fn version() -> String {
    let (version, commit) = (env!("CARGO_PKG_VERSION"), option_env!("ORLOP_COMMIT").unwrap_or("unknown"));
    format!("containerd-shim-orlop-v2:\n  Version:  {version}\n  Revision: {commit}\n\n")
}

/// The message of `-info`; options of the runtime are on stdin.
pub fn info() -> Result<Vec<u8>, String> {
    let options = parsed::<Any>(&stdin()?);
    let mut info = RuntimeInfo::new();
    info.name = NAME.to_string();
    let mut version = RuntimeVersion::new();
    version.version = env!("CARGO_PKG_VERSION").to_string();
    info.version = Some(version).into();
    info.options = options.into();
    let mut features = Any::new();
    features.type_url = FEATURES.to_string();
    features.value = orlop::ops::features::features().map_err(|e| e.to_string())?.into_bytes();
    info.features = Some(features).into();
    message(&info)
}

/// How containerd speaks to us, and wants to be answered.
struct Caller {
    /// 2.3 and later: messages on stdin and stdout.
    messages: bool,
    /// 1.7 to 2.2: JSON on stdout, and this version of the Task API at most.
    json: Option<i32>,
    /// containerd's gRPC socket, a part of the name of ours.
    address: String,
    /// Where events go.
    events: String,
    sockets: PathBuf,
    options: Options,
    debug: bool,
}

impl Caller {
    fn of(args: &Args) -> Result<Caller, String> {
        let input = stdin()?;
        let ours = |p: &BootstrapParams| p.instance_id == args.id && p.namespace == args.namespace;
        let env = |name: &str| std::env::var(name).unwrap_or_default();
        if let Some(params) = parsed::<BootstrapParams>(&input).filter(ours) {
            let options = params.extensions.iter().filter_map(|extension| extension.value.as_ref());
            let options = options.into_iter().find(|any| Options::are(any));
            return Ok(Caller {
                messages: true,
                json: None,
                sockets: PathBuf::from(Some(params.socket_dir()).filter(|dir| !dir.is_empty()).unwrap_or(SOCKETS)),
                options: Options::from_any(options)?,
                debug: params.log_level.value() < 0,
                address: params.containerd_grpc_address,
                events: params.containerd_ttrpc_address,
            });
        }
        Ok(Caller {
            messages: false,
            json: env("MAX_SHIM_VERSION").parse().ok(),
            address: args.address.clone(),
            events: env("TTRPC_ADDRESS"),
            sockets: PathBuf::from(SOCKETS),
            options: Options::from_any(parsed::<Any>(&input).as_ref())?,
            debug: args.debug,
        })
    }

    fn answer(&self, address: &str) -> Result<Vec<u8>, String> {
        if self.messages {
            let mut result = BootstrapResult::new();
            (result.version, result.address, result.protocol) = (TASK_API, address.to_string(), "ttrpc".to_string());
            return message(&result);
        }
        Ok(match self.json {
            Some(most) => {
                let version = TASK_API.min(most);
                serde_json::json!({"version": version, "address": address, "protocol": "ttrpc"}).to_string()
            }
            None => address.to_string(),
        }
        .into_bytes())
    }
}

/// Gives the address of the daemon for this container: a new one, or that of its group. The working directory is the bundle.
pub fn start(args: &Args) -> Result<Vec<u8>, String> {
    let caller = Caller::of(args)?;
    // containerd is a service that says when it is ready; its containers are not.
    process::forget_variable("NOTIFY_SOCKET").map_err(|e| format!("unsetenv: {e}"))?;
    let bundle = std::env::current_dir().map_err(|e| format!("getcwd: {e}"))?;
    let group = group(&bundle)?.unwrap_or_else(|| args.id.clone());
    let socket = caller.sockets.join(socket_name(&[&caller.address, &args.namespace, &group]));
    let address = format!("unix://{}", socket.display());
    if let Some(listener) = listen(&socket)? {
        // containerd's sched_core: the daemon and all of its containers share the threads of a core with nobody else.
        if std::env::var_os("SCHED_CORE").is_some_and(|on| !on.is_empty()) {
            process::own_cores().map_err(|e| {
                let _ = std::fs::remove_file(&socket);
                format!("sched_core: prctl(PR_SCHED_CORE): {}", e.desc())
            })?;
        }
        let child = process::fork(|| daemon(listener, &socket, args, &caller)).map_err(|e| format!("fork: {e}"));
        let child = child.inspect_err(|_| {
            let _ = std::fs::remove_file(&socket);
        })?;
        let placed = place(child.pid, &caller.options);
        if let Err(e) = placed {
            let _ = process::pidfd_signal(child.pidfd.as_fd(), SIGKILL);
            let _ = std::fs::remove_file(&socket);
            return Err(e);
        }
    }
    // Where containerd 1 finds the daemon again after a restart.
    write("address", address.as_bytes())?;
    caller.answer(&address)
}

/// Cleans up after a container without a daemon.
pub fn delete(args: &Args) -> Result<Vec<u8>, String> {
    let here = std::env::current_dir().map_err(|e| format!("getcwd: {e}"))?;
    // In a group, the working directory may be another container's.
    let bundle = match (&args.bundle, here.parent()) {
        (Some(bundle), _) => bundle.clone(),
        (None, Some(parent)) => parent.join(&args.id),
        (None, None) => here,
    };
    let options = Options::load(&bundle);
    let forced = delete_by_force(&options, &args.namespace, &args.id, &bundle).map_err(|e| e.message);
    let rootfs = bundle.join("rootfs");
    let unmounted = mounts::undo(&rootfs).map_err(|e| format!("unmount {}: {}", rootfs.display(), e.desc()));
    for warning in [forced, unmounted].into_iter().filter_map(Result::err) {
        // containerd logs it; the rest has been done all the same.
        let _ = writeln!(std::io::stderr(), "containerd-shim-orlop-v2: {warning}");
    }
    remove_socket(&bundle);
    let pid = std::fs::read_to_string(bundle.join(INIT_PID)).ok().and_then(|pid| pid.trim().parse().ok());
    let mut response = DeleteResponse::new();
    response.pid = pid.unwrap_or(0);
    response.exit_status = 128 + SIGKILL as u32;
    response.exited_at = Some(timestamp(SystemTime::now())).into();
    message(&response)
}

/// The socket of a daemon that was killed; one that answers serves others of the group.
fn remove_socket(bundle: &Path) {
    let Ok(address) = std::fs::read_to_string(bundle.join("address")) else { return };
    if let Some(socket) = address.trim().strip_prefix("unix://")
        && UnixStream::connect(socket).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    {
        let _ = std::fs::remove_file(socket);
    }
}

/// The name of a socket: as long for every id.
fn socket_name(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("/").as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All that `start` asks of config.json: what it keeps in memory, the daemon that is forked from it keeps too.
#[derive(Deserialize)]
struct Config {
    annotations: Option<HashMap<String, String>>,
}

/// The annotation that groups containers, if config.json has one.
fn group(bundle: &Path) -> Result<Option<String>, String> {
    let path = bundle.join("config.json");
    let raw = match std::fs::read(&path) {
        // The bundle of a pod's sandbox, which is no container.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| format!("{}: {e}", path.display()))?,
    };
    let config: Config = serde_json::from_slice(&raw).map_err(|e| format!("{}: {e}", path.display()))?;
    let annotations = config.annotations.unwrap_or_default();
    let value = |name: &str| annotations.get(name).filter(|group| !group.is_empty());
    Ok(GROUPS.iter().find_map(|name| value(name)).cloned())
}

/// A new socket, or `None` where a daemon answers already.
fn listen(socket: &Path) -> Result<Option<UnixListener>, String> {
    let failed = |e: std::io::Error| format!("socket {}: {e}", socket.display());
    if let Some(dir) = socket.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    }
    // Whoever may connect is root on the host.
    let old = process::umask(0o177);
    let bound = UnixListener::bind(socket).or_else(|e| {
        if e.kind() != ErrorKind::AddrInUse {
            return Err(e);
        }
        if UnixStream::connect(socket).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        // Of a daemon that was killed.
        std::fs::remove_file(socket)?;
        UnixListener::bind(socket)
    });
    process::umask(old);
    match bound {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(None),
        other => other.map(Some).map_err(failed),
    }
}

/// The forked daemon: out of containerd's session, its log in the fifo of the bundle.
fn daemon(listener: UnixListener, socket: &Path, args: &Args, caller: &Caller) -> u8 {
    let run = || -> Result<(), String> {
        let failed = |what: &'static str| move |e: orlop_sys::Errno| format!("{what}: {e}");
        // Whatever of containerd's came along by mistake.
        fds::close_others(3, [listener.as_raw_fd()]).map_err(failed("close_range"))?;
        process::setsid().map_err(failed("setsid"))?;
        process::set_subreaper().map_err(failed("prctl"))?;
        let level = if caller.debug { log::LevelFilter::Debug } else { log::LevelFilter::Info };
        // Opened for both directions, so that neither its opening waits for containerd nor a write fails when that restarts. While nobody
        // reads it and it is full, lines are lost: waiting would stop the one thread that there is.
        let log = file::open(c"log", file::O_RDWR | file::O_NONBLOCK, 0).map_err(failed("open log"))?;
        let null = file::open(c"/dev/null", file::O_RDWR, 0).map_err(failed("open /dev/null"))?;
        for (number, fd) in (0..3).zip([&null, &null, &log]) {
            fds::dup_to_stdio(fd.as_fd(), number).map_err(failed("dup"))?;
        }
        drop(null);
        worker::keep_log(log.as_raw_fd());
        orlop::log::init_with(log.into(), level);
        serve::serve(listener, socket, &args.namespace, caller.events.clone())
    };
    match run() {
        Ok(()) => 0,
        Err(e) => {
            log::error!("{e}");
            1
        }
    }
}

/// The daemon's cgroup, and its chance to live when memory is short: a little less than containerd's.
fn place(pid: i32, options: &Options) -> Result<(), String> {
    if !options.shim_cgroup.is_empty() {
        enter_cgroup(pid, &options.shim_cgroup).map_err(|e| format!("ShimCgroup: {e}"))?;
    }
    let parent = std::os::unix::process::parent_id();
    let score = std::fs::read_to_string(format!("/proc/{parent}/oom_score_adj")).ok();
    let score = score.and_then(|score| score.trim().parse::<i32>().ok()).unwrap_or(0);
    let path = format!("/proc/{pid}/oom_score_adj");
    // Without the right to it, the score stays as it is.
    match std::fs::write(&path, (score + 1).min(1000).to_string()) {
        Err(e) if e.kind() != ErrorKind::PermissionDenied => Err(format!("{path}: {e}")),
        _ => Ok(()),
    }
}

/// The cgroup must be there, on v1 in one hierarchy at least: it is that of its maker, who removes it too.
fn enter_cgroup(pid: i32, cgroup: &str) -> Result<(), String> {
    let all = orlop::cgroup::Host::default().files(Some(Path::new(cgroup)), "shim").map_err(|e| e.to_string())?;
    let there: orlop::cgroup::Paths = all.paths().clone().into_iter().filter(|(_, dir)| dir.is_dir()).collect();
    if there.is_empty() {
        return Err(format!("there is no cgroup {cgroup:?}"));
    }
    orlop::cgroup::load(&there, None).attach(pid).map_err(|e| e.to_string())
}

/// A file of the bundle, which appears whole.
fn write(name: &str, data: &[u8]) -> Result<(), String> {
    let temporary = format!(".{name}");
    std::fs::write(&temporary, data)
        .and_then(|()| std::fs::rename(&temporary, name))
        .map_err(|e| format!("write {name}: {e}"))
}

fn stdin() -> Result<Vec<u8>, String> {
    let mut input = Vec::new();
    std::io::stdin().take(MOST).read_to_end(&mut input).map_err(|e| format!("read stdin: {e}"))?;
    Ok(input)
}

fn parsed<M: Message>(raw: &[u8]) -> Option<M> {
    if raw.is_empty() { None } else { M::parse_from_bytes(raw).ok() }
}

fn message(message: &impl Message) -> Result<Vec<u8>, String> {
    message.write_to_bytes().map_err(|e| e.to_string())
}
