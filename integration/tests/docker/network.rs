//! Networks: the engine's work, inside the namespaces the runtime makes.

use crate::fixture::{Fixture, SOON};
use orlop_integration::images::BUSYBOX;
use orlop_integration::wait;
use std::io::{Read, Write};
use std::net::TcpStream;

crate::tests![names_resolve_on_a_network, connect_and_disconnect, network_none, published_port, hosts_and_dns];

/// A web server of one page, as the command of a container.
const SERVER: &str = "sh -c 'echo knock > /srv/page; exec httpd -f -p 80 -h /srv'";

fn names_resolve_on_a_network(f: &Fixture) {
    let (net, server) = (f.name("net"), f.name("server"));
    f.ok(&format!("network create {net}"));
    f.ok(&format!("run -d --name {server} --network {net} --network-alias door {BUSYBOX} {SERVER}"));
    // Not wget: Debian's static busybox crashes in its lookup.
    for host in [&server, "door"] {
        let out = f.ok(&format!("run --rm --network {net} {BUSYBOX} ping -c 1 -w 10 {host}"));
        assert!(out.contains("1 packets received"), "{out}");
    }
    let error = f.fails(1, &format!("run --rm {BUSYBOX} ping -c 1 -w 10 {server}"));
    assert!(error.contains("bad address"), "{error}");
}

fn connect_and_disconnect(f: &Fixture) {
    let (net, c) = (f.name("net"), f.name("c"));
    f.ok(&format!("network create {net}"));
    f.ok(&format!("run -d --name {c} {BUSYBOX} sleep 300"));
    let links = || f.ok(&format!("exec {c} sh -c 'ls /sys/class/net | sort | tr \"\\n\" \" \"'"));
    assert_eq!(links(), "eth0 lo");
    f.ok(&format!("network connect {net} {c}"));
    assert_eq!(links(), "eth0 eth1 lo");
    f.ok(&format!("network disconnect {net} {c}"));
    assert_eq!(links(), "eth0 lo");
}

fn network_none(f: &Fixture) {
    let out = f.ok(&format!("run --rm --network none {BUSYBOX} sh -c 'ls /sys/class/net; ip -o link show lo'"));
    let (links, lo) = out.split_once('\n').expect("two lines");
    assert_eq!(links, "lo");
    assert!(lo.contains("UP"), "{lo}");
}

fn published_port(f: &Fixture) {
    let c = f.name("c");
    f.ok(&format!("run -d --name {c} -p 127.0.0.1::80 {BUSYBOX} {SERVER}"));
    let port: u16 = f.ok(&format!("port {c} 80")).rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
    let answer = wait::until("an answer", SOON, || f.daemon().on_network(|| http_get(port, "/page")));
    assert!(answer.ends_with("knock\n"), "{answer}");
}

/// One request to a port of this network namespace; `None` when there is no answer.
pub(crate) fn http_get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    (!answer.is_empty()).then_some(answer)
}

fn hosts_and_dns(f: &Fixture) {
    let flags = "--hostname deck --add-host mast:192.0.2.7 --dns 192.0.2.53 --dns-search ship.test";
    let out = f.ok(&format!("run --rm {flags} {BUSYBOX} cat /etc/hosts /etc/resolv.conf"));
    for line in ["192.0.2.7\tmast", "nameserver 192.0.2.53", "search ship.test"] {
        assert!(out.lines().any(|l| l == line), "no {line:?} in:\n{out}");
    }
    assert!(out.lines().any(|l| l.ends_with("\tdeck")), "{out}");
}
