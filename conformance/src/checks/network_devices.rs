//! Network devices of the host that move into the container. Ends of veth pairs stand for them: the other end stays outside.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::check::{Check, Failure, Outcome};
use crate::runtime::Lab;

pub(super) fn checks() -> Vec<Check> {
    checks!(
        "network_devices",
        moved_and_set_up "config-linux.md#network-devices",
        renamed "config-linux.md#network-devices",
        renamed_by_template "config-linux.md#network-devices",
        several_that_swap_their_names "config-linux.md#network-devices",
        addresses_mtu_and_mac_are_kept "config-linux.md#network-devices",
        addresses_of_a_device_that_was_up_are_kept "config-linux.md#network-devices",
        peer_and_flags_of_addresses_are_kept "config-linux.md#network-devices",
        addresses_of_narrower_scope_are_left "config-linux.md#network-devices",
        there_before_the_hooks "config-linux.md#network-devices",
        there_before_the_sysctls "config-linux.md#sysctl",
        stays_in_a_namespace_by_path "config-linux.md#network-devices",
        goes_with_a_new_namespace "config-linux.md#namespace-lifecycle-and-container-termination",
        missing_is_refused "config-linux.md#network-devices",
        name_that_is_taken_is_refused "config-linux.md#network-devices",
        invalid_name_is_refused "config-linux.md#network-devices",
        two_with_one_name_are_refused "config-linux.md#network-devices",
        without_a_namespace_refused "config-linux.md#network-devices",
        back_after_a_create_that_failed "runtime.md#errors",
        none_is_moved_when_one_is_missing "runtime.md#errors",
    )
}

/// A veth pair of the host, gone with the value, wherever its first end is by then.
struct Pair {
    /// The end that moves.
    device: String,
    /// The end that stays.
    peer: String,
}

impl Pair {
    fn new(lab: &Lab, letter: char) -> Result<Self, Failure> {
        let number: String = lab.id.chars().filter(char::is_ascii_digit).collect();
        let pair = Self { device: format!("o{number}{letter}"), peer: format!("p{number}{letter}") };
        ip(&format!("link add {} type veth peer name {}", pair.device, pair.peer))?;
        Ok(pair)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = ip(&format!("link del {}", self.peer));
    }
}

fn ip(arguments: &str) -> Result<String, Failure> {
    let out = Command::new("ip").args(arguments.split(' ')).output()?;
    ensure!(out.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&out.stderr).trim_end());
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// What `ip` says of a device inside the container; the addresses of the link's own scope come and go by themselves.
fn show(lab: &mut Lab, device: &str) -> Result<String, Failure> {
    lab.run_sh(&format!("busybox ip address show dev {device}"))
}

fn moved_and_set_up(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    lab.set("/linux/netDevices", json!({ &pair.device: {} })).up_idle()?;
    let seen = lab.exec(&[], &["busybox", "ip", "link", "show", "dev", &pair.device])?.ok("ip link")?.stdout;
    ensure!(seen.contains(",UP") || seen.contains("<UP"), "the device is not up: {seen}");
    ensure!(ip(&format!("link show {}", pair.device)).is_err(), "the host has the device still");
    Ok(())
}

fn renamed(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    lab.set("/linux/netDevices", json!({ &pair.device: { "name": "inside0" } }));
    let seen = lab.run_sh("busybox ip -o link")?;
    ensure!(seen.contains(" inside0@") && !seen.contains(&pair.device), "devices: {seen}");
    Ok(())
}

fn renamed_by_template(lab: &mut Lab) -> Outcome {
    let (one, two) = (Pair::new(lab, 'a')?, Pair::new(lab, 'b')?);
    lab.set("/linux/netDevices", json!({ &one.device: { "name": "eth%d" }, &two.device: { "name": "eth%d" } }));
    let seen = lab.run_sh("busybox ip -o link")?;
    ensure!(seen.contains(" eth0@") && seen.contains(" eth1@"), "devices: {seen}");
    same!(seen.matches(",UP").count() + seen.matches("<UP").count(), 3, "devices that are up, of {seen}");
    Ok(())
}

