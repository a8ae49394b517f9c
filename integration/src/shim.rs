//! A shim without containerd: started as containerd starts it, driven by the Task API over ttrpc, its events received.
//!
//! It works with any shim of containerd's runtime v2, so the Go shim can be measured by the same calls.

use crate::private::{directory, remove_cgroups, signal};
use containerd_shim_protos::api::{
    CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, ForwardRequest,
    KillRequest, PidsRequest, PidsResponse, ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse,
    WaitRequest, WaitResponse,
};
use containerd_shim_protos::events::task::{TaskExecStarted, TaskExit, TaskOOM, TaskStart};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::oci;
use containerd_shim_protos::shim_sync::{Events, create_events};
use containerd_shim_protos::ttrpc::{self, Client, Code, Server, TtrpcContext};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// containerd's namespace in these runs.
pub const NAMESPACE: &str = "orlop-test";
/// How long one call may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What the tests look at in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// As containerd names it: `/tasks/exit`.
    pub topic: String,
    /// The container's id.
    pub container: String,
    /// The process's id, where the event is about one; the container's for its init.
    pub process: String,
    /// Its pid, where the event has one.
    pub pid: u32,
    /// Its exit status, where the event has one.
    pub status: u32,
}

/// The side of containerd that hears of events.
#[derive(Default)]
struct Ears(Mutex<Vec<Event>>);

impl Events for Ears {
    fn forward(
        &self,
        _: &TtrpcContext,
        request: ForwardRequest,
    ) -> ttrpc::Result<containerd_shim_protos::protobuf::well_known_types::empty::Empty> {
        let envelope = request.envelope();
        let (topic, body) = (envelope.topic().to_owned(), &envelope.event().value);
        let mut event = Event { topic, container: String::new(), process: String::new(), pid: 0, status: 0 };
        match event.topic.as_str() {
            "/tasks/exit" => {
                let exit = TaskExit::parse_from_bytes(body).expect("a TaskExit");
                (event.container, event.process) = (exit.container_id, exit.id);
                (event.pid, event.status) = (exit.pid, exit.exit_status);
            }
            "/tasks/exec-started" => {
                let started = TaskExecStarted::parse_from_bytes(body).expect("a TaskExecStarted");
                (event.container, event.process, event.pid) = (started.container_id, started.exec_id, started.pid);
            }
            "/tasks/start" => {
                let started = TaskStart::parse_from_bytes(body).expect("a TaskStart");
                (event.container, event.pid) = (started.container_id, started.pid);
            }
            "/tasks/oom" => event.container = TaskOOM::parse_from_bytes(body).expect("a TaskOOM").container_id,
            _ => {}
        }
        self.0.lock().expect("not poisoned").push(event);
        Ok(Default::default())
    }
}

/// A host for shims: a directory, containerd's ears, a root file system.
pub struct Host {
    dir: TempDir,
    ears: Arc<Ears>,
    server: Mutex<Option<Server>>,
    shim: PathBuf,
    /// The service's name: version 2 of the API is all that the Go shim of containerd 1.6 has.
    service: &'static str,
    runtime: Option<PathBuf>,
}

impl Host {
    /// A host on which `shim` is started. `runtime`: the program that it drives, if not its own.
    pub fn new(shim: &Path, runtime: Option<&Path>) -> Host {
        let dir = directory("orlop-shim-");
        crate::containerd::rootfs(&dir.path().join("rootfs"));
        let host = Host {
            ears: Arc::default(),
            server: Mutex::default(),
            shim: shim.to_path_buf(),
            service: "containerd.task.v2.Task",
            runtime: runtime.map(Path::to_path_buf),
            dir,
        };
        host.listen();
        host
    }

    /// Has its shims drive this program from now on.
    pub fn drive(mut self, runtime: &Path) -> Host {
        self.runtime = Some(runtime.to_path_buf());
        self
    }

    /// A path of this host's.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Below which the containers' cgroups are: a cgroup path.
    pub fn cgroups(&self) -> String {
        format!("/{}", self.dir.path().file_name().expect("a name").to_string_lossy())
    }

    fn events(&self) -> PathBuf {
        self.file("events.sock")
    }

    /// containerd hears of events (again).
    pub fn listen(&self) {
        let _ = fs::remove_file(self.events());
        let service = create_events(self.ears.clone());
        let address = format!("unix://{}", self.events().display());
        let server = Server::new().bind(&address).expect("a socket of ours");
        let mut server = server.register_service(service);
        server.start().expect("a server of ours");
        *self.server.lock().expect("not poisoned") = Some(server);
    }

    /// containerd is away.
    pub fn deaf(&self) {
        if let Some(server) = self.server.lock().expect("not poisoned").take() {
            server.shutdown();
        }
        let _ = fs::remove_file(self.events());
    }

