//! Fields of the specification that are easily passed over: of other platforms, of older versions, or empty.

use serde_json::{Value, json};

use crate::check::{Check, Outcome};
use crate::runtime::Lab;

/// A JSON pointer and its value that no runtime for Linux can honour, and the section that has the field.
type Bad = (&'static str, &'static str, fn() -> Value, &'static str);

/// "Runtimes MUST generate an error when invalid or unsupported values are encountered" (config.md, "Valid values"). That these are
/// such values is orlop's reading: other runtimes for Linux pass them over.
const REFUSED: &[Bad] = &[
    ("vm", "/vm", || json!({ "kernel": { "path": "/k" } }), "config-vm.md"),
    ("solaris", "/solaris", || json!({}), "config-solaris.md"),
    ("windows", "/windows", || json!({ "layerFolders": ["x"] }), "config-windows.md"),
    ("zos", "/zos", || json!({}), "config-zos.md"),
    ("freebsd", "/freebsd", || json!({}), "config-freebsd.md"),
    ("commandLine", "/process/commandLine", || json!("true"), "config.md#process"),
    ("consoleSize.height", "/process/consoleSize", || json!({ "height": 65536, "width": 1 }), "config.md#process"),
    ("annotations", "/annotations", || json!({ "": "x" }), "config.md#annotations"),
    (
        "personality.flags",
        "/linux/personality",
        || json!({ "domain": "LINUX", "flags": ["X"] }),
        "config-linux.md#personality",
    ),
    ("useHierarchy", "/linux/resources/memory", || json!({ "useHierarchy": false }), "config-linux.md#memory"),
    ("enableCMT", "/linux/intelRdt", || json!({ "enableCMT": true }), "config-linux.md#intelrdt"),
    ("enableMBM", "/linux/intelRdt", || json!({ "enableMBM": true }), "config-linux.md#intelrdt"),
    ("memBwSchema", "/linux/intelRdt", || json!({ "memBwSchema": "0=10" }), "config-linux.md#intelrdt"),
    ("schemata[0]", "/linux/intelRdt", || json!({ "schemata": ["L3:0=f\nMB:0=10"] }), "config-linux.md#intelrdt"),
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = checks!(
        "known_fields",
        console_size_without_a_terminal_is_ignored "config.md#process",
        pids_without_a_limit_ask_for_nothing "config-linux.md#pids",
        use_hierarchy_holds_anyway "config-linux.md#memory",
        unknown_ones_are_ignored "config.md#extensibility",
        mode_and_owner_of_devices "config-linux.md#devices",
        intel_rdt_without_resctrl_is_refused "config-linux.md#intelrdt",
    );
    checks.extend(REFUSED.iter().map(|&(field, pointer, value, section)| Check {
        name: format!("known_fields::{field}_is_refused"),
        section,
        own: true,
        run: Box::new(move |lab: &mut Lab| {
            let reason = lab.refused(|lab| {
                if field.starts_with("consoleSize") {
                    // It would need a socket; the size is looked at before that.
                    lab.set("/process/terminal", true);
                }
                lab.set(pointer, value());
            })?;
            ensure!(reason.contains(field), "the reason does not name {field}: {reason}");
            Ok(())
        }),
    }));
    checks
}

fn console_size_without_a_terminal_is_ignored(lab: &mut Lab) -> Outcome {
    lab.set("/process/consoleSize", json!({ "height": 70000, "width": 70000 })).run_sh("true")?;
    Ok(())
}

fn pids_without_a_limit_ask_for_nothing(lab: &mut Lab) -> Outcome {
    lab.set("/linux/resources/pids", json!({}));
    // Three processes at once.
    same!(lab.run_sh("echo a | cat | cat")?, "a\n", "output");
    Ok(())
}

fn use_hierarchy_holds_anyway(lab: &mut Lab) -> Outcome {
    lab.set("/linux/resources/memory", json!({ "useHierarchy": true })).run_sh("true")?;
    Ok(())
}

fn unknown_ones_are_ignored(lab: &mut Lab) -> Outcome {
    for pointer in
        ["/later", "/process/later", "/root/later", "/linux/later", "/linux/resources/later", "/mounts/0/later"]
    {
        lab.set(pointer, json!({ "a": [1] }));
    }
    lab.run_sh("true")?;
    Ok(())
}

fn mode_and_owner_of_devices(lab: &mut Lab) -> Outcome {
    lab.set(
        "/linux/devices/-",
        json!({ "path": "/dev/one", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 1815, "gid": 1843 }),
    );
    lab.set("/linux/devices/-", json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o600 }));
    let seen = lab.run_sh("stat -c '%F %a %u %g' /dev/one; stat -c '%F %a %u %g' /dev/pipe")?;
    same!(seen, "character special file 640 1815 1843\nfifo 600 0 0\n", "devices");
    Ok(())
}

fn intel_rdt_without_resctrl_is_refused(lab: &mut Lab) -> Outcome {
    lab.refused(|lab| {
        lab.set("/linux/intelRdt", json!({ "closID": "no-such-class-of-service" }));
    })?;
    Ok(())
}
