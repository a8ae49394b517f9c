use super::*;
use crate::cgroup::v2::V2;

fn of(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn container(path: &str, user: bool) -> Systemd {
    let unit = Unit::of(Some(path), "id", user).unwrap();
    let inner = V2::new(Path::new("/nonexistent"), PathBuf::from("/nonexistent/x"), true);
    Systemd::new(unit, "id", Vec::new(), "", Box::new(inner))
}

fn names(properties: &[Property]) -> Vec<&str> {
    properties.iter().map(|p| p.name.as_str()).collect()
}

#[test]
fn a_scope_has_its_slice_its_process_and_its_limits_at_once() {
    let all = container("a-b.slice:p:n", false).properties(Some(&of(r#"{"pids":{"limit":3}}"#)), Some(42)).unwrap();
    assert_eq!(
        names(&all),
        [
            "Description",
            "Slice",
            "Delegate",
            "PIDs",
            "CPUAccounting",
            "IOAccounting",
            "MemoryAccounting",
            "TasksAccounting",
            "DefaultDependencies",
            "TasksMax",
            "DevicePolicy",
            "DeviceAllow",
            "DeviceAllow",
        ]
    );
    let value = |name: &str| &all.iter().find(|p| p.name == name).unwrap().value;
    assert_eq!(value("Slice"), &Value::text("a-b.slice"));
    assert_eq!(value("PIDs"), &Value::Array("u".into(), vec![Value::U32(42)]));
}

#[test]
fn a_slice_wants_its_parent_and_has_no_process() {
    let all = container("a.slice:p:a-b.slice", true).properties(None, None).unwrap();
    assert_eq!(
        names(&all),
        [
            "Description",
            "Wants",
            "CPUAccounting",
            "IOAccounting",
            "MemoryAccounting",
            "TasksAccounting",
            "DefaultDependencies"
        ]
    );
}

#[test]
fn what_systemd_does_not_know_is_left_to_the_files() {
    let limits = || properties::limits(&of(r#"{"cpu":{"idle":1},"memory":{"limit":5}}"#), true).unwrap();
    let unknown = "Cannot set property MemoryMax, or unknown property.";
    let mut left = limits();
    assert!(drop_unknown(UNKNOWN, unknown, &mut left));
    assert_eq!(names(&left), ["CPUWeight"]);
    // Before 252 systemd has no word for idle.
    assert!(drop_unknown("org.freedesktop.DBus.Error.InvalidArgs", "CPUWeight= value out of range", &mut left));
    assert!(left.is_empty());
    // A value that it refuses, and a property that somebody has asked for by name, are not passed over.
    let mut left = limits();
    assert!(!drop_unknown("org.freedesktop.DBus.Error.InvalidArgs", "MemoryMax= is out of range", &mut left));
    let annotation = ("org.systemd.property.Nonsense".to_string(), "5".to_string());
    let mut asked = annotations([(&annotation.0, &annotation.1)].into_iter()).unwrap();
    let why = "Cannot set property Nonsense, or unknown property.";
    assert!(!drop_unknown(UNKNOWN, why, &mut asked));
    let e = explained("x.scope", "StartTransientUnit", Failure::Refused(UNKNOWN.into(), why.into()), &asked);
    assert_eq!(
        e.to_string(),
        "annotations.org.systemd.property.Nonsense: systemd unit x.scope: StartTransientUnit: Cannot set property Nonsense, or unknown property. (org.freedesktop.DBus.Error.PropertyReadOnly)"
    );
}

#[test]
fn a_holder_lives_until_it_is_dropped() {
    // The test's process has threads; the kernel's clone of one that has is refused here.
    let e = Holder::new().unwrap_err();
    assert_eq!(e.errno(), Some(orlop_sys::Errno::EDEADLK));
}