    /// What was told so far.
    pub fn told(&self) -> Vec<Event> {
        self.ears.0.lock().expect("not poisoned").clone()
    }

    /// The exit of a process, if it was told.
    pub fn exit_of(&self, container: &str, process: &str) -> Option<Event> {
        let told = self.told();
        told.into_iter().find(|e| e.topic == "/tasks/exit" && e.container == container && e.process == process)
    }

    /// A bundle for a container that runs `args`.
    pub fn bundle(&self, id: &str, args: &[&str]) -> Bundle {
        let dir = self.file("bundles").join(id);
        fs::create_dir_all(&dir).expect("a directory of ours");
        let mounts = [("/proc", "proc"), ("/dev", "tmpfs"), ("/sys", "sysfs")];
        let mounts = mounts.map(|(at, kind)| json!({"destination": at, "type": kind, "source": kind}));
        let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind}));
        let config = json!({
            "ociVersion": "1.0.2",
            "process": process(args),
            "root": {"path": self.file("rootfs"), "readonly": false},
            "mounts": mounts,
            "linux": {"cgroupsPath": format!("{}/{id}", self.cgroups()), "namespaces": namespaces},
        });
        let state = format!("/run{}", self.cgroups());
        let mut options = oci::Options::new();
        options.root = state;
        options.binary_name = self.runtime.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        Bundle { id: id.to_owned(), dir, config, options, rootfs: Vec::new(), group: None, checkpoint: String::new() }
    }

    /// The command that containerd starts a shim with.
    pub fn command(&self, bundle: &Bundle, action: &str) -> Command {
        let mut command = Command::new(&self.shim);
        let address = self.file("containerd.sock");
        command.current_dir(&bundle.dir).args(["-namespace", NAMESPACE, "-id", &bundle.id]);
        command.arg("-address").arg(address).args(["-publish-binary", "/usr/bin/true"]);
        command.args(["-bundle".as_ref(), bundle.dir.as_os_str()]).arg(action);
        command.env("TTRPC_ADDRESS", self.events()).env("NOTIFY_SOCKET", "/nothing");
        command.stdin(Stdio::null());
        command
    }

    /// Starts a shim for the bundle, or finds that of its group.
    pub fn start(&self, bundle: &Bundle) -> Shim {
        self.try_start(bundle).unwrap_or_else(|e| panic!("{e}"))
    }

    /// As [`Host::start`], where it may fail.
    pub fn try_start(&self, bundle: &Bundle) -> Result<Shim, String> {
        bundle.write();
        let mut command = self.command(bundle, "start");
        let options = bundle.dir.join("start-options");
        fs::write(&options, bundle.any().write_to_bytes().expect("a small message")).expect("a file of ours");
        command.stdin(fs::File::open(options).expect("a file of ours"));
        // containerd opens it before it starts a shim, and reads the log from it.
        let log = bundle.dir.join("log");
        if !log.exists() {
            fs::write(&log, "").expect("a file of ours");
        }
        let out = command.output().map_err(|e| format!("{command:?}: {e}"))?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        let address = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        let client = Client::connect(&address).map_err(|e| format!("{address}: {e}"))?;
        let mut shim = Shim { client, address, service: self.service, pid: 0 };
        let connected: containerd_shim_protos::api::ConnectResponse =
            shim.call("Connect", &containerd_shim_protos::api::ConnectRequest::new()).map_err(|e| e.to_string())?;
        shim.pid = connected.shim_pid;
        Ok(shim)
    }

    /// What containerd runs when a shim has gone; gives what it has told of the container.
    pub fn clean_up(&self, bundle: &Bundle) -> DeleteResponse {
        let out: Output = self.command(bundle, "delete").output().expect("the shim");
        assert!(out.status.success(), "delete: {}", String::from_utf8_lossy(&out.stderr));
        DeleteResponse::parse_from_bytes(&out.stdout).expect("a DeleteResponse")
    }

    /// All that is there only while a container of this host is.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> = crate::cgroup::tree(&self.cgroups())
            .into_iter()
            .filter(|dir| !dir.ends_with(self.cgroups().trim_start_matches('/')))
            .map(|dir| format!("cgroup: {}", dir.display()))
            .collect();
        let name = self.dir.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|at| at.starts_with(&name));
        left.extend(mounts.map(|at| format!("mount: {at}")));
        let state = PathBuf::from(format!("/run{}", self.cgroups())).join(NAMESPACE);
        let states = fs::read_dir(&state).into_iter().flatten().flatten();
        left.extend(states.map(|entry| format!("state: {}", entry.path().display())));
        let shims = crate::private::naming(self.dir.path()).into_iter();
        left.extend(shims.map(|(pid, line)| format!("process: {pid} {line}")));
        left
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.deaf();
        crate::private::kill_all_that_name(self.dir.path());
        remove_cgroups(&self.cgroups());
        let _ = fs::remove_dir_all(format!("/run{}", self.cgroups()));
    }
}

