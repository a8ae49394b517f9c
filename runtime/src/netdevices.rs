//! `linux.netDevices`: devices of the host that move to the container's network namespace (config-linux.md, "Network Devices").
//!
//! Once the container is there, they are of the namespace and not of ours: the kernel destroys virtual devices with it and sends
//! physical ones back. Of a container that cannot be made they come back as they were.

use crate::error::{Error, Kind, On, Result};
use crate::netlink::{Address, Link, Socket};
use log::warn;
use oci_spec::runtime::Spec;
use orlop_sys::{Errno, file};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The longest name of a device: bytes (IFNAMSIZ less its NUL).
const NAME_MAX: usize = 15;

/// A device that is to move.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Its name on the host.
    pub name: &'a str,
    /// Its name in the container; `%d` in it is for the kernel to fill in.
    pub inside: &'a str,
}

/// The devices of config.json, by name.
pub fn list(spec: &Spec) -> Vec<Wanted<'_>> {
    let all = spec.linux().iter().filter_map(|l| l.net_devices().as_ref()).flatten();
    let wanted = all.map(|(name, device)| {
        let given = device.name().as_deref().filter(|given| !given.is_empty());
        Wanted { name, inside: given.unwrap_or(name) }
    });
    let mut list: Vec<_> = wanted.collect();
    list.sort_by_key(|wanted| wanted.name);
    list
}

/// Whether the kernel would take it as the name of a device (dev_valid_name in net/core/dev.c).
pub fn is_name(name: &str) -> bool {
    let odd = |b: u8| matches!(b, 0 | b'/' | b':' | 0x0b) || b.is_ascii_whitespace();
    !name.is_empty() && name.len() <= NAME_MAX && !matches!(name, "." | "..") && !name.bytes().any(odd)
}

/// Whether it is a name, or one with a single `%d`, for which the kernel puts in the first number that is free.
pub fn is_name_or_template(name: &str) -> bool {
    is_name(name) && name.split_once('%').is_none_or(|(_, rest)| rest.starts_with('d') && !rest.contains('%'))
}

/// The devices that have moved; dropped before [`Moved::commit`], it brings them back.
#[derive(Debug)]
pub struct Moved {
    there: Socket,
    here: Socket,
    home: OwnedFd,
    devices: Vec<Device>,
}

/// A device that has moved, and what it was.
#[derive(Debug)]
struct Device {
    name: String,
    was: Link,
    /// Its number in the container.
    index: i32,
    addresses: Vec<Address>,
}

/// Moves the devices of config.json. `there` was made by the container's process `pid` in its network namespace.
pub fn give(spec: &Spec, pid: i32, there: OwnedFd, proc: BorrowedFd) -> Result<Moved> {
    let namespace = |who: &str| {
        let path = crate::plan::c_string(format!("{who}/ns/net"), "")?;
        file::openat(proc, &path, file::O_RDONLY, 0).on("open", format!("/proc/{who}/ns/net"))
    };
    let target = namespace(&pid.to_string())?;
    let here = Socket::new().on("socket", "NETLINK_ROUTE")?;
    let mut moved = Moved { there: Socket::from(there), here, home: namespace("self")?, devices: Vec::new() };
    let list = list(spec);
    // All of them before the first one moves.
    for wanted in &list {
        moved.check(wanted).map_err(|e| e.at(field(wanted)))?;
    }
    for wanted in &list {
        moved.take(wanted, target.as_fd()).map_err(|e| e.at(field(wanted)))?;
    }
    Ok(moved)
}

fn field(wanted: &Wanted) -> String {
    format!("linux.netDevices.{}", wanted.name)
}

impl Moved {
    /// The devices stay where they are.
    pub fn commit(mut self) {
        self.devices.clear();
    }

    fn check(&mut self, wanted: &Wanted) -> Result<()> {
        self.find(wanted)?;
        match self.there.link(wanted.inside) {
            Ok(_) => Err(taken(wanted)),
            // Of a template, which is the name of no device.
            Err(Errno::ENODEV | Errno::EINVAL) => Ok(()),
            Err(e) => Err(e.on("look in the container for network device", format!("{:?}", wanted.inside))),
        }
    }