fn several_that_swap_their_names(lab: &mut Lab) -> Outcome {
    let (one, two) = (Pair::new(lab, 'a')?, Pair::new(lab, 'b')?);
    let index = |device: &str| Ok::<_, Failure>(fs::read_to_string(format!("/sys/class/net/{device}/iflink"))?);
    let (first, second) = (index(&one.device)?, index(&two.device)?);
    lab.set("/linux/netDevices", json!({ &one.device: { "name": two.device }, &two.device: { "name": one.device } }));
    let script = format!("cat /sys/class/net/{}/iflink /sys/class/net/{}/iflink", one.device, two.device);
    same!(lab.run_sh(&script)?, format!("{second}{first}"), "the other ends");
    Ok(())
}

fn addresses_mtu_and_mac_are_kept(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    let device = pair.device.as_str();
    ip(&format!("address add 169.254.169.77/24 dev {device}"))?;
    ip(&format!("address add 169.254.169.78/24 dev {device}"))?;
    ip(&format!("address add 2001:db8::77/64 dev {device} nodad"))?;
    ip(&format!("link set dev {device} mtu 1442 address 02:11:22:33:44:55"))?;
    lab.set("/linux/netDevices", json!({ device: { "name": "in0" } }));
    let seen = show(lab, "in0")?;
    for one in ["169.254.169.77/24", "169.254.169.78/24", "2001:db8::77/64", "mtu 1442", "02:11:22:33:44:55"] {
        ensure!(seen.contains(one), "{one} is lost: {seen}");
    }
    Ok(())
}

fn addresses_of_a_device_that_was_up_are_kept(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    ip(&format!("address add 169.254.169.77/24 dev {}", pair.device))?;
    ip(&format!("address add 2001:db8::77/64 dev {} nodad", pair.device))?;
    ip(&format!("link set dev {} up", pair.device))?;
    lab.set("/linux/netDevices", json!({ &pair.device: {} }));
    let seen = show(lab, &pair.device)?;
    for one in ["169.254.169.77/24", "2001:db8::77/64"] {
        ensure!(seen.contains(one), "{one} is lost: {seen}");
    }
    Ok(())
}

fn peer_and_flags_of_addresses_are_kept(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    ip(&format!("address add 169.254.169.77 peer 169.254.170.1/32 dev {} noprefixroute", pair.device))?;
    lab.set("/linux/netDevices", json!({ &pair.device: {} })).up_idle()?;
    // busybox does not show the flags.
    let pid = lab.pid()?.to_string();
    let out = Command::new("nsenter")
        .args(["-t", &pid, "-n", "ip", "-o", "address", "show", "dev", &pair.device])
        .output()?;
    let seen = String::from_utf8_lossy(&out.stdout).into_owned();
    for one in ["169.254.169.77 peer 169.254.170.1/32", "noprefixroute"] {
        ensure!(seen.contains(one), "{one} is lost: {seen}");
    }
    Ok(())
}

fn addresses_of_narrower_scope_are_left(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    ip(&format!("address add 169.254.169.77/24 dev {} scope link", pair.device))?;
    ip(&format!("address add 169.254.171.78/24 dev {} valid_lft 500 preferred_lft 500", pair.device))?;
    lab.set("/linux/netDevices", json!({ &pair.device: {} }));
    let seen = show(lab, &pair.device)?;
    ensure!(!seen.contains("169.254.1"), "an address of the link, or one that ends, has moved: {seen}");
    Ok(())
}

fn there_before_the_hooks(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    let seen = lab.dir.join("seen");
    let script = format!(
        "#!/bin/sh\npid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/')\nnsenter -t $pid -n ip link show {} > {}\n",
        pair.device,
        seen.display()
    );
    let hook = lab.script("hook", &script)?;
    let env = json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
    lab.set("/hooks/createRuntime/-", json!({ "path": hook, "env": env }));
    lab.set("/linux/netDevices", json!({ &pair.device: {} }));
    lab.run_sh("true")?;
    ensure!(fs::read_to_string(seen)?.contains(&pair.device), "createRuntime hooks do not see the device");
    Ok(())
}

fn there_before_the_sysctls(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    lab.set("/linux/netDevices", json!({ &pair.device: { "name": "in0" } }));
    lab.set("/linux/sysctl", json!({ "net.ipv4.conf.in0.arp_ignore": "8" }));
    same!(lab.run_sh("cat /proc/sys/net/ipv4/conf/in0/arp_ignore")?, "8\n", "arp_ignore of the device");
    Ok(())
}

