//! Checkpoints of a container, and its restoring when it is started.

use crate::container::{Container, INIT_PID, create_options, read, words};
use crate::io::Streams;
use crate::worker::{self, Failure, Job, Result, Tools};
use containerd_shim_protos::protobuf::{Message, well_known_types::any::Any};
use containerd_shim_protos::shim::oci;
use containerd_shim_protos::ttrpc::Code;
use orlop::criu::rpc::CgroupMode;
use orlop::ops::{self, CheckpointOptions, CriuOptions, RestoreOptions};
use orlop_sys::process::{SIGKILL, pidfd_signal};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

/// What a container needs that is restored when it is started.
pub struct Restore {
    /// Where the images are.
    pub images: PathBuf,
    /// The images before them, for another runtime.
    pub parent: String,
    /// Of the process that will be there.
    pub streams: Streams,
}

/// What containerd asks of a checkpoint.
#[derive(Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// Where the images go.
    pub images: PathBuf,
    /// Where CRIU works; empty: a directory that goes when all is well.
    pub work: String,
    /// The container ends.
    pub exit: bool,
    /// Keep established TCP connections.
    pub tcp: bool,
    /// Unix sockets may be connected to the outside.
    pub unix_sockets: bool,
    /// It may have a terminal of the outside.
    pub terminal: bool,
    /// Keep file locks.
    pub file_locks: bool,
    /// Kinds of namespaces that are made anew, empty, when it comes back.
    pub empty_namespaces: Vec<String>,
    /// What becomes of cgroups: one of [`CgroupMode::NAMES`].
    pub cgroups_mode: String,
}

/// Options of a checkpoint, for runc's shim.
const OPTIONS: &str = "runc.v1.CheckpointOptions";
/// Those that clients of containerd 1 give to a runtime of any other name (containerd's runtime/linux/runctypes/runc.proto): the same, but
/// with the last two fields, the paths of CRIU's work and of the images, the other way round.
const LINUX: &str = "linux.runc.CheckpointOptions";

impl Checkpoint {
    /// From the message that containerd sends; `images`: where it wants them.
    ///
    /// # Errors
    /// One that is no options of a checkpoint.
    pub fn from_any(images: PathBuf, any: Option<&Any>) -> std::result::Result<Checkpoint, String> {
        let Some(any) = any.filter(|any| !any.value.is_empty()) else {
            return Ok(Checkpoint { images, ..Checkpoint::default() });
        };
        let linux = any.type_url.ends_with(LINUX);
        if !linux && !any.type_url.ends_with(OPTIONS) {
            return Err(format!("options of the checkpoint: {:?} is neither {OPTIONS} nor {LINUX}", any.type_url));
        }
        let options = oci::CheckpointOptions::parse_from_bytes(&any.value)
            .map_err(|e| format!("options of the checkpoint ({}): {e}", any.type_url))?;
        Ok(Checkpoint {
            images,
            work: if linux { options.image_path } else { options.work_path },
            exit: options.exit,
            tcp: options.open_tcp,
            unix_sockets: options.external_unix_sockets,
            terminal: options.terminal,
            file_locks: options.file_locks,
            empty_namespaces: options.empty_namespaces,
            cgroups_mode: options.cgroups_mode,
        })
    }
}

impl Container {
    /// Brings it back, instead of starting it.
    pub async fn restore(&self, restore: Restore) -> Result<()> {
        let Restore { images, parent, mut streams } = restore;
        let job = Job { stdio: streams.given() };
        let terminal = self.init.names.terminal;
        let work = match self.options.criu_work_path.as_str() {
            "" => self.bundle.join("work"),
            path => PathBuf::from(path),
        };
        let pid_file = self.bundle.join(INIT_PID);
        let run = |tools: &Tools| match self.runtime() {
            None => {
                let options = RestoreOptions {
                    create: create_options(&self.options, &self.id, &self.bundle, terminal, tools),
                    criu: criu(&images, &work),
                    tcp_close: false,
                    lsm_profile: None,
                    lsm_mount_context: None,
                    detach: true,
                    no_subreaper: true,
                };
                ops::restore::restore(&self.global(), &options)?;
                read(&pid_file)
            }
            Some(runtime) => {
                let mut args = words(&["restore", "--detach", "--no-subreaper"]);
                args.extend(self.options.no_pivot_root.then_some(OsStr::new("--no-pivot")));
                args.push(OsStr::new("--bundle"));
                args.extend([self.bundle.as_os_str(), "--image-path".as_ref(), images.as_ref()]);
                args.extend([OsStr::new("--work-path"), work.as_ref()]);
                if !parent.is_empty() {
                    args.extend([OsStr::new("--parent-path"), parent.as_ref()]);
                }
                runtime.make(&args, &pid_file, &self.id, terminal, tools)
            }
        };
        let done = worker::run(&self.shim.reaper, job, run).await?;
        let (pid, watch) = done.process(&self.shim.reaper)?;
        if let Err(e) = streams.attach(done.console) {
            // Nobody would know of it. The reaper takes it as anybody.
            let _ = pidfd_signal(watch.pidfd().as_fd(), SIGKILL);
            return Err(e);
        }
        self.init.began(pid, &watch, streams);
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
        Ok(())
    }

