//! BuildKit, as it is within dockerd: it calls whatever `runc` is on the daemon's PATH, so that is the runtime under test.

use crate::daemon::{nothing_left, own_daemon};
use crate::fixture::Fixture;
use orlop_integration::docker::finish;
use orlop_integration::dockerd::{Dockerd, Options};
use orlop_integration::images::BUSYBOX;
use std::fs;
use std::path::Path;
use std::process::Stdio;

crate::tests![; alone: buildkit];

const DOCKERFILE: &str = r#"FROM orlop-busybox AS base
RUN --mount=type=tmpfs,target=/scratch grep ' /scratch tmpfs ' /proc/mounts && touch /scratch/x
RUN --mount=type=cache,target=/kept echo once >> /kept/file
RUN --mount=type=cache,target=/kept test "$(cat /kept/file)" = once && cp /kept/file /srv/cache
RUN --mount=type=secret,id=key cp /run/secrets/key /srv/secret
RUN --mount=type=bind,target=/context cp /context/page /srv/page
RUN test ! -s /kept/file && test ! -s /run/secrets/key && test ! -e /context/page && test ! -e /scratch/x
FROM base AS second
WORKDIR /home/tester
USER tester
RUN id -un > user
FROM base
COPY --from=second /home/tester/user /srv/user
"#;

/// Who knows of a flag.
#[derive(PartialEq)]
enum Client {
    Any,
    Buildx,
}

/// Networks and privileges of a step: the flags of `docker build`, what is behind RUN, and what BuildKit says when it refuses that.
const RUNS: &[(Client, &str, &str, &str)] = &[
    (Client::Any, "", "test -e /sys/class/net/eth0", ""),
    (Client::Any, "--network none", "test \"$(ls /sys/class/net)\" = lo", ""),
    (Client::Any, "--network host", "test -e /sys/class/net/docker0", ""),
    (Client::Buildx, "", "--network=none test \"$(ls /sys/class/net)\" = lo", ""),
    (Client::Buildx, "--allow network.host", "--network=host test -e /sys/class/net/docker0", ""),
    (Client::Buildx, "", "--network=host true", "network.host is not allowed"),
    (Client::Any, "", "--security=insecure true", "nknown flag: security"),
    (
        Client::Buildx,
        "--allow security.insecure",
        "true",
        "granting entitlement security.insecure is not allowed by build daemon configuration",
    ),
];

fn build(daemon: &Dockerd, line: &str) -> (i32, String) {
    let line = format!("build --progress plain {line}");
    let mut command = daemon.client("orlop.test=buildkit").command(&line);
    command.env("DOCKER_BUILDKIT", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let output = finish(&line, child, None);
    (output.status, output.text() + &output.error())
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).expect("a file of the test");
}

fn buildkit(f: &Fixture) {
    let daemon = own_daemon(f, Options { as_runc: true, ..Options::default() });
    daemon.need(BUSYBOX);
    let dir = f.dir();
    write(&dir, "Dockerfile", DOCKERFILE);
    write(&dir, "page", "of the context\n");
    write(&dir, "key", "hush\n");
    let context = dir.display().to_string();
    let (status, said) = build(&daemon, &format!("--secret id=key,src={context}/key -t built {context}"));
    assert_eq!(status, 0, "{said}");
    let runs = daemon.calls().lines().filter(|line| line.split_whitespace().any(|word| word == "run")).count();
    assert_eq!(runs, 7, "one for each RUN:\n{}", daemon.calls());
    let docker = daemon.client("orlop.test=buildkit");
    let out = docker.run("run --rm built sh -c 'cat /srv/cache /srv/secret /srv/page /srv/user'").exits(0).text();
    assert_eq!(out, "once\nhush\nof the context\ntester");

    // Docker 20.10's client has BuildKit in itself, and in its daemon one that is older.
    let buildx = docker.run("buildx version").status == 0;
    for (client, flags, run, refusal) in RUNS {
        if *client == Client::Buildx && !buildx {
            continue;
        }
        write(&dir, "Dockerfile", &format!("FROM orlop-busybox\nRUN {run}\n"));
        let (status, said) = build(&daemon, &format!("{flags} {context}"));
        assert_eq!(status == 0, refusal.is_empty(), "{run}: {said}");
        assert!(said.contains(refusal), "{run}: {said}");
    }

    write(&dir, "Dockerfile", "FROM orlop-busybox\nRUN exit 33\n");
    let (status, said) = build(&daemon, &context);
    assert_ne!(status, 0);
    assert!(said.contains("exit code: 33"), "{said}");
    nothing_left(&daemon);
}
