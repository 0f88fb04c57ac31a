//! Payloads of events.
//!
//! Input: log, kind (`u16`, big-endian), version (`u16`), codec, then the payload.

use underpass_domain::{AnyEvent, DomainEvent, LogName, PAYLOAD_CODEC, decode_any};

/// Decodes the payload; what is accepted must have a name, JSON and a sentence, and survive encoding.
pub fn replay(data: &[u8]) -> usize {
    let Some(([log, kind_high, kind_low, version_high, version_low, codec], payload)) =
        data.split_first_chunk::<6>()
    else {
        return 0;
    };
    let log = if log % 2 == 0 { LogName::Control } else { LogName::Activity };
    let kind = u16::from_be_bytes([*kind_high, *kind_low]);
    let version = u16::from_be_bytes([*version_high, *version_low]);
    let Ok(event) = decode_any(log, kind, version, *codec, payload) else { return 0 };
    assert!(!event.name().is_empty() && !event.sentence().is_empty());
    assert!(event.to_json().is_object(), "{}", event.to_json());
    let (kind, version, written) = match &event {
        AnyEvent::Control(event) => (event.kind(), event.version(), event.encode()),
        AnyEvent::Activity(event) => (event.kind(), event.version(), event.encode()),
    };
    let written = written.unwrap_or_else(|error| panic!("what was read can't be written: {error}"));
    let again = decode_any(log, kind, version, PAYLOAD_CODEC, &written);
    assert!(again.as_ref().is_ok_and(|again| *again == event), "{again:?} instead of {event:?}");
    1
}