    /// Writes images of the container.
    pub async fn checkpoint(&self, asked: Checkpoint) -> Result<()> {
        // orlop leaves out what is in the network namespace at all times.
        if let (None, Some(other)) = (self.runtime(), asked.empty_namespaces.iter().find(|kind| *kind != "network")) {
            let why = format!("empty_namespaces: {other:?} is not supported: only network is");
            return Err(Failure::new(Code::UNIMPLEMENTED, why));
        }
        let cgroups = CgroupMode::NAMES.iter().find(|(name, _)| *name == asked.cgroups_mode).map(|(_, mode)| *mode);
        let cgroups = cgroups.ok_or_else(|| {
            let why = format!("cgroups_mode: {:?} is none of soft, full, strict, ignore", asked.cgroups_mode);
            Failure::new(Code::INVALID_ARGUMENT, why)
        })?;
        let _turn = self.turn.lock().await;
        let own_work = self.bundle.join("work/criu-work");
        let work = if asked.work.is_empty() { own_work.clone() } else { PathBuf::from(&asked.work) };
        let run = |_: &Tools| {
            for dir in [&asked.images, &work] {
                std::fs::create_dir_all(dir).map_err(|e| Failure::internal(&format!("mkdir {}", dir.display()), e))?;
            }
            let done = match self.runtime() {
                None => {
                    let options = CheckpointOptions {
                        id: self.id.clone(),
                        criu: CriuOptions {
                            tcp_established: asked.tcp,
                            ext_unix_sk: asked.unix_sockets,
                            shell_job: asked.terminal,
                            file_locks: asked.file_locks,
                            manage_cgroups_mode: cgroups,
                            ..criu(&asked.images, &work)
                        },
                        parent_path: None,
                        leave_running: !asked.exit,
                        tcp_skip_in_flight: false,
                        link_remap: false,
                        pre_dump: false,
                        status_fd: None,
                        page_server: None,
                    };
                    ops::checkpoint::checkpoint(&self.global(), &options).map_err(Failure::from)
                }
                Some(runtime) => {
                    let mut args = words(&["checkpoint", "--image-path"]);
                    args.extend([asked.images.as_os_str(), "--work-path".as_ref(), work.as_ref()]);
                    let flags = [
                        (!asked.exit, "--leave-running"),
                        (asked.tcp, "--tcp-established"),
                        (asked.unix_sockets, "--ext-unix-sk"),
                        (asked.terminal, "--shell-job"),
                        (asked.file_locks, "--file-locks"),
                    ];
                    args.extend(flags.iter().filter(|(on, _)| *on).map(|(_, flag)| OsStr::new(*flag)));
                    for kind in &asked.empty_namespaces {
                        args.extend([OsStr::new("--empty-ns"), OsStr::new(kind)]);
                    }
                    if !asked.cgroups_mode.is_empty() {
                        args.extend([OsStr::new("--manage-cgroups-mode"), OsStr::new(&asked.cgroups_mode)]);
                    }
                    args.push(OsStr::new(&self.id));
                    runtime.run(&args, true).map(drop)
                }
            };
            // What CRIU said stays when it failed; it is small when it did not.
            if done.is_ok() && work == own_work {
                let _ = std::fs::remove_dir_all(&own_work);
            }
            done.map(|()| Vec::new())
        };
        let done = worker::run(&self.shim.reaper, Job { stdio: None }, run).await;
        done.map(drop).map_err(|e| e.during("OCI runtime checkpoint failed"))
    }
}

fn criu(images: &Path, work: &Path) -> CriuOptions {
    CriuOptions {
        image_path: images.to_path_buf(),
        work_path: Some(work.to_path_buf()),
        tcp_established: false,
        ext_unix_sk: false,
        shell_job: false,
        file_locks: false,
        lazy_pages: false,
        auto_dedup: false,
        manage_cgroups_mode: CgroupMode::default(),
        network_lock: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_checkpoint_come_in_two_kinds() {
        // exit, and the fields 8 and 9.
        let value = b"\x08\x01\x42\x01a\x4a\x01b".to_vec();
        for (kind, work) in
            [("containerd.runc.v1.CheckpointOptions", "b"), ("containerd.linux.runc.CheckpointOptions", "a")]
        {
            let any = Any { type_url: kind.to_string(), value: value.clone(), ..Default::default() };
            let expected =
                Checkpoint { images: "/i".into(), work: work.to_string(), exit: true, ..Checkpoint::default() };
            assert_eq!(Checkpoint::from_any("/i".into(), Some(&any)), Ok(expected), "{kind}");
        }
        let any = Any { type_url: "x.Options".to_string(), value, ..Default::default() };
        assert!(Checkpoint::from_any("/i".into(), Some(&any)).unwrap_err().contains("\"x.Options\""));
        assert_eq!(
            Checkpoint::from_any("/i".into(), None),
            Ok(Checkpoint { images: "/i".into(), ..Checkpoint::default() })
        );
    }
}
