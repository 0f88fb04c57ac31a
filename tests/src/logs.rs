//! What verbs say of logs.

use std::path::Path;

use serde_json::Value;

use crate::{Done, run};

/// The result of a verb that speaks of both logs, about one of them.
#[track_caller]
pub fn of<'a>(done: &'a Done, log: &str) -> &'a Value {
    assert_eq!(done.code, 0, "{done:?}");
    let results = done.lines.iter().filter(|line| line["event"] != "progress");
    results.clone().find(|line| line["log"] == log).unwrap_or_else(|| panic!("nothing of {log} in {done:?}"))
}

/// What `log replay` says of a folder that no server uses, without the moment itself.
#[track_caller]
pub fn read_models(data: &Path) -> Vec<Value> {
    let data = data.display().to_string();
    let read = |log| {
        let mut model = run(&["log", "replay", "--data", &data, "--log-name", log]).last().clone();
        model.as_object_mut().unwrap().remove("at");
        model
    };
    ["control", "activity"].map(read).into()
}
