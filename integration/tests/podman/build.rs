//! Builds, by Podman and by Buildah: every RUN step is a container of the runtime under test.

use crate::fixture::Fixture;
use orlop_integration::docker::finish;
use orlop_integration::images::BUSYBOX;
use orlop_integration::runtime;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

crate::tests![Nothing: podman_build, buildah_build, buildah_run];

/// A program that writes down how it is called, and becomes the runtime under test.
fn witness(f: &Fixture) -> (PathBuf, PathBuf) {
    let (program, calls) = (f.dir().join("witness"), f.dir().join("calls"));
    let text = format!("#!/bin/sh\necho \"$@\" >>{}\nexec {} \"$@\"\n", calls.display(), runtime::path().display());
    fs::write(&program, text).expect("a file of the test");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    (program, calls)
}

fn context(f: &Fixture) -> PathBuf {
    f.need(BUSYBOX);
    let text = format!(
        "FROM localhost/{BUSYBOX}\nWORKDIR /work\nRUN echo built by $(id -un) > file && chown tester file\nUSER tester\nRUN cat file > /tmp/copy\n"
    );
    let dir = f.dir().join("context");
    fs::create_dir_all(&dir).expect("a directory of the test");
    fs::write(dir.join("Containerfile"), text).expect("a file of the test");
    dir
}

fn podman_build(f: &Fixture) {
    let (image, (program, calls)) = (f.name("image"), witness(f));
    let dir = context(f);
    let flags = format!("--isolation oci --network none --runtime {}", program.display());
    f.ok(&format!("--runtime {} build {flags} -q -t {image} {}", program.display(), dir.display()));
    assert!(fs::read_to_string(&calls).unwrap_or_default().contains("create"), "the runtime did not build");
    assert_eq!(
        f.ok(&format!("run --rm {image} sh -c 'cat /tmp/copy; stat -c %U /work/file'")),
        "built by root\ntester"
    );
    f.ok(&format!("rmi {image}"));
}

fn buildah(f: &Fixture, arguments: &[&str]) -> String {
    let mut command = f.program("buildah");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    finish(&format!("buildah {}", arguments.join(" ")), child, None).exits(0).text()
}

fn buildah_build(f: &Fixture) {
    let (image, (program, calls)) = (f.name("image"), witness(f));
    let (dir, program) = (context(f).display().to_string(), program.display().to_string());
    buildah(f, &["build", "--isolation", "oci", "--network", "none", "--runtime", &program, "-t", &image, &dir]);
    assert!(fs::read_to_string(&calls).unwrap_or_default().contains("create"), "the runtime did not build");
    assert_eq!(f.ok(&format!("run --rm {image} cat /tmp/copy")), "built by root");
    f.ok(&format!("rmi {image}"));
}

fn buildah_run(f: &Fixture) {
    let (program, calls) = witness(f);
    f.need(BUSYBOX);
    let c = buildah(f, &["from", &format!("localhost/{BUSYBOX}")]);
    let program = program.display().to_string();
    let out = buildah(
        f,
        &[
            "run",
            "--isolation",
            "oci",
            "--network",
            "none",
            "--runtime",
            &program,
            &c,
            "--",
            "sh",
            "-c",
            "echo in $0",
            "buildah",
        ],
    );
    buildah(f, &["rm", &c]);
    assert_eq!(out, "in buildah");
    assert!(fs::read_to_string(&calls).unwrap_or_default().contains("create"), "the runtime did not run it");
}