/// A network namespace with a name, gone with the value.
struct Namespace(String);

impl Namespace {
    fn new(lab: &mut Lab) -> Result<Self, Failure> {
        let namespace = Self(lab.id.clone());
        ip(&format!("netns add {}", namespace.0))?;
        lab.without_namespace("network");
        let path = format!("/run/netns/{}", namespace.0);
        lab.set("/linux/namespaces/-", json!({ "type": "network", "path": path }));
        Ok(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.0));
    }
}

fn stays_in_a_namespace_by_path(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    let namespace = Namespace::new(lab)?;
    ip(&format!("address add 169.254.169.77/24 dev {}", pair.device))?;
    lab.set("/linux/netDevices", json!({ &pair.device: { "name": "in0" } }));
    lab.run_sh("true")?;
    lab.nothing_left("run")?;
    let seen = ip(&format!("-n {} address show dev in0", namespace.0))?;
    ensure!(seen.contains("169.254.169.77/24"), "the namespace has the device without its address: {seen}");
    Ok(())
}

fn goes_with_a_new_namespace(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    lab.set("/linux/netDevices", json!({ &pair.device: {} })).up_idle()?;
    lab.verb("delete", &["--force"]).go()?.ok("delete --force")?;
    crate::runtime::wait_until("the other end of the pair is there", || {
        Ok(ip(&format!("link show {}", pair.peer)).is_err())
    })?;
    ensure!(ip(&format!("link show {}", pair.device)).is_err(), "a virtual device came back to the host");
    Ok(())
}

fn missing_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/netDevices", json!({ "no-such-device": {} }));
    })?;
    Ok(())
}

fn name_that_is_taken_is_refused(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    lab.refused(|lab| {
        lab.set("/linux/netDevices", json!({ &pair.device: { "name": "lo" } }));
    })?;
    ip(&format!("link show {}", pair.device))?;
    Ok(())
}

fn invalid_name_is_refused(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    for name in ["a/b", "a b", "a:b", ".", "..", "sixteen-bytes-xy"] {
        lab.refused(|lab| {
            lab.set("/linux/netDevices", json!({ &pair.device: { "name": name } }));
        })?;
        lab.remove("/linux/netDevices");
    }
    ip(&format!("link show {}", pair.device))?;
    Ok(())
}

fn two_with_one_name_are_refused(lab: &mut Lab) -> Outcome {
    let (one, two) = (Pair::new(lab, 'a')?, Pair::new(lab, 'b')?);
    lab.refused(|lab| {
        lab.set("/linux/netDevices", json!({ &one.device: { "name": "in0" }, &two.device: { "name": "in0" } }));
    })?;
    ip(&format!("link show {}", one.device))?;
    ip(&format!("link show {}", two.device))?;
    Ok(())
}

fn without_a_namespace_refused(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    lab.config["mounts"].as_array_mut().expect("mounts").retain(|mount| mount["type"] != "sysfs");
    lab.without_namespace("network");
    lab.refused(|lab| {
        lab.set("/linux/netDevices", json!({ &pair.device: {} }));
    })?;
    ip(&format!("link show {}", pair.device))?;
    Ok(())
}

fn back_after_a_create_that_failed(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    let device = pair.device.as_str();
    ip(&format!("address add 169.254.169.77/24 dev {device}"))?;
    ip(&format!("link set dev {device} up"))?;
    lab.refused(|lab| {
        lab.set("/linux/netDevices", json!({ device: { "name": "in0" } }));
        lab.set("/hooks/createRuntime/-", json!({ "path": "/bin/false" }));
    })?;
    let seen = ip(&format!("address show dev {device}"))?;
    ensure!(seen.contains("169.254.169.77/24") && seen.contains("UP"), "the device is not as it was: {seen}");
    Ok(())
}

fn none_is_moved_when_one_is_missing(lab: &mut Lab) -> Outcome {
    let pair = Pair::new(lab, 'a')?;
    lab.refused(|lab| {
        lab.set("/linux/netDevices", json!({ &pair.device: {}, "zzz-none": {} }));
    })?;
    ip(&format!("link show {}", pair.device))?;
    Ok(())
}