/// The `process` of config.json, which is what an exec gives too.
pub fn process(args: &[&str]) -> Value {
    json!({
        "args": args, "cwd": "/", "env": ["PATH=/bin"], "terminal": false, "user": {"uid": 0, "gid": 0},
        "capabilities": {},
    })
}

/// A container that is to be made.
pub struct Bundle {
    /// The container's id.
    pub id: String,
    /// Where it is.
    pub dir: PathBuf,
    /// config.json.
    pub config: Value,
    /// The runtime's options.
    pub options: oci::Options,
    /// What the shim mounts at `rootfs` of the bundle.
    pub rootfs: Vec<containerd_shim_protos::api::Mount>,
    /// The group of containers that share a shim.
    pub group: Option<String>,
    /// The images that it is restored from when it is started; empty: it is made anew.
    pub checkpoint: String,
}

impl Bundle {
    fn write(&self) {
        let mut config = self.config.clone();
        if let Some(group) = &self.group {
            config["annotations"] = json!({"io.containerd.runc.v2.group": group});
        }
        fs::write(self.dir.join("config.json"), config.to_string()).expect("a file of ours");
    }

    fn any(&self) -> Any {
        let mut any = Any::new();
        any.type_url = "containerd.runc.v1.Options".to_owned();
        any.value = self.options.write_to_bytes().expect("a small message");
        any
    }
}

/// Where standard streams go; empty: nowhere.
#[derive(Clone, Debug, Default)]
pub struct Stdio3 {
    /// Path of a fifo.
    pub stdin: String,
    /// Path of a fifo or a file, or a URI.
    pub stdout: String,
    /// As stdout.
    pub stderr: String,
    /// A terminal is wanted.
    pub terminal: bool,
}

/// A running shim.
#[derive(Clone)]
pub struct Shim {
    client: Client,
    /// Where it listens.
    pub address: String,
    service: &'static str,
    /// The daemon's pid.
    pub pid: u32,
}

impl Shim {
    /// Calls a method of the Task API.
    pub fn call<Q: Message, A: Message>(&self, method: &str, request: &Q) -> ttrpc::Result<A> {
        let mut raw = ttrpc::Request::new();
        (raw.service, raw.method) = (self.service.to_owned(), method.to_owned());
        // The Go shim asks for it in every request.
        let namespace = ("containerd-namespace-ttrpc".to_owned(), vec![NAMESPACE.to_owned()]);
        raw.metadata = ttrpc::context::to_pb([namespace].into());
        raw.timeout_nano = LIMIT.as_nanos() as i64;
        raw.payload = request.write_to_bytes().expect("a small message");
        let answer = self.client.request(raw)?;
        Ok(A::parse_from_bytes(&answer.payload).unwrap_or_else(|e| panic!("{method}: the answer: {e}")))
    }

    /// The same one by another connection; ours is closed, if nobody else has it, before `between` is called.
    pub fn reconnect(self, between: impl FnOnce()) -> Shim {
        let Shim { client, address, service, pid } = self;
        drop(client);
        between();
        let client = Client::connect(&address).unwrap_or_else(|e| panic!("{address}: {e}"));
        Shim { client, address, service, pid }
    }

    /// Makes the container of the bundle.
    pub fn create(&self, bundle: &Bundle, io: &Stdio3) -> ttrpc::Result<u32> {
        self.call::<_, CreateTaskResponse>("Create", &self.create_request(bundle, io)).map(|answer| answer.pid)
    }

    fn create_request(&self, bundle: &Bundle, io: &Stdio3) -> CreateTaskRequest {
        let mut r = CreateTaskRequest::new();
        (r.id, r.bundle) = (bundle.id.clone(), bundle.dir.display().to_string());
        (r.stdin, r.stdout, r.stderr) = (io.stdin.clone(), io.stdout.clone(), io.stderr.clone());
        r.terminal = io.terminal;
        r.rootfs = bundle.rootfs.clone();
        r.checkpoint = bundle.checkpoint.clone();
        r.options = MessageField::some(bundle.any());
        r
    }

