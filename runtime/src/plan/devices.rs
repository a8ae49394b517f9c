//! What is in /dev: device nodes, symlinks, the console.

use super::mounts::clean;
use super::namespaces::Namespaces;
use super::{DeviceStep, Input, Plan, Step, c_string, console_size};
use crate::error::{Result, invalid};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, LinuxNamespaceType as Ns, Process, Spec};
use orlop_sys::file::{S_IFBLK, S_IFCHR, S_IFIFO, device};

/// What every container has in /dev (config-linux.md, "Default Devices"): name, major, minor.
const DEFAULT_DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("random", 1, 8), ("full", 1, 7), ("tty", 5, 0), ("zero", 1, 5), ("urandom", 1, 9)];

/// Where errors have the default devices.
const DEFAULTS: &str = "linux.devices";

/// The symlinks that go with them (config-linux.md and runtime-linux.md, "Dev symbolic links").
const DEV_SYMLINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
];

const PTMX: &str = "/dev/ptmx";

/// The device nodes of a container.
pub(crate) fn paths(spec: &Spec) -> Vec<String> {
    let wanted = spec.linux().iter().filter_map(|l| l.devices().as_ref()).flatten();
    let mut all: Vec<String> = DEFAULT_DEVICES.iter().map(|(name, ..)| format!("/dev/{name}")).collect();
    all.extend(wanted.map(|d| clean(d.path())));
    all.sort();
    all.dedup();
    all
}

impl Plan {
    pub(super) fn devices(&mut self, spec: &Spec, ns: &Namespaces, input: &Input) -> Result<()> {
        // A bound /dev is somebody else's: nothing is made in it.
        let bound_dev = spec.mounts().iter().flatten().any(|m| {
            let bind = m.typ().as_deref() == Some("bind")
                || m.options().iter().flatten().any(|o| matches!(o.as_str(), "bind" | "rbind"));
            bind && clean(m.destination()) == "/dev"
        });
        if !ns.has(Ns::Mount) || bound_dev {
            return Ok(());
        }
        let wanted = spec.linux().as_ref().and_then(|l| l.devices().as_deref()).unwrap_or_default();
        for (name, major, minor) in DEFAULT_DEVICES {
            let path = format!("/dev/{name}");
            if !wanted.iter().any(|d| clean(d.path()) == path) {
                self.device(&path, (S_IFCHR | 0o666, device(*major, *minor)), (0, 0), ns, input, DEFAULTS)?;
            }
        }
        for (i, d) in wanted.iter().enumerate() {
            let field = format!("linux.devices[{i}]");
            let node = device_of(d, &field)?;
            let owner = (d.uid().unwrap_or(0), d.gid().unwrap_or(0));
            if !d.path().is_absolute() {
                return Err(invalid(format!("{field}.path"), format!("{:?} is not an absolute path", d.path())));
            }
            // In its place comes the symlink to the container's own devpts.
            if clean(d.path()) != PTMX {
                self.device(&clean(d.path()), node, owner, ns, input, &field)?;
            }
        }
        for (to, at) in DEV_SYMLINKS {
            self.push("linux.devices", Step::Symlink(c_string(*to, "")?, c_string(*at, "")?));
        }
        self.push("linux.devices", Step::Ptmx);
        Ok(())
    }

    /// What mknod(2) takes: mode and number.
    fn device(
        &mut self,
        path: &str,
        (mode, number): (u32, u64),
        owner: (u32, u32),
        ns: &Namespaces,
        input: &Input,
        field: &str,
    ) -> Result<()> {
        let path = c_string(path, format!("{field}.path"))?;
        let tree = self.tree(field, path.clone(), (false, false), ns, input);
        let step = DeviceStep { path, mode, device: number, owner, exact: field != DEFAULTS, tree };
        self.push(field.to_string(), Step::Device(Box::new(step)));
        Ok(())
    }

    pub(super) fn console(&mut self, process: &Process, ns: &Namespaces) {
        if process.terminal().unwrap_or(false) {
            self.push("process.terminal", Step::Console(console_size(process), ns.has(Ns::Mount)));
        }
    }
}

fn device_of(d: &LinuxDevice, field: &str) -> Result<(u32, u64)> {
    let kind = match d.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => S_IFCHR,
        LinuxDeviceType::B => S_IFBLK,
        LinuxDeviceType::P => S_IFIFO,
        LinuxDeviceType::A => return Err(invalid(format!("{field}.type"), "\"a\" is for cgroup rules only")),
    };
    let number = |n: i64, name: &str| {
        u32::try_from(n).map_err(|_| invalid(format!("{field}.{name}"), format!("{n} is not a device number")))
    };
    let number = match kind {
        S_IFIFO => 0,
        _ => device(number(d.major(), "major")?, number(d.minor(), "minor")?),
    };
    Ok((kind | d.file_mode().unwrap_or(0o666) & 0o7777, number))
}
