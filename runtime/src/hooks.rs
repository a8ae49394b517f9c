//! Hooks (config.md, "POSIX-platform Hooks"): what they get, and the running of those that belong to the host.

use crate::error::{Error, Kind, Result};
use crate::plan::{HookStep, c_string};
use crate::{hook, plan};
use log::warn;
use oci_spec::runtime::{Hook, Spec};
use orlop_sys::process::Strings;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The signal of a seccomp filter's KILL actions (signal(7); the same number on x86 and arm).
const SIGSYS: i32 = 31;

/// The arguments of a hook; without any, its path stands for the zeroth.
pub(crate) fn arguments(hook: &Hook, field: &str) -> Result<Strings> {
    let given = hook.args().iter().flatten();
    let list: Vec<CString> =
        given.enumerate().map(|(i, a)| c_string(a.as_str(), format!("{field}.args[{i}]"))).collect::<Result<_>>()?;
    if list.is_empty() {
        return Ok(Strings::new(vec![c_string(hook.path().as_os_str().as_bytes(), format!("{field}.path"))?]));
    }
    Ok(Strings::new(list))
}

/// The whole environment of a hook.
pub(crate) fn environment(hook: &Hook, field: &str) -> Result<Strings> {
    let given = hook.env().iter().flatten().enumerate();
    Ok(Strings::new(given.map(|(i, e)| c_string(e.as_str(), format!("{field}.env[{i}]"))).collect::<Result<_>>()?))
}

/// Seconds of config.json as milliseconds; without a timeout a hook may take for ever.
pub(crate) fn timeout_ms(hook: &Hook) -> i32 {
    hook.timeout().map_or(-1, |s| i32::try_from(s.saturating_mul(1000)).unwrap_or(i32::MAX).max(1))
}

/// The state that a hook reads on stdin (runtime.md, "State"), around the digits of the pid, which only the running
/// process knows. `pid`: where it is known, the first part holds all.
pub(crate) fn state_around_pid(
    spec: &Spec,
    id: &str,
    bundle: &Path,
    status: &str,
    pid: Option<i32>,
) -> (Vec<u8>, Vec<u8>) {
    const MARK: i64 = -0x6f72_6c6f_7000;
    let annotations: BTreeMap<&String, &String> = spec.annotations().iter().flatten().collect();
    let mut state = serde_json::json!({
        "ociVersion": crate::OCI_VERSION,
        "id": id,
        "status": status,
        "pid": MARK,
        "bundle": bundle.to_string_lossy(),
    });
    if !annotations.is_empty()
        && let Some(object) = state.as_object_mut()
    {
        object.insert("annotations".to_string(), serde_json::json!(annotations));
    }
    let text = state.to_string();
    let mark = MARK.to_string();
    let (before, after) = text.split_once(&mark).unwrap_or((&text, ""));
    match pid {
        Some(pid) => (format!("{before}{pid}{after}").into_bytes(), Vec::new()),
        None => (before.as_bytes().to_vec(), after.as_bytes().to_vec()),
    }
}

/// Runs the hooks of one kind in the runtime's own namespaces, in their order; the first failure ends it.
pub fn run(spec: &Spec, name: &str, id: &str, bundle: &Path, status: &str, pid: i32) -> Result<()> {
    for (i, hook) in list(spec, name).iter().enumerate() {
        run_one(spec, hook, &format!("hooks.{name}[{i}]"), id, bundle, status, pid)?;
    }
    Ok(())
}

/// Runs the hooks of one kind whose failures are only told: poststart and poststop (config.md).
pub fn run_all(spec: &Spec, name: &str, id: &str, bundle: &Path, status: &str, pid: i32) -> Vec<Error> {
    let mut failed = Vec::new();
    for (i, hook) in list(spec, name).iter().enumerate() {
        if let Err(e) = run_one(spec, hook, &format!("hooks.{name}[{i}]"), id, bundle, status, pid) {
            warn!("{e}");
            failed.push(e);
        }
    }
    failed
}

/// The kinds of hooks, in the order in which they run.
pub const KINDS: &[&str] = &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The hooks of one kind.
pub fn list<'a>(spec: &'a Spec, name: &str) -> &'a [Hook] {
    let Some(hooks) = spec.hooks() else { return &[] };
    let list = match name {
        "prestart" =>
        {
            #[allow(deprecated, reason = "still part of the specification, and nvidia's hook")]
            hooks.prestart()
        }
        "createRuntime" => hooks.create_runtime(),
        "createContainer" => hooks.create_container(),
        "startContainer" => hooks.start_container(),
        "poststart" => hooks.poststart(),
        _ => hooks.poststop(),
    };
    list.as_deref().unwrap_or_default()
}

fn run_one(spec: &Spec, h: &Hook, field: &str, id: &str, bundle: &Path, status: &str, pid: i32) -> Result<()> {
    let step = HookStep {
        path: plan::c_string(h.path().as_os_str().as_bytes(), format!("{field}.path"))?,
        in_rootfs: false,
        args: arguments(h, field)?,
        env: environment(h, field)?,
        timeout_ms: timeout_ms(h),
        state: state_around_pid(spec, id, bundle, status, Some(pid)),
        filter: None,
    };
    // It may take its time, or unmount what we have looked at.
    orlop_sys::fds::close_left();
    let output = orlop_sys::file::memfd(c"hook").ok();
    let cwd = plan::c_string(bundle.as_os_str().as_bytes(), "bundle")?;
    hook::run(&step, pid, output.as_ref().map(AsFd::as_fd), &cwd)
        .map_err(|failure| failed(&step, failure, &said(output.as_ref()), field).at(field.to_string()))
}

/// Turns the failure of a hook into the error of the user. `field`: `hooks.KIND[N]`.
pub(crate) fn failed(step: &HookStep, failure: hook::Failure, output: &str, field: &str) -> Error {
    let how = match failure {
        hook::Failure::Call(errno) => format!("cannot be run: {}", errno.desc()),
        hook::Failure::Status(status) => format!("exit status {status}"),
        hook::Failure::Signal(SIGSYS) => {
            "killed by signal 31: bad system call, by the container's seccomp profile".to_string()
        }
        hook::Failure::Signal(signal) => format!("killed by signal {signal}"),
        hook::Failure::Timeout => format!("killed after its timeout of {} ms", step.timeout_ms),
    };
    // runc's words, which scripts look for.
    let (kind, number) =
        field.trim_start_matches("hooks.").trim_end_matches(']').split_once('[').unwrap_or((field, "0"));
    let said = if output.is_empty() { String::new() } else { format!("; it said: {output}") };
    Error::new(Kind::Hook, format!("error running {kind} hook #{number}: {:?}: {how}{said}", step.path))
}

/// The end of what a hook wrote to its standard streams, on one line.
pub(crate) fn said(output: Option<&std::os::fd::OwnedFd>) -> String {
    let Some(fd) = output else { return String::new() };
    let mut text = vec![0; 64 * 1024];
    let n =
        orlop_sys::file::seek(fd.as_fd(), 0).and_then(|()| orlop_sys::file::read(fd.as_fd(), &mut text)).unwrap_or(0);
    one_line(text.get(..n).unwrap_or_default())
}

/// The last part of a text, without line ends.
pub(crate) fn one_line(text: &[u8]) -> String {
    const MOST: usize = 1024;
    let line = String::from_utf8_lossy(text).split_whitespace().collect::<Vec<_>>().join(" ");
    let skip = line.char_indices().rev().nth(MOST).map_or(0, |(i, _)| i);
    line.get(skip..).unwrap_or_default().to_string()
}
