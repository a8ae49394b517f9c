//! Finds the commit that `orlop --version` names: $ORLOP_COMMIT for packagers, else git, else none.

#[expect(clippy::disallowed_methods, reason = "only git knows the commit of a checkout")]
fn git(args: &[&str]) -> Option<String> {
    let output = std::process::Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_string())
}

fn main() {
    println!("cargo::rerun-if-env-changed=ORLOP_COMMIT");
    let given = std::env::var("ORLOP_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| {
        // The reflog changes with every commit and checkout.
        let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
        println!("cargo::rerun-if-changed={log}");
        git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
    });
    if let Some(commit) = commit {
        println!("cargo::rustc-env=ORLOP_COMMIT={commit}");
    }
}