    fn find(&mut self, wanted: &Wanted) -> Result<Link> {
        let found = self.here.link(wanted.name).on("find network device", format!("{:?}", wanted.name));
        found.map_err(|e| match e.errno() {
            Some(Errno::ENODEV) => e.hint("the device must be in the network namespace of the runtime"),
            _ => e,
        })
    }

    fn take(&mut self, wanted: &Wanted, target: BorrowedFd) -> Result<()> {
        let was = self.find(wanted)?;
        // The kernel takes its addresses away when it moves; those of IPv6 already when it is set down.
        let addresses = self.here.addresses(was.index).on("read the addresses of", wanted.name)?;
        // A number does not tell which device it is after the move, and neither does a template.
        let template = wanted.inside.contains('%').then(|| format!("orlop{}", std::process::id()));
        let first = template.as_deref().unwrap_or(wanted.inside);
        // Moved and renamed at once: neither the old name need be free there, nor the new one here.
        self.here.hand_over(was.index, first, target).map_err(|errno| match errno {
            Errno::EEXIST => taken(wanted),
            Errno::EINVAL => errno.on("move network device", format!("{:?}", wanted.name)).hint(
                "some kinds of devices, such as lo and bridges, may not be able to leave their network namespace",
            ),
            _ => errno.on("move network device", format!("{:?}", wanted.name)),
        })?;
        let index = self.there.link(first).on("find after its move network device", format!("{first:?}"))?.index;
        self.devices.push(Device { name: wanted.name.to_string(), was, index, addresses: addresses.clone() });
        if template.is_some() {
            self.there.rename(index, wanted.inside).on("rename network device to", format!("{:?}", wanted.inside))?;
        }
        for address in &addresses {
            self.there.add_address(index, address).on("give back its addresses to network device", wanted.inside)?;
        }
        self.there.set_up(index).on("set up network device", wanted.inside)
    }

    fn bring_back(&mut self, device: &Device) -> std::result::Result<(), Errno> {
        self.there.hand_over(device.index, &device.name, self.home.as_fd())?;
        let index = self.here.link(&device.name)?.index;
        for address in &device.addresses {
            self.here.add_address(index, address)?;
        }
        if device.was.up { self.here.set_up(index) } else { Ok(()) }
    }
}

fn taken(wanted: &Wanted) -> Error {
    let inside = wanted.inside;
    Error::new(Kind::Invalid, format!("a network device {inside:?} is in the container's network namespace already"))
        .hint("another `name`, or one with %d in it, for which the kernel puts in a free number")
}

impl Drop for Moved {
    fn drop(&mut self) {
        for device in std::mem::take(&mut self.devices).iter().rev() {
            // The error that brought us here is what the user must hear.
            if let Err(errno) = self.bring_back(device) {
                warn!("linux.netDevices.{}: cannot bring the network device back: {errno}", device.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        for good in ["e", "eth0", "a.b-c_d", "...", "ünï", "fifteen-bytes-x"] {
            assert!(is_name(good) && is_name_or_template(good), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\0", "sixteen-bytes-xy"] {
            assert!(!is_name(bad) && !is_name_or_template(bad), "{bad:?}");
        }
        for (name, good) in
            [("eth%d", true), ("%d", true), ("%dx", true), ("e%", false), ("%s", false), ("%d%d", false)]
        {
            assert_eq!(is_name_or_template(name), good, "{name:?}");
        }
    }

    #[test]
    fn devices_are_listed_by_name() {
        let spec = serde_json::json!({"ociVersion": "1.3.0", "linux": {"netDevices": {
            "b": {"name": "x"}, "a": {}, "c": {"name": ""}}}});
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let names: Vec<_> = list(&spec).iter().map(|w| (w.name, w.inside)).collect();
        assert_eq!(names, [("a", "a"), ("b", "x"), ("c", "c")]);
    }
}
