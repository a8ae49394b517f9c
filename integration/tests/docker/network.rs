//! Networks: the engine's work, inside the namespaces the runtime makes.

use crate::fixture::{Fixture, SOON};
use orlop_integration::images::BUSYBOX;
use orlop_integration::wait;
use std::io::Read;
use std::net::TcpStream;

crate::tests![names_resolve_on_a_network, connect_and_disconnect, network_none, published_port, hosts_and_dns];

fn names_resolve_on_a_network(f: &Fixture) {
    let (net, server) = (f.name("net"), f.name("server"));
    f.ok(&format!("network create {net}"));
    f.ok(&format!("run -d --name {server} --network {net} --network-alias door {BUSYBOX} nc -lk -p 7 -e echo knock"));
    for host in [&server, "door"] {
        let out = f.ok(&format!("run --rm --network {net} {BUSYBOX} sh -c 'for i in 1 2 3 4 5 6 7 8 9; do nc {host} 7 && exit; sleep 0.5; done; exit 1'"));
        assert_eq!(out, "knock");
    }
    f.fails(1, &format!("run --rm {BUSYBOX} nc {server} 7"));
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
    f.ok(&format!("run -d --name {c} -p 127.0.0.1::7 {BUSYBOX} nc -lk -p 7 -e echo from inside"));
    let port: u16 = f.ok(&format!("port {c} 7")).rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
    let answer = wait::until("an answer", SOON, || {
        f.daemon().on_network(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            (!text.is_empty()).then_some(text)
        })
    });
    assert_eq!(answer, "from inside\n");
}

fn hosts_and_dns(f: &Fixture) {
    let flags = "--hostname deck --add-host mast:192.0.2.7 --dns 192.0.2.53 --dns-search ship.test";
    let out = f.ok(&format!("run --rm {flags} {BUSYBOX} cat /etc/hosts /etc/resolv.conf"));
    for line in ["192.0.2.7\tmast", "nameserver 192.0.2.53", "search ship.test"] {
        assert!(out.lines().any(|l| l == line), "no {line:?} in:\n{out}");
    }
    assert!(out.lines().any(|l| l.ends_with("\tdeck")), "{out}");
}
