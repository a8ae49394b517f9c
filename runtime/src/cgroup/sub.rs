//! Where exec goes below the container's cgroups.

use super::Paths;
use super::host::below;
use crate::error::{Error, Result, invalid};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// `exec --cgroup`: one path for every tree, or paths for some controllers (`memory,cpu:sub`).
#[derive(Debug, Default)]
pub(super) struct SubCgroups {
    all: Option<String>,
    some: BTreeMap<String, String>,
}

impl SubCgroups {
    pub(super) fn parse(args: &[String], paths: &Paths) -> Result<SubCgroups> {
        let mut sub = SubCgroups::default();
        let bad = |why: String| Err(invalid("--cgroup", why));
        for arg in args {
            let Some((controllers, path)) = arg.split_once(':') else {
                if args.len() != 1 {
                    return bad(format!("invalid --cgroup argument: {arg} (missing <controller>: prefix)"));
                }
                sub.all = Some(arg.clone());
                break;
            };
            for controller in controllers.split(',') {
                if controller.is_empty() {
                    return bad(format!("invalid --cgroup argument: {arg} (empty <controller> prefix)"));
                }
                if !paths.contains_key(controller) {
                    return bad(format!("unknown controller {controller} in SubCgroupPaths"));
                }
                if sub.some.insert(controller.to_string(), path.to_string()).is_some() {
                    return bad(format!(
                        "invalid --cgroup argument(s): controller {controller} specified multiple times"
                    ));
                }
            }
        }
        Ok(sub)
    }

    /// Where the process goes in the tree of this controller.
    pub(super) fn below(&self, controller: &str, dir: &Path) -> Result<PathBuf> {
        let Some(sub) = self.some.get(controller).or(self.all.as_ref()) else { return Ok(dir.to_path_buf()) };
        let mut depth = 0;
        for component in Path::new(sub).components() {
            depth += match component {
                Component::Normal(_) => 1,
                Component::ParentDir => -1,
                _ => 0,
            };
            if depth < 0 {
                return Err(invalid("--cgroup", format!("bad sub cgroup path: {sub}")));
            }
        }
        Ok(below(dir, &[Path::new(sub)]))
    }

    pub(super) fn explain(&self, e: Error) -> Error {
        if self.all.is_some() || !self.some.is_empty() { e.at("--cgroup") } else { e }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_cgroups_of_exec() {
        let paths: Paths =
            ["cpu", "memory"].iter().map(|c| (c.to_string(), Path::new("/sys/fs/cgroup").join(c).join("x"))).collect();
        let parse = |args: &[&str]| {
            SubCgroups::parse(&args.iter().map(|a| a.to_string()).collect::<Vec<_>>(), &paths)
                .and_then(|sub| ["cpu", "memory"].iter().map(|c| sub.below(c, &paths[*c])).collect::<Result<Vec<_>>>())
        };
        let at = |cpu: &str, memory: &str| {
            vec![PathBuf::from(format!("/sys/fs/cgroup/cpu/x{cpu}")), format!("/sys/fs/cgroup/memory/x{memory}").into()]
        };
        assert_eq!(parse(&[]).unwrap(), at("", ""));
        assert_eq!(parse(&["/"]).unwrap(), at("", ""));
        assert_eq!(parse(&["a/../b"]).unwrap(), at("/b", "/b"));
        assert_eq!(parse(&["cpu:s"]).unwrap(), at("/s", ""));
        assert_eq!(parse(&["cpu,memory:/s"]).unwrap(), at("/s", "/s"));
        for (args, expected) in [
            (&[".."][..], "--cgroup: bad sub cgroup path: .."),
            (&["a/../.."], "--cgroup: bad sub cgroup path: a/../.."),
            (&["nope:/"], "--cgroup: unknown controller nope in SubCgroupPaths"),
            (&["cpu,:a"], "--cgroup: invalid --cgroup argument: cpu,:a (empty <controller> prefix)"),
            (&["a", "b"], "--cgroup: invalid --cgroup argument: a (missing <controller>: prefix)"),
            (&["cpu:a", "cpu:b"], "--cgroup: invalid --cgroup argument(s): controller cpu specified multiple times"),
        ] {
            assert_eq!(parse(args).unwrap_err().to_string(), expected);
        }
    }
}
