//! The pages of `docs/`, done as they say: files are written where they say, commands are typed, and what is printed must be what the page
//! shows. All of it on the machine itself, so only on one that may be thrown away: `DISPOSABLE=1` says that it is.

use libtest_mimic::{Arguments, Failed, Trial};
use orlop_integration::images;
use orlop_integration::page::{self, Command, Part};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode, Stdio};

/// Where nobody else is root's neighbour, this user runs what stands behind `$`.
const USER: &str = "tester";
/// What the pages call an image that can be had everywhere.
const IMAGE: &str = "docker.io/library/busybox:latest";
/// What a page's preparation may call: `as_user`, and `docker_again`, which starts Docker, and lets it be restarted as often as the pages
/// say: systemd refuses that to one who is quicker than a reader.
const FUNCTIONS: &str = r#"docker_again() {
    mkdir -p /run/systemd/system/docker.service.d
    printf '[Unit]\nStartLimitIntervalSec=0\n' >/run/systemd/system/docker.service.d/often.conf
    systemctl daemon-reload && systemctl start docker containerd
}"#;
/// Pages that are not followed, and why.
const NOT_FOLLOWED: &[(&str, &str)] = &[
    ("README.md", "it has no commands"),
    ("COMPATIBILITY.md", "a script makes it of results, and `make lint` compares its sum"),
    ("kubernetes.md", "it needs a cluster; the tests of `cri` take their tables from it"),
];
/// A page and what must be there before it is read: an image in the engine's store, by `PREPARE TAR`.
const PAGES: &[(&str, &str)] = &[
    ("docker.md", r#"docker_again && docker import "$TAR" busybox"#),
    (
        "podman.md",
        r#"podman import --quiet "$TAR" "$IMAGE" && chmod 644 "$TAR" && loginctl enable-linger tester && as_user podman import --quiet "$TAR" "$IMAGE""#,
    ),
    ("containerd.md", r#"docker_again && docker import "$TAR" busybox && docker save busybox | ctr image import -"#),
    ("switching.md", r#"docker_again && docker import "$TAR" busybox && podman import --quiet "$TAR" "$IMAGE""#),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share the machine.
    arguments.test_threads = Some(1);
    let disposable = std::env::var_os("DISPOSABLE").is_some();
    let trial = |(name, prepare): &(&'static str, &'static str)| {
        let (name, prepare) = (*name, *prepare);
        Trial::test(name, move || follow(name, prepare)).with_ignored_flag(!disposable)
    };
    let every = Trial::test("every_page_is_followed_or_has_a_reason", || every_page(&directory()));
    let trials = PAGES.iter().map(trial).chain([every]).collect();
    if !disposable {
        eprintln!(
            "the pages change the machine: they are followed only where DISPOSABLE=1 says that it may be thrown away"
        );
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn directory() -> PathBuf {
    std::env::var_os("DOCS").map_or(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs"), PathBuf::from)
}

fn every_page(directory: &Path) -> Result<(), Failed> {
    let mut there = Vec::new();
    for entry in fs::read_dir(directory).map_err(|e| format!("{}: {e}", directory.display()))? {
        there.push(entry?.file_name().to_string_lossy().into_owned());
    }
    there.retain(|name| name.ends_with(".md"));
    there.sort();
    let mut known: Vec<&str> = PAGES.iter().chain(NOT_FOLLOWED).map(|(name, _)| *name).collect();
    known.sort();
    if there != known {
        return Err(format!("in docs: {there:?}\nin PAGES and NOT_FOLLOWED: {known:?}").into());
    }
    Ok(())
}

fn follow(name: &str, prepare: &str) -> Result<(), Failed> {
    let text = fs::read_to_string(directory().join(name)).map_err(|e| format!("{name}: {e}"))?;
    let scratch = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir()?;
    let tar = images::busybox(scratch.path());
    let script = format!(
        "TAR={} IMAGE={IMAGE}; as_user() {{ {} bash -c '\"$@\"' - \"$@\"; }}; {FUNCTIONS}; {prepare}",
        tar.display(),
        as_user().join(" ")
    );
    let ready = run(&["bash".to_string()], &script)?;
    ready.0.then_some(()).ok_or(format!("not prepared: {}", ready.1))?;
    for part in page::parts(&text).map_err(|e| format!("{name}: {e}"))? {
        match part {
            Part::File { path, text } => write(Path::new(&path), &text)?,
            Part::Session(commands) => commands.iter().try_for_each(|command| type_in(name, command))?,
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, text)
}

fn type_in(name: &str, command: &Command) -> Result<(), Failed> {
    let shell = if command.root { vec!["bash".to_string()] } else { [as_user(), vec!["bash".to_string()]].concat() };
    let (success, said) = run(&shell, &command.line)?;
    let place = format!("{name}:{}: {}", command.number, command.line);
    if !success {
        return Err(format!("{place}\nfailed, and said:\n{said}").into());
    }
    if !page::matches(&command.output, &said) {
        return Err(format!("{place}\nthe page says:\n{}\nbut it says:\n{said}", command.output.join("\n")).into());
    }
    Ok(())
}

/// The words before a command of the user's, in the session that systemd keeps for that user.
fn as_user() -> Vec<String> {
    let id = process::Command::new("id")
        .args(["-u", USER])
        .output()
        .map(|out| String::from_utf8_lossy(&out.stdout).trim().to_string());
    let dir = format!("/run/user/{}", id.unwrap_or_default());
    [
        "setpriv",
        "--reuid",
        USER,
        "--regid",
        USER,
        "--init-groups",
        "env",
        "-C",
        "/",
        // Of root's, who calls this.
        "--unset=XDG_CACHE_HOME",
        &format!("HOME=/home/{USER}"),
        &format!("USER={USER}"),
        &format!("XDG_RUNTIME_DIR={dir}"),
        &format!("DBUS_SESSION_BUS_ADDRESS=unix:path={dir}/bus"),
    ]
    .map(str::to_string)
    .to_vec()
}

/// Whether it succeeded, and what it wrote, errors too.
fn run(shell: &[String], line: &str) -> std::io::Result<(bool, String)> {
    let out = tempfile::NamedTempFile::new()?;
    let both = || fs::File::options().append(true).open(out.path());
    let status = process::Command::new("timeout")
        .args(["-k", "5", "120"])
        .args(shell)
        .args(["-c", line])
        .stdin(Stdio::null())
        .stdout(both()?)
        .stderr(both()?)
        .status()?;
    Ok((status.success(), String::from_utf8_lossy(&fs::read(out.path())?).into_owned()))
}
