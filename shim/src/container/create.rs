//! A container is made; and taken away by force, where that went wrong or nobody knows of it.

use super::{Container, Shim, words};
use crate::binary::Runtime;
use crate::checkpoint::Restore;
use crate::io::{Names, Owner, Streams};
use crate::mounts;
use crate::options::Options;
use crate::process::Process;
use crate::worker::{self, Failure, Job, Result, Tools};
use containerd_shim_protos::api::Mount;
use orlop::ops::{self, CreateOptions};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};

/// Where `delete` finds the init's pid when no daemon is left.
pub const INIT_PID: &str = "init.pid";

/// What containerd asks to be created.
pub struct Request {
    /// The container's id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its root file system; none: the bundle has it.
    pub rootfs: Vec<Mount>,
    /// Its streams.
    pub names: Names,
    /// The runtime's options.
    pub options: Options,
    /// The images to restore it from, and those before them.
    pub checkpoint: Option<(PathBuf, String)>,
}

impl Container {
    /// Makes the container, up to its gate.
    pub async fn create(shim: &Arc<Shim>, request: Request) -> Result<Arc<Container>> {
        if cfg!(fuzzing) {
            return Container::understood(shim, request);
        }
        let Request { id, bundle, rootfs, names, options, checkpoint } = request;
        // For `delete`, which may have to do without us.
        options.save(&bundle).map_err(|e| Failure::internal("write options.json", e))?;
        let owner = Owner { ids: (options.io_uid, options.io_gid), namespace: &shim.namespace, container: &id };
        let mut streams = Streams::open(&names, &owner).await?;
        // What is restored has no process before it is started.
        let job = Job { stdio: if checkpoint.is_none() { streams.given() } else { None } };
        let root = bundle.join("rootfs");
        let restored = checkpoint.is_some();
        let make = |tools: &Tools| {
            if !rootfs.is_empty() {
                make_dir(&root)?;
                mounts::make(&rootfs, &root)?;
            }
            if restored {
                return Ok(Vec::new());
            }
            let made = create_in_worker(&options, &shim.namespace, &id, &bundle, names.terminal, tools);
            if made.is_err() && !rootfs.is_empty() {
                let _ = mounts::undo(&root);
            }
            made
        };
        let done = match worker::run(&shim.reaper, job, make).await {
            Err(e) => {
                if e.code == worker::LOST {
                    clean_up(shim, &options, &id, &bundle, !rootfs.is_empty()).await;
                }
                return Err(e.during("OCI runtime create failed"));
            }
            Ok(done) => done,
        };
        let init = Arc::new(Process::new("", names, Vec::new()));
        let (watch, restore) = match checkpoint {
            Some((images, parent)) => (None, Some(Restore { images, parent, streams })),
            None => {
                let ready = done.process(&shim.reaper).and_then(|(pid, watch)| {
                    streams.attach(done.console)?;
                    init.began(pid, &watch, streams);
                    Ok(watch)
                });
                match ready {
                    Ok(watch) => (Some(watch), None),
                    Err(e) => {
                        // It is made, and nobody would know of it.
                        clean_up(shim, &options, &id, &bundle, !rootfs.is_empty()).await;
                        return Err(e.during("OCI runtime create failed"));
                    }
                }
            }
        };
        let mut container = Container::of(shim, id, bundle, options, init);
        container.mounted = !rootfs.is_empty();
        (container.watch, container.restore) = (Mutex::new(watch), Mutex::new(restore));
        Ok(Arc::new(container))
    }

    fn of(shim: &Arc<Shim>, id: String, bundle: PathBuf, options: Options, init: Arc<Process>) -> Container {
        Container {
            shim: shim.clone(),
            id,
            bundle,
            options,
            mounted: false,
            init,
            execs: Mutex::default(),
            running: Arc::default(),
            turn: tokio::sync::Mutex::default(),
            paused: AtomicBool::new(false),
            shares_pids: AtomicBool::new(false),
            half_deleted: AtomicBool::default(),
            oom_kills: AtomicU64::new(0),
            watch: Mutex::default(),
            restore: Mutex::default(),
            cgroup_paths: OnceLock::new(),
        }
    }

    /// All of a create that does nothing to the host, for fuzz targets: the container has an init that is never there.
    fn understood(shim: &Arc<Shim>, request: Request) -> Result<Arc<Container>> {
        mounts::check(&request.rootfs)?;
        let init = Arc::new(Process::new("", request.names, Vec::new()));
        Ok(Arc::new(Container::of(shim, request.id, request.bundle, request.options, init)))
    }
}

/// What `create` and `restore` of ours are told.
pub fn create_options(options: &Options, id: &str, bundle: &Path, terminal: bool, tools: &Tools) -> CreateOptions {
    CreateOptions {
        id: id.to_string(),
        bundle: bundle.to_path_buf(),
        config: None,
        console_socket: terminal.then(|| tools.socket.clone()),
        pidfd_socket: None,
        pid_file: Some(bundle.join(INIT_PID)),
        no_pivot: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
        preserve_fds: 0,
    }
}

/// Makes the container, in a worker; the answer is the pid of its init.
fn create_in_worker(
    options: &Options,
    namespace: &str,
    id: &str,
    bundle: &Path,
    terminal: bool,
    tools: &Tools,
) -> Result<Vec<u8>> {
    let pid_file = bundle.join(INIT_PID);
    if let Some(runtime) = Runtime::of(options, namespace, bundle) {
        let mut args = words(&["create", "--bundle"]);
        args.push(bundle.as_os_str());
        args.extend(options.no_pivot_root.then_some(OsStr::new("--no-pivot")));
        args.extend(options.no_new_keyring.then_some(OsStr::new("--no-new-keyring")));
        return runtime.make(&args, &pid_file, id, terminal, tools);
    }
    let create = create_options(options, id, bundle, terminal, tools);
    Ok(ops::create::create(&options.global(namespace), &create)?.to_string().into_bytes())
}

/// Takes away a container that was made in part, or of which nobody knows; `mounted`: its root file system too.
async fn clean_up(shim: &Shim, options: &Options, id: &str, bundle: &Path, mounted: bool) {
    let run = |_: &Tools| {
        let deleted = delete_by_force(options, &shim.namespace, id, bundle);
        if mounted {
            let root = bundle.join("rootfs");
            mounts::undo(&root).map_err(|e| Failure::internal(&format!("unmount {}", root.display()), e.desc()))?;
        }
        deleted.map(|()| Vec::new())
    };
    if let Err(e) = worker::run(&shim.reaper, Job { stdio: None }, run).await {
        log::error!("{id}: clean up: {}", e.message);
    }
}

/// Kills and deletes the container, whatever there is of it; in a worker, or where there is no daemon.
pub fn delete_by_force(options: &Options, namespace: &str, id: &str, bundle: &Path) -> Result<()> {
    match Runtime::of(options, namespace, bundle) {
        None => Ok(ops::delete::delete(&options.global(namespace), id, true)?),
        Some(runtime) => runtime.run(&words(&["delete", "--force", id]), true).map(drop),
    }
}

/// As the Go shim has it: only root may look in.
fn make_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o711).create(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Failure::internal(&format!("mkdir {}", path.display()), e))
        }
        _ => Ok(()),
    }
}