    /// Asks for the container, and closes the connection before the answer is there.
    pub fn create_and_leave(&self, bundle: &Bundle, after: Duration) {
        let mut raw = ttrpc::Request::new();
        (raw.service, raw.method) = (self.service.to_owned(), "Create".to_owned());
        raw.payload = self.create_request(bundle, &Stdio3::default()).write_to_bytes().expect("a small message");
        let raw = raw.write_to_bytes().expect("a small message");
        // ttrpc's header: length, stream, type of a request, no flags.
        let length = u32::try_from(raw.len()).expect("a small message");
        let frame = [&length.to_be_bytes()[..], &1u32.to_be_bytes(), &[1, 0], &raw].concat();
        let mut stream = UnixStream::connect(self.address.trim_start_matches("unix://")).expect("the shim");
        stream.write_all(&frame).expect("the shim");
        std::thread::sleep(after);
    }

    /// The pids of all its processes.
    pub fn pids(&self, id: &str) -> ttrpc::Result<Vec<u32>> {
        let r = PidsRequest { id: id.to_owned(), ..Default::default() };
        let answer: PidsResponse = self.call("Pids", &r)?;
        Ok(answer.processes.into_iter().map(|process| process.pid).collect())
    }

    /// Lets the init go, or with an `exec_id` an added process.
    pub fn start(&self, id: &str, exec_id: &str) -> ttrpc::Result<u32> {
        let r = StartRequest { id: id.to_owned(), exec_id: exec_id.to_owned(), ..Default::default() };
        self.call::<_, StartResponse>("Start", &r).map(|answer| answer.pid)
    }

    /// Adds a process.
    pub fn exec(&self, id: &str, exec_id: &str, args: &[&str], io: &Stdio3) -> ttrpc::Result<()> {
        let mut r = ExecProcessRequest::new();
        (r.id, r.exec_id) = (id.to_owned(), exec_id.to_owned());
        (r.stdin, r.stdout, r.stderr) = (io.stdin.clone(), io.stdout.clone(), io.stderr.clone());
        r.terminal = io.terminal;
        let mut spec = Any::new();
        spec.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned();
        spec.value = process(args).to_string().into_bytes();
        r.spec = MessageField::some(spec);
        self.call::<_, Empty>("Exec", &r).map(drop)
    }

    /// Waits for the end of a process; its exit status.
    pub fn wait(&self, id: &str, exec_id: &str) -> ttrpc::Result<u32> {
        let r = WaitRequest { id: id.to_owned(), exec_id: exec_id.to_owned(), ..Default::default() };
        self.call::<_, WaitResponse>("Wait", &r).map(|answer| answer.exit_status)
    }

    /// What is known of a process.
    pub fn state(&self, id: &str, exec_id: &str) -> ttrpc::Result<StateResponse> {
        let r = StateRequest { id: id.to_owned(), exec_id: exec_id.to_owned(), ..Default::default() };
        self.call("State", &r)
    }

    /// Signals a process.
    pub fn kill(&self, id: &str, exec_id: &str, signal: u32) -> ttrpc::Result<()> {
        let (id, exec_id) = (id.to_owned(), exec_id.to_owned());
        self.call::<_, Empty>("Kill", &KillRequest { id, exec_id, signal, ..Default::default() }).map(drop)
    }

    /// Removes a process that has ended; its exit status.
    pub fn delete(&self, id: &str, exec_id: &str) -> ttrpc::Result<u32> {
        let r = DeleteRequest { id: id.to_owned(), exec_id: exec_id.to_owned(), ..Default::default() };
        self.call::<_, DeleteResponse>("Delete", &r).map(|answer| answer.exit_status)
    }

    /// Ends the daemon, where it has no container.
    pub fn shutdown(&self) {
        // It may be gone before it has answered.
        let _ = self.call::<_, Empty>("Shutdown", &ShutdownRequest::new());
    }

    /// Makes and starts the container.
    pub fn run(&self, bundle: &Bundle, io: &Stdio3) -> u32 {
        let pid = self.create(bundle, io).unwrap_or_else(|e| panic!("create of {}: {e}", bundle.id));
        self.start(&bundle.id, "").unwrap_or_else(|e| panic!("start of {}: {e}", bundle.id));
        pid
    }

    /// Kills and removes the container, and ends the daemon if that was its last one.
    pub fn remove(&self, id: &str) {
        // It may have ended.
        let _ = self.kill(id, "", 9);
        self.wait(id, "").unwrap_or_else(|e| panic!("wait for {id}: {e}"));
        self.delete(id, "").unwrap_or_else(|e| panic!("delete of {id}: {e}"));
        self.shutdown();
    }

    /// Signals the daemon.
    pub fn signal(&self, number: Signal) {
        signal(self.pid, number);
    }

    /// Whether the daemon is there, and not only as a zombie.
    pub fn alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }
}

/// The code of a refusal.
pub fn code(error: &ttrpc::Error) -> Option<Code> {
    match error {
        ttrpc::Error::RpcStatus(status) => Some(status.code()),
        _ => None,
    }
}
