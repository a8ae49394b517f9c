//! Docker Swarm: two daemons in network namespaces that a cable joins, each with the runtime under test as its default.

use libtest_mimic::{Arguments, Trial};
use orlop_integration::dockerd::{self, Dockerd, Options, RUNTIME};
use orlop_integration::images::BUSYBOX;
use orlop_integration::{programs, runtime, wait};
use std::process::ExitCode;
use std::time::Duration;

/// How long the manager may take: it gives a silent node some twenty seconds, and a slow machine many times that.
const SOON: Duration = Duration::from_secs(150);
const ADDRESSES: [&str; 2] = ["10.97.0.1", "10.97.0.2"];
const CABLE: &str = "cluster0";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trial = Trial::test("a_service_on_two_nodes", || {
        a_service_on_two_nodes();
        Ok(())
    });
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

struct Cluster {
    manager: Dockerd,
    worker: Dockerd,
}

impl Cluster {
    fn start() -> Self {
        let node = || Dockerd::start(&runtime::path(), Options { default_runtime: true, ..Options::default() });
        let cluster = Self { manager: node(), worker: node() };
        let (one, two) = (cluster.manager.anchor().to_string(), cluster.worker.anchor().to_string());
        let ends = ["netns", &one, "type", "veth", "peer", "name", CABLE, "netns", &two];
        programs::run(programs::command("ip").args(["link", "add", CABLE]).args(ends));
        for (node, address) in [&cluster.manager, &cluster.worker].into_iter().zip(ADDRESSES) {
            programs::run(node.inside("ip").args(["address", "add", &format!("{address}/24"), "dev", CABLE]));
            programs::run(node.inside("ip").args(["link", "set", CABLE, "up"]));
            node.need(BUSYBOX);
        }
        let [one, two] = ADDRESSES;
        cluster.ok(&format!("swarm init --advertise-addr {one} --listen-addr {one}:2377"));
        let token = cluster.ok("swarm join-token -q worker");
        let join = format!("swarm join --token {token} --advertise-addr {two} --listen-addr {two}:2377 {one}:2377");
        let joined = cluster.worker.client("").run(&join);
        // dockerd gives it twenty seconds, and goes on by itself.
        assert!(joined.status == 0 || joined.error().contains("continue in the background"), "{joined:?}");
        // Tasks that left a node which was silent for three beats would not come back to it.
        cluster.ok("swarm update --dispatcher-heartbeat 15s");
        cluster.nodes_are(&["Ready", "Ready"]);
        cluster
    }

    /// On a slow machine the manager says now and then that it has no leader, or what it has read is old when it writes.
    fn ok(&self, line: &str) -> String {
        wait::until(&format!("{line} is done"), SOON, || {
            let out = self.manager.client("").run(line);
            let again =
                ["does not have a leader", "update out of sequence"].iter().any(|why| out.error().contains(why));
            (!again).then(|| out.exits(0).text())
        })
    }

    fn nodes_are(&self, states: &[&str]) {
        wait::until(&format!("the nodes are {states:?}"), SOON, || {
            let now = self.manager.client("").run("node ls --format {{.Status}}").text();
            let mut now: Vec<&str> = now.lines().collect();
            now.sort_unstable();
            (now == states).then_some(())
        });
    }

    /// How many containers of the service run on each node, by what they print first.
    fn spread(&self, said: &str) -> [usize; 2] {
        [&self.manager, &self.worker].map(|node| {
            let docker = node.client("");
            let ids = docker.run("ps -q --filter label=com.docker.swarm.service.name=crew").text();
            ids.lines().filter(|id| docker.run(&format!("logs {id}")).text() == said).count()
        })
    }

    /// Waits until so many run on each node, and no others.
    fn becomes(&self, said: &str, wanted: [usize; 2]) {
        wait::until(&format!("{wanted:?} that say {said}"), SOON, || (self.spread(said) == wanted).then_some(()));
    }
}

fn a_service_on_two_nodes() {
    programs::check();
    dockerd::sweep();
    let cluster = Cluster::start();
    // Names resolve to all of the containers: not every kernel has IPVS, which the other mode takes.
    cluster.ok(&format!(
        "service create --detach --name crew --endpoint-mode dnsrr --no-resolve-image --replicas 4 --stop-grace-period 0s --update-delay 0s \
         --restart-delay 0s --limit-memory 32m --env WATCH=first {BUSYBOX} sh -c 'echo $WATCH; exec sleep 1000'"
    ));
    cluster.becomes("first", [2, 2]);
    for node in [&cluster.manager, &cluster.worker] {
        let docker = node.client("");
        for id in docker.run("ps -q").exits(0).text().lines() {
            let template = "{{.HostConfig.Runtime}} {{.HostConfig.Memory}}";
            let found = docker.run(&format!("inspect -f '{template}' {id}")).exits(0).text();
            assert_eq!(found, format!("{RUNTIME} {}", 32 << 20));
        }
    }
    cluster.ok("service scale --detach crew=6");
    cluster.becomes("first", [3, 3]);
    cluster.ok("service update --detach --no-resolve-image --env-add WATCH=second crew");
    cluster.becomes("second", [3, 3]);
    cluster.becomes("first", [0, 0]);

    cluster.worker.crash();
    cluster.nodes_are(&["Down", "Ready"]);
    wait::until("all are on the node that is left", SOON, || {
        let states = "service ps --filter desired-state=running --format {{.CurrentState}} crew";
        (cluster.manager.client("").run(states).text().matches("Running").count() >= 6
            && cluster.manager.client("").run("ps -q").text().lines().count() == 6)
            .then_some(())
    });
    cluster.worker.resume();
    cluster.nodes_are(&["Ready", "Ready"]);
    cluster.ok("service rm crew");
    wait::until("no container is left", SOON, || {
        [&cluster.manager, &cluster.worker]
            .iter()
            .all(|node| {
                let ps = node.client("").run("ps -q");
                ps.status == 0 && ps.text().is_empty()
            })
            .then_some(())
    });
}
