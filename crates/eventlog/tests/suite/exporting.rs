//! Logs as lines of text.

use std::path::PathBuf;

use futures_util::TryStreamExt;
use serde_json::Value;
use underpass_domain::{LogName, Position, events::schema_files};
use underpass_eventlog::{EXPORT_FORMAT, Export, LogError, Selection};

use crate::raw::Raw;

const LOG: LogName = LogName::Activity;

/// Frames of 1, 3, 12, 1 and 5 events.
pub async fn sample() -> Raw {
    let mut raw = Raw::new(LOG, 1).await;
    for count in [3, 12, 1, 5] {
        raw.usage(count).await;
    }
    raw
}

/// The first and last positions of the frames of [`sample`].
const FRAMES: [(u64, u64); 5] = [(1, 1), (2, 4), (5, 16), (17, 17), (18, 22)];

pub async fn lines(raw: &Raw, selection: Selection) -> Vec<String> {
    let export = Export::open(&raw.store(), raw.log, selection).await.unwrap();
    export.into_stream().try_collect().await.unwrap()
}

fn positions(lines: &[String]) -> Vec<u64> {
    let position = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["position"].as_str().unwrap().parse().unwrap()
    };
    lines.iter().map(position).collect()
}

/// Of CloudEvents 1.0: required attributes; names of lower-case letters and digits, at most 20; integers of 32
/// bits; no empty texts.
#[tokio::test]
async fn every_line_is_a_cloud_event() {
    let raw = sample().await;
    let lines = lines(&raw, Selection::default()).await;
    assert_eq!(positions(&lines), (1..=22).collect::<Vec<_>>());
    let schemas = schema_files();
    for (line, position) in lines.iter().zip(1..) {
        assert!(!line.contains('\n'));
        let Value::Object(event) = serde_json::from_str(line).unwrap() else { panic!("{line}") };
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["id"], format!("{}/{position}", raw.id));
        assert_eq!(event["source"], format!("urn:underpass:log:{}:activity", raw.id));
        assert_eq!(event["exportversion"], EXPORT_FORMAT);
        let kind = if position == 1 { "log.created" } else { "usage.recorded" };
        assert_eq!(event["type"], format!("underpass.{kind}.v1"));
        let schema = &schemas[&format!("schemas/events/{kind}.v1.schema.json")];
        let schema: Value = serde_json::from_str(schema).unwrap();
        assert_eq!(event["dataschema"], schema["$id"]);
        for (name, value) in &event {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            assert!(name.len() <= 20 && name.bytes().all(plain), "{name}");
            match value {
                Value::String(text) => assert!(!text.is_empty(), "{name}"),
                Value::Number(number) => {
                    assert!(number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()), "{name}");
                }
                _ => assert_eq!(name, "data"),
            }
        }
    }
}

#[tokio::test]
async fn any_part_of_a_log_can_be_exported() {
    let raw = sample().await;
    for after in 0..=22 {
        for until in (after..=22).map(Some).chain([None]) {
            let end = until.unwrap_or(22);
            let mut selection =
                Selection { after: Position(after), until: until.map(Position), whole_frames: false };
            let exact = lines(&raw, selection).await;
            assert_eq!(positions(&exact), (after + 1..=end).collect::<Vec<_>>(), "{after}..{end}");

            selection.whole_frames = true;
            let touched = FRAMES.iter().filter(|(first, last)| *last > after && *first <= end && after < end);
            let expected: Vec<u64> = touched.flat_map(|(first, last)| *first..=*last).collect();
            assert_eq!(positions(&lines(&raw, selection).await), expected, "{after}..{end}");
        }
    }
    let selection = Selection { until: Some(Position(23)), ..Selection::default() };
    let ahead = Export::open(&raw.store(), LOG, selection).await.map(|_| ());
    assert!(matches!(ahead, Err(LogError::Ahead { head: Position(22), .. })), "{ahead:?}");
    let absent = Export::open(&raw.store(), LogName::Control, Selection::default()).await.map(|_| ());
    assert!(matches!(absent, Err(LogError::Absent { .. })), "{absent:?}");
}

#[tokio::test]
async fn what_is_appended_during_an_export_is_not_part_of_it() {
    let mut raw = sample().await;
    let mut export = Export::open(&raw.store(), LOG, Selection::default()).await.unwrap();
    assert_eq!((export.end(), export.log_id()), (Position(22), raw.id));
    raw.usage(4).await;
    let mut count = 0;
    while export.next().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 22);
    assert_eq!(export.next().await.unwrap(), None);
}

/// To leave out what one doesn't know would be to lose a fact.
#[tokio::test]
async fn an_event_that_is_newer_than_the_program_ends_the_export() {
    let mut raw = sample().await;
    raw.pad(1, 5).await;
    let mut export = Export::open(&raw.store(), LOG, Selection::default()).await.unwrap();
    for _ in 0..22 {
        export.next().await.unwrap().unwrap();
    }
    assert!(matches!(export.next().await, Err(LogError::Newer { position: Position(23), .. })));
}

/// What was exported once must be read for good: `fixtures/export/` is never changed, only added to.
/// `UPDATE_FIXTURES=1` writes files that are missing.
#[tokio::test]
async fn golden_lines_are_what_is_written() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/export");
    let path = folder.join("activity-v1.jsonl");
    let lines = lines(&sample().await, Selection::default()).await.join("\n") + "\n";
    if !path.exists() && std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, &lines).unwrap();
    }
    assert_eq!(lines, std::fs::read_to_string(&path).unwrap());
}
