//! Checkpoints, and containers that come back of them. With a CRIU that works on this kernel only: elsewhere these tests are listed as ignored.

use crate::fixture::Fixture;
use orlop_integration::images::BUSYBOX;
use orlop_integration::wait;

crate::tests![
    Criu: leaves_running, in_place, through_an_archive;
];

/// Counts in memory, where it also has a word that no other one has, and shows both in a file of a tmpfs.
const COUNTER: &str = "sh -c 'read -r word </proc/sys/kernel/random/uuid; i=0; \
    while :; do i=$((i+1)); echo $word $i >/dev/shm/n; sleep 0.05; done'";

fn counting(f: &Fixture) -> String {
    let c = f.name("c");
    f.ok(&format!("run -d --name {c} {BUSYBOX} {COUNTER}"));
    goes_on(f, &c, 2);
    c
}

/// Its word, and how far it has counted.
fn count(f: &Fixture, c: &str) -> (String, u64) {
    wait::until("the file is not empty", wait::SOON, || {
        let text = f.ok(&format!("exec {c} cat /dev/shm/n"));
        let (word, number) = text.split_once(' ')?;
        Some((word.to_owned(), number.parse().ok()?))
    })
}

fn goes_on(f: &Fixture, c: &str, from: u64) {
    wait::until("it counts on", wait::SOON, || (count(f, c).1 > from).then_some(()));
}

/// The same process, as far as it had come, and it counts.
fn is_back(f: &Fixture, c: &str, (word, number): &(String, u64)) {
    let (same, now) = count(f, c);
    assert_eq!(&same, word, "another process, which counts from {now}");
    assert!(now >= *number, "{now} after {number}");
    goes_on(f, c, now);
}

fn leaves_running(f: &Fixture) {
    let c = counting(f);
    let (pid, before) = (f.pid(&c), count(f, &c));
    f.ok(&format!("container checkpoint --leave-running {c}"));
    assert_eq!(f.pid(&c), pid);
    is_back(f, &c, &before);
}

fn in_place(f: &Fixture) {
    let c = counting(f);
    f.ok(&format!("exec {c} touch /srv/kept"));
    for _ in 0..2 {
        let before = count(f, &c);
        f.ok(&format!("container checkpoint {c}"));
        assert_eq!(f.inspect(&c, ".State.Status"), "exited");
        f.ok(&format!("container restore {c}"));
        assert_eq!(f.inspect(&c, ".State.Status"), "running");
        is_back(f, &c, &before);
    }
    f.ok(&format!("exec {c} test -e /srv/kept"));
    f.ok(&format!("kill {c}"));
    assert_eq!(f.ok(&format!("wait {c}")), "137");
}

fn through_an_archive(f: &Fixture) {
    let (c, archive) = (counting(f), f.dir().join("archive.tar.gz"));
    f.ok(&format!("exec {c} touch /srv/kept"));
    let before = count(f, &c);
    f.ok(&format!("container checkpoint --compress gzip --export {} {c}", archive.display()));
    f.ok(&format!("rm {c}"));
    for other in [f.name("first"), f.name("second")] {
        f.ok(&format!("container restore --import {} --name {other}", archive.display()));
        is_back(f, &other, &before);
        f.ok(&format!("exec {other} test -e /srv/kept"));
    }
}
