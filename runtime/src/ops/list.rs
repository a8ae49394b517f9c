//! `list`: the containers below the root directory, as a table, as JSON, or their ids alone.

use super::{Global, default_root, state};
use crate::error::{Error, Kind, Result, invalid};
use crate::state::Container;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// One container as `state` and `list` show it; the order of the fields is that of runc's JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The version of the runtime specification.
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// The pid of the init on the host, 0 when the container is stopped.
    pub pid: i32,
    /// created, running, paused or stopped.
    pub status: String,
    /// The bundle directory, absolute.
    pub bundle: String,
    /// The root file system, absolute and resolved.
    pub rootfs: String,
    /// When it was created: RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// Those of config.json.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The user who owns the state directory, `#uid` when it has no name; empty in the answer of `state`.
    pub owner: String,
}

/// The answer of `list`, ready to print; `format` is "table" or "json", `quiet` asks for the ids alone.
///
/// No container has been made yet when the default root is missing; that a root of the user's own is missing is an error.
pub fn list(global: &Global, format: &str, quiet: bool) -> Result<String> {
    let no_root = !global.root.exists() && global.root == default_root().0;
    let rows = if no_root { Vec::new() } else { rows(global)? };
    render(&rows, format, quiet)
}

/// A container that cannot be loaded is told about and left out.
fn rows(global: &Global) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for container in Container::all(&global.root)? {
        let row = container.and_then(|c| {
            let id = c.saved.id.clone();
            let row = state::row(&c).and_then(|row| Ok(Row { owner: user_name(c.owner()?), ..row }));
            row.map_err(|e| (id, e))
        });
        match row {
            Ok(row) => rows.push(row),
            Err((id, e)) => log::error!("load container {id}: {e}"),
        }
    }
    Ok(rows)
}

/// The name of a user of the host, or `#uid`.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_string())
    };
    passwd.lines().find_map(of).unwrap_or_else(|| format!("#{uid}"))
}

/// Rows as text.
pub fn render(rows: &[Row], format: &str, quiet: bool) -> Result<String> {
    match format {
        _ if quiet => Ok(rows.iter().map(|row| format!("{}\n", row.id)).collect()),
        "table" => Ok(table(rows)),
        "json" => json(rows),
        _ => Err(Error::new(Kind::Invalid, "invalid format option").at("--format").hint("table or json")),
    }
}

/// One line; Go, whose habits the readers of this know, says `null` for an empty list.
fn json(rows: &[Row]) -> Result<String> {
    let rows = (!rows.is_empty()).then_some(rows);
    let text = serde_json::to_string(&rows).map_err(|e| invalid("list", e.to_string()))?;
    Ok(text + "\n")
}

/// Columns of at least 12 characters, 3 spaces apart, the last one as long as it is: what Go's tabwriter makes of it.
fn table(rows: &[Row]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let cells = |row: &Row| {
        [&row.id, &row.pid.to_string(), &row.status, &row.bundle, &row.created, &row.owner].map(String::clone)
    };
    let lines: Vec<[String; 6]> = [header].into_iter().chain(rows.iter().map(cells)).collect();
    let mut widths = [12; 6];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count() + 3);
        }
    }
    let mut out = String::new();
    for line in &lines {
        let [columns @ .., owner] = line;
        for (cell, width) in columns.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(out, "{cell:width$}");
        }
        out.push_str(owner);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str) -> Row {
        Row {
            oci_version: "1.3.0".into(),
            id: id.into(),
            pid: 42,
            status: "running".into(),
            bundle: "/a/longer/bundle".into(),
            rootfs: "/a/rootfs".into(),
            created: "2026-11-21T01:53:35.12Z".into(),
            annotations: BTreeMap::new(),
            owner: "root".into(),
        }
    }

    #[test]
    fn table_is_runcs() {
        assert_eq!(table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
        assert_eq!(
            table(&[row("a")]),
            "ID          PID         STATUS      BUNDLE             CREATED                   OWNER\n\
             a           42          running     /a/longer/bundle   2026-11-21T01:53:35.12Z   root\n"
        );
    }

    #[test]
    fn json_is_one_line_in_runcs_order() {
        assert_eq!(render(&[], "json", false).unwrap(), "null\n");
        let mut annotated = row("b");
        annotated.annotations.insert("k".into(), "v".into());
        assert_eq!(
            render(&[annotated], "json", false).unwrap(),
            "[{\"ociVersion\":\"1.3.0\",\"id\":\"b\",\"pid\":42,\"status\":\"running\",\"bundle\":\"/a/longer/bundle\",\
             \"rootfs\":\"/a/rootfs\",\"created\":\"2026-11-21T01:53:35.12Z\",\"annotations\":{\"k\":\"v\"},\"owner\":\"root\"}]\n"
        );
        assert!(!render(&[row("a")], "json", false).unwrap().contains("annotations"));
    }

    #[test]
    fn quiet_wins_and_other_formats_are_refused() {
        assert_eq!(render(&[row("a"), row("b")], "xml", true).unwrap(), "a\nb\n");
        assert!(render(&[], "xml", false).unwrap_err().to_string().contains("invalid format option"));
    }
}
