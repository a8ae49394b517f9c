//! An AppArmor profile for one check, unloaded when the check ends.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::check::Failure;
use crate::runtime::Lab;

/// A loaded profile that allows everything but writing to `/secret`.
pub struct Profile {
    /// Its name: the container's id.
    pub name: String,
    source: PathBuf,
}

impl Profile {
    /// Loads it; needs apparmor_parser(8).
    pub fn load(lab: &Lab) -> Result<Self, Failure> {
        let source = lab.dir.join("profile");
        let rules = "network, capability, file, mount, umount, pivot_root, signal, ptrace, unix, deny /secret w,";
        fs::write(&source, format!("profile {} flags=(attach_disconnected) {{ {rules} }}\n", lab.id))?;
        let profile = Self { name: lab.id.clone(), source };
        let loaded = profile.parser("--replace")?;
        ensure!(loaded.success(), "apparmor_parser does not take the profile");
        Ok(profile)
    }

    fn parser(&self, action: &str) -> Result<std::process::ExitStatus, Failure> {
        let mut parser = Command::new("apparmor_parser");
        Ok(parser.args([action, "--skip-cache"]).arg(&self.source).stdin(Stdio::null()).status()?)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        if !self.parser("--remove").is_ok_and(|status| status.success()) {
            eprintln!("cannot unload the AppArmor profile {}", self.name);
        }
    }
}
