//! Checkpoints of a task as `ctr` makes them, and what comes back of them. With a CRIU that works on this kernel only: where there is none, these
//! tests are listed as ignored.

use super::rootfs::image;
use super::{CGROUPS, Running, id};
use orlop_integration::containerd::Containerd;
use orlop_integration::wait;

/// Counts in memory, where it also has a word that no other one has, and shows both in a file of a tmpfs and on its standard output.
const COUNTER: &str = "/bin/sh -c 'read -r word </proc/sys/kernel/random/uuid; i=0; \
    while :; do i=$((i+1)); echo $word $i | tee /dev/shm/n; sleep 0.05; done'";

fn counting<'a>(daemon: &'a Containerd, flags: &str) -> Running<'a> {
    let (id, image) = (id(), image(daemon, 2));
    daemon.ctr(&format!("run -d --cgroup {CGROUPS}/{id} {flags} {image} {id} {COUNTER}")).exits(0);
    let container = Running { daemon, id };
    wait::until("it counts", wait::SOON, || (count(&container).1 > 2).then_some(()));
    container
}

/// Its word, and how far it has counted.
fn count(container: &Running) -> (String, u64) {
    wait::until("the file is not empty", wait::SOON, || {
        let text = container.task(&format!("exec --exec-id count-{} ID cat /dev/shm/n", id())).exits(0).text();
        let (word, number) = text.split_once(' ')?;
        Some((word.to_owned(), number.parse().ok()?))
    })
}

pub(super) fn a_checkpoint_is_restored(daemon: &Containerd) {
    let container = counting(daemon, "");
    container.task("exec --exec-id e ID /bin/sh -c 'echo kept >/tmp/kept'").exits(0);
    let reference = format!("checkpoint/{}:1", container.id);
    daemon.ctr(&format!("containers checkpoint --rw --image --task {} {reference}", container.id)).exits(0);
    // It runs on.
    container.is("RUNNING");
    let (word, before) = count(&container);
    wait::until("it goes on counting", wait::SOON, || (count(&container).1 > before).then_some(()));
    drop(container);
    for _ in 0..2 {
        let restored = Running { daemon, id: id() };
        daemon.ctr(&format!("containers restore --rw --live {} {reference}", restored.id)).exits(0);
        restored.is("RUNNING");
        let (same, now) = count(&restored);
        assert_eq!(same, word, "another process, which counts from {now}");
        wait::until("the restored one counts", wait::SOON, || (count(&restored).1 > now).then_some(()));
        assert_eq!(count(&restored).0, word);
        assert_eq!(restored.task("exec --exec-id kept ID cat /tmp/kept").exits(0).text(), "kept");
        restored.task("pause ID").exits(0);
        restored.is("PAUSED");
        restored.task("resume ID").exits(0);
    }
}

pub(super) fn a_checkpoint_in_a_directory(daemon: &Containerd) {
    // The client knows the options of this name's runtime only.
    let container = counting(daemon, "--runtime io.containerd.runc.v2");
    let (images, work) = (daemon.file("criu-images"), daemon.file("criu-work"));
    let paths = format!("--image-path {} --work-path {}", images.display(), work.display());
    container.task(&format!("checkpoint {paths} ID")).exits(0);
    assert!(images.join("inventory.img").exists() && work.join("dump.log").exists());
    container.is("RUNNING");
    container.task(&format!("checkpoint --exit {paths} ID")).exits(0);
    container.is("STOPPED");
}
