//! Images made from containers, and by builds whose steps run in the runtime.

use crate::fixture::{Fixture, SOON};
use crate::network::http_get;
use orlop_integration::images::{BUSYBOX, DEBIAN};
use orlop_integration::wait;
use std::fs;

crate::tests![commit_and_run, build_and_serve, tag_history_save_load_rm, layers_are_copied_on_write];

fn commit_and_run(f: &Fixture) {
    let (c, image) = (f.name("c"), f.image("i"));
    f.ok(&format!("run --name {c} {BUSYBOX} sh -c 'echo kept > /srv/file'"));
    f.ok(&format!("commit -c 'ENV FROM=commit' -c 'CMD cat /srv/file' {c} {image}"));
    assert_eq!(f.ok(&format!("run --rm {image}")), "kept");
    assert_eq!(f.ok(&format!("run --rm {image} sh -c 'echo $FROM'")), "commit");
}

const DOCKERFILE: &str = "FROM orlop-debian
WORKDIR /app
COPY page.html index.html
RUN python3 -c 'open(\"made.txt\", \"w\").write(\"made by RUN in \" + __import__(\"os\").getcwd())'
ENV PORT=8000
EXPOSE 8000
CMD [\"sh\", \"-c\", \"exec python3 -m http.server $PORT\"]
";

fn build_and_serve(f: &Fixture) {
    let (c, image, dir) = (f.name("c"), f.image("i"), f.dir());
    fs::write(dir.join("Dockerfile"), DOCKERFILE).expect("a file of the test");
    fs::write(dir.join("page.html"), "a page\n").expect("a file of the test");
    f.daemon().need(DEBIAN);
    f.ok(&format!("build -t {image} {}", dir.display()));
    f.ok(&format!("run -d --name {c} -p 8000 {image}"));
    let port: u16 = f
        .ok(&format!("port {c} 8000"))
        .lines()
        .next()
        .and_then(|l| l.rsplit(':').next()?.parse().ok())
        .expect("a port");
    for (path, body) in [("/", "a page\n"), ("/made.txt", "made by RUN in /app")] {
        let answer = wait::until("the server answers", SOON, || f.daemon().on_network(|| http_get(port, path)));
        assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with(body), "{path}: {answer}");
    }
}

fn tag_history_save_load_rm(f: &Fixture) {
    let (image, tag, c) = (f.image("i"), f.image("t"), f.name("c"));
    f.ok(&format!("run --name {c} {BUSYBOX} sh -c 'echo saved > /srv/file'"));
    f.ok(&format!("commit -m 'a layer more' {c} {image}"));
    f.ok(&format!("tag {image} {tag}:v1"));
    assert!(f.ok(&format!("history {tag}:v1")).contains("a layer more"));
    let tar = f.dir().join("image.tar");
    f.ok(&format!("save -o {} {tag}:v1", tar.display()));
    f.ok(&format!("rm {c}"));
    f.ok(&format!("image rm {tag}:v1 {image}"));
    f.fails(1, &format!("image inspect {tag}:v1"));
    f.ok(&format!("load -i {}", tar.display()));
    assert_eq!(f.ok(&format!("run --rm {tag}:v1 cat /srv/file")), "saved");
    f.ok(&format!("image rm {tag}:v1"));
}

fn layers_are_copied_on_write(f: &Fixture) {
    let (one, two) = (f.name("one"), f.name("two"));
    f.ok(&format!("run -d --name {one} {BUSYBOX} sleep 300"));
    f.ok(&format!("run -d --name {two} {BUSYBOX} sleep 300"));
    f.ok(&format!("exec {one} sh -c 'echo mine > /etc/group; rm /bin/yes'"));
    assert_eq!(f.ok(&format!("exec {one} cat /etc/group")), "mine");
    assert!(f.ok(&format!("exec {two} cat /etc/group")).contains("tester"));
    f.fails(1, &format!("exec {one} test -e /bin/yes"));
    f.ok(&format!("exec {two} test -e /bin/yes"));
    f.ok(&format!("run --rm {BUSYBOX} grep -q tester /etc/group"));
}
