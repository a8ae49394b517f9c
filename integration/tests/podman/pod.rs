//! Pods: containers that share namespaces; and those that `kube play` makes of a Kubernetes manifest.

use crate::fixture::Fixture;
use orlop_integration::images::BUSYBOX;
use std::fs;

crate::tests![Nothing: shared_namespaces, stop_start_and_remove, kube_play];

fn shared_namespaces(f: &Fixture) {
    let pod = f.name("pod");
    f.ok(&format!("pod create --name {pod} --share ipc,net,uts --hostname deck"));
    let (one, two) = (f.name("one"), f.name("two"));
    for c in [&one, &two] {
        f.ok(&format!("run -d --pod {pod} --name {c} {BUSYBOX} sleep 1000"));
    }
    let of = |c: &str, kind: &str| f.ok(&format!("exec {c} readlink /proc/1/ns/{kind}"));
    for kind in ["ipc", "net", "uts"] {
        assert_eq!(of(&one, kind), of(&two, kind), "{kind}");
    }
    assert_ne!(of(&one, "mnt"), of(&two, "mnt"));
    assert_eq!(f.ok(&format!("exec {two} hostname")), "deck");
}

fn stop_start_and_remove(f: &Fixture) {
    let (pod, c) = (f.name("pod"), f.name("c"));
    f.ok(&format!("pod create --name {pod} --share ipc"));
    f.ok(&format!("run -d --pod {pod} --name {c} {BUSYBOX} sleep 1000"));
    f.ok(&format!("pod stop -t 0 {pod}"));
    assert_eq!(f.inspect(&c, ".State.Running"), "false");
    f.ok(&format!("pod start {pod}"));
    assert_eq!(f.inspect(&c, ".State.Running"), "true");
    f.ok(&format!("pod rm -f -t 0 {pod}"));
    assert!(!f.ok("ps -a --format {{.Names}}").contains(&c));
}

fn kube_play(f: &Fixture) {
    let (pod, manifest) = (f.name("pod"), f.dir().join("pod.yaml"));
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {pod}\nspec:\n  restartPolicy: Never\n  containers:\n  - name: main\n    \
         image: localhost/{BUSYBOX}:latest\n    imagePullPolicy: Never\n    command: [/bin/sh, -c, 'echo of the manifest; sleep 1000']\n"
    );
    fs::write(&manifest, text).expect("a file of the test");
    f.need(BUSYBOX);
    f.ok(&format!("kube play --network none {}", manifest.display()));
    f.becomes(&format!("{pod}-main"), ".State.Status", "running");
    f.says(&format!("{pod}-main"), "of the manifest");
    f.ok(&format!("kube down {}", manifest.display()));
    assert!(!f.ok("pod ps --format {{.Name}}").contains(&pod));
}
