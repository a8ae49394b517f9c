//! Docker Compose: a web service and the Redis that it counts in, all on the runtime under test.

use libtest_mimic::{Arguments, Trial};
use orlop_integration::docker::{Docker, finish};
use orlop_integration::dockerd::{self, Dockerd, Options, RUNTIME};
use orlop_integration::images::DEBIAN;
use orlop_integration::{leaks, programs, runtime, wait};
use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

/// How long a service may take to answer.
const SOON: Duration = Duration::from_secs(90);

const STACK: &str = r#"
services:
  store:
    image: orlop-debian
    command: redis-server --dir /data --appendonly yes --appendfsync always --protected-mode no
    volumes: ["data:/data"]
    restart: unless-stopped
    healthcheck:
      test: redis-cli ping | grep -q PONG
      interval: 1s
      timeout: 20s
      retries: 90
  web:
    image: orlop-debian
    command: python3 /app/web.py
    volumes: ["./web.py:/app/web.py:ro"]
    ports: ["8000"]
    init: true
    mem_limit: 128m
    read_only: true
    depends_on:
      store:
        condition: service_healthy
volumes:
  data: {}
"#;

/// Counts in Redis, by its protocol, and answers with the count and the name of its host.
const WEB: &str = r#"
import http.server, socket
class Counter(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with socket.create_connection(("store", 6379), 20) as store:
            store.sendall(b"INCR hits\r\n")
            count = store.makefile("rb").readline().decode().strip(":\r\n")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{count} {socket.gethostname()}".encode())
http.server.HTTPServer(("", 8000), Counter).serve_forever()
"#;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trial = Trial::test("a_web_service_and_its_store", || {
        a_web_service_and_its_store();
        Ok(())
    });
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

struct Stack<'a> {
    daemon: &'a Dockerd,
    docker: Docker,
    dir: &'a Path,
}

impl Stack<'_> {
    fn compose(&self, line: &str) -> String {
        let mut command = programs::command("docker-compose");
        command
            .args(["-p", "stack"])
            .args(line.split(' '))
            .current_dir(self.dir)
            .env("DOCKER_CONFIG", &self.docker.config);
        command.env("DOCKER_HOST", format!("unix://{}", self.docker.socket.display())).env_remove("DOCKER_CONTEXT");
        for variable in ["COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME", "DOCKER_TLS_VERIFY"] {
            command.env_remove(variable);
        }
        command.env("COMPOSE_HTTP_TIMEOUT", "180");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        finish(&format!("docker-compose {line}"), child, None).exits(0).text()
    }

    fn ok(&self, line: &str) -> String {
        self.docker.run(line).exits(0).text()
    }

    /// The containers of a service.
    fn containers(&self, service: &str) -> Vec<String> {
        self.compose(&format!("ps -q {service}")).lines().map(str::to_owned).collect()
    }

    /// What each of the web service's containers answers: the count, and the name of the one that says it.
    fn hits(&self) -> Vec<(u32, String)> {
        let port = |c: &String| {
            let port = self.ok(&format!("port {c} 8000"));
            port.lines().next().and_then(|line| line.rsplit(':').next()?.parse().ok()).expect("a port")
        };
        let get = |port| wait::until("the web service answers", SOON, || self.daemon.on_network(|| http_get(port)));
        let answers = self.containers("web").iter().map(port).map(get).collect::<Vec<_>>();
        answers
            .iter()
            .map(|answer| {
                let (count, host) = answer.split_once(' ').unwrap_or_else(|| panic!("{answer:?}"));
                (count.parse().unwrap_or_else(|e| panic!("{answer:?}: {e}")), host.to_owned())
            })
            .collect()
    }
}

/// The body of an answer that is a success.
fn http_get(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    write!(stream, "GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (head.contains(" 200 ") && !body.is_empty()).then(|| body.to_owned())
}

fn a_web_service_and_its_store() {
    programs::check();
    programs::path("docker-compose");
    dockerd::sweep();
    let daemon = Dockerd::start(&runtime::path(), Options { default_runtime: true, ..Options::default() });
    daemon.need(DEBIAN);
    let dir = daemon.dir().join("stack");
    fs::create_dir(&dir).expect("a directory of the test");
    fs::write(dir.join("docker-compose.yml"), STACK).expect("a file of the test");
    fs::write(dir.join("web.py"), WEB).expect("a file of the test");
    let stack = Stack { daemon: &daemon, docker: daemon.client("orlop.test=compose"), dir: &dir };
    let counts = |hits: Vec<(u32, String)>| hits.into_iter().map(|hit| hit.0).collect::<Vec<_>>();

    stack.compose("up -d");
    let store = stack.containers("store").pop().expect("the store");
    let inspect = |template: &str| stack.ok(&format!("inspect -f '{{{{{template}}}}}' {store}"));
    assert_eq!(
        (inspect(".HostConfig.Runtime").as_str(), inspect(".State.Health.Status").as_str()),
        (RUNTIME, "healthy")
    );
    assert_eq!((counts(stack.hits()), counts(stack.hits())), (vec![1], vec![2]));

    let pid = inspect(".State.Pid");
    stack.ok(&format!("exec -d {store} redis-cli shutdown"));
    wait::until("the store is restarted and well", SOON, || {
        (![pid.as_str(), "0"].contains(&inspect(".State.Pid").as_str()) && inspect(".State.Health.Status") == "healthy")
            .then_some(())
    });
    assert_eq!(counts(stack.hits()), [3]);

    stack.compose("up -d --scale web=3");
    let hits = stack.hits();
    assert_eq!(hits.iter().map(|hit| &hit.1).collect::<HashSet<_>>().len(), 3, "{hits:?}");
    assert_eq!(counts(hits), [4, 5, 6]);
    stack.compose("up -d --scale web=1");
    assert_eq!(counts(stack.hits()), [7]);

    stack.compose("down");
    assert_eq!(stack.ok("ps -aq"), "");
    stack.compose("up -d");
    assert_eq!(counts(stack.hits()), [8], "of the volume that outlived the stack");
    stack.compose("down -v");
    assert_eq!(stack.ok("volume ls -q"), "");
    wait::until(&format!("nothing is left but {:?}", leaks::find(&daemon)), SOON, || {
        leaks::find(&daemon).is_empty().then_some(())
    });
}
