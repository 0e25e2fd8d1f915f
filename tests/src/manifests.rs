//! Owns reading what is under k8s/: manifests as they are written or rendered, and configuration files.
//! Must not judge them: suites do.

use crate::server::process::run_for_output;
use serde::Deserialize;
use serde_yaml_ng::Deserializer;
pub use serde_yaml_ng::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file or folder of k8s/.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s").join(relative)
}

#[track_caller]
pub fn text(relative: &str) -> String {
    let path = path(relative);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The objects of one file.
#[track_caller]
pub fn read(relative: &str) -> Vec<Object> {
    parse(&text(relative))
}

/// The objects that a folder's kustomization comes to.
#[track_caller]
pub fn render(relative: &str) -> Vec<Object> {
    let mut kubectl = Command::new("kubectl");
    kubectl.arg("kustomize").arg(path(relative));
    parse(&run_for_output(kubectl))
}

#[track_caller]
pub fn parse(yaml: &str) -> Vec<Object> {
    Deserializer::from_str(yaml)
        .map(|document| Object(Value::deserialize(document).expect("YAML")))
        .filter(|object| !object.0.is_null())
        .collect()
}

/// The settings of a plain configuration file, unquoted.
#[track_caller]
pub fn settings(relative: &str) -> Vec<(String, String)> {
    let text = text(relative);
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.split_once(" = ").expect("name = value");
            (name.to_string(), value.trim_matches('\'').to_string())
        })
        .collect()
}

/// One Kubernetes object.
#[derive(Clone, Debug)]
pub struct Object(pub Value);

impl Object {
    #[track_caller]
    pub fn kind(&self) -> &str {
        string(&self.0["kind"])
    }

    #[track_caller]
    pub fn name(&self) -> &str {
        string(&self.0["metadata"]["name"])
    }

    /// What a path such as `spec/template/metadata/labels` leads to; null where it leads nowhere.
    pub fn at(&self, path: &str) -> &Value {
        at(&self.0, path)
    }
}

/// As `Object::at`; list items are numbered from 0.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    static NULL: Value = Value::Null;
    path.split('/').fold(value, |value, step| match value {
        Value::Sequence(items) => {
            step.parse::<usize>().ok().and_then(|index| items.get(index)).unwrap_or(&NULL)
        }
        value => value.get(step).unwrap_or(&NULL),
    })
}

#[track_caller]
pub fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value:?} is no string"))
}

pub fn list(value: &Value) -> &[Value] {
    value.as_sequence().map_or(&[], Vec::as_slice)
}

/// The strings of a map, such as labels.
#[track_caller]
pub fn pairs(value: &Value) -> Vec<(String, String)> {
    let map = value.as_mapping().into_iter().flatten();
    map.map(|(name, value)| (string(name).to_string(), string(value).to_string())).collect()
}

/// The one object of this kind and name.
#[track_caller]
pub fn find<'a>(objects: &'a [Object], kind: &str, name: &str) -> &'a Object {
    let mut found = objects.iter().filter(|object| object.kind() == kind && object.name() == name);
    let first = found.next().unwrap_or_else(|| panic!("there is no {kind} {name}"));
    assert!(found.next().is_none(), "there is more than one {kind} {name}");
    first
}

pub fn of_kind<'a>(objects: &'a [Object], kind: &'a str) -> impl Iterator<Item = &'a Object> {
    objects.iter().filter(move |object| object.kind() == kind)
}
