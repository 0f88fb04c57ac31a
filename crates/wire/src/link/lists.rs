//! How long the lists inside a message are, before it is decoded.
//!
//! An element takes two bytes on the wire and up to several hundred in memory, so the limit on a message's
//! length alone would let four megabytes grow to a gigabyte.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::LinkError;

/// How many elements all lists of one message may have together.
pub const LIST_ITEMS_MAX: usize = 32 * 1024;

const MALFORMED: LinkError = LinkError::Malformed { what: "message" };

/// Refuses an encoded message with longer lists.
pub(super) fn check(message: &[u8]) -> Result<(), LinkError> {
    let mut items = 0;
    each_field(message, |tag, body| {
        items += match tag {
            DESIRED => count(body, 4)?,
            APPLIED => count(body, 2)?,
            TICKETS => count(body, 2)?,
            REPORT => count(body, 1)?,
            ANSWER => {
                let mut items = 0;
                each_field(body, |tag, outcome| {
                    if matches!(tag, ANSWER_MAPPINGS | ANSWER_LINES) {
                        items += count(outcome, 1)?;
                    }
                    Ok(())
                })?;
                items
            }
            _ => 0,
        };
        Ok(())
    })?;
    if items > LIST_ITEMS_MAX {
        return Err(LinkError::TooLong { what: "list", length: items, limit: LIST_ITEMS_MAX });
    }
    Ok(())
}

// Tags of the bodies that have lists; a test keeps them in step with the messages.
const DESIRED: u32 = 6;
const APPLIED: u32 = 7;
const TICKETS: u32 = 9;
const REPORT: u32 = 11;
const ANSWER: u32 = 15;
const ANSWER_MAPPINGS: u32 = 5;
const ANSWER_LINES: u32 = 9;

/// How often the field `wanted` stands in `body`.
fn count(body: &[u8], wanted: u32) -> Result<usize, LinkError> {
    let mut items = 0;
    each_field(body, |tag, _| {
        items += usize::from(tag == wanted);
        Ok(())
    })?;
    Ok(items)
}

/// Calls `seen` for every field that has a length, with its tag and its bytes.
fn each_field(
    mut bytes: &[u8],
    mut seen: impl FnMut(u32, &[u8]) -> Result<(), LinkError>,
) -> Result<(), LinkError> {
    while !bytes.is_empty() {
        let (tag, wire_type) = decode_key(&mut bytes).map_err(|_| MALFORMED)?;
        if wire_type == WireType::LengthDelimited {
            let length = decode_varint(&mut bytes).map_err(|_| MALFORMED)?;
            let length = usize::try_from(length).map_err(|_| MALFORMED)?;
            let (field, rest) = bytes.split_at_checked(length).ok_or(MALFORMED)?;
            bytes = rest;
            seen(tag, field)?;
        } else {
            skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).map_err(|_| MALFORMED)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::link::{
        Answer, Applied, Body, Desired, DesiredMapping, Lines, LinkMessage, MappingInfo, MappingResult,
        MappingUsage, Mappings, Outcome, Report, Ticket, Tickets,
    };

    fn with_lists(items: usize) -> Vec<Body> {
        let answer = |outcome| Body::Answer(Answer { id: vec![], outcome: Some(outcome) });
        vec![
            Body::Desired(Desired { mappings: vec![DesiredMapping::default(); items], ..Desired::default() }),
            Body::Applied(Applied { results: vec![MappingResult::default(); items], ..Applied::default() }),
            Body::Tickets(Tickets { tickets: vec![Ticket::default(); items], role: 1 }),
            Body::Report(Report { usage: vec![MappingUsage::default(); items], parked: 0 }),
            answer(Outcome::Mappings(Mappings { mappings: vec![MappingInfo::default(); items] })),
            answer(Outcome::Lines(Lines { lines: vec![String::new(); items], truncated: false })),
        ]
    }

    /// C2: what a message grows to is bounded as well.
    #[test]
    fn c2_a_list_over_the_limit_is_refused_before_it_is_decoded() {
        for body in with_lists(LIST_ITEMS_MAX) {
            assert_eq!(check(&LinkMessage { body: Some(body) }.encode_to_vec()), Ok(()));
        }
        for body in with_lists(LIST_ITEMS_MAX + 1) {
            let refused = check(&LinkMessage { body: Some(body) }.encode_to_vec());
            assert!(matches!(refused, Err(LinkError::TooLong { what: "list", .. })), "{refused:?}");
        }
    }

    /// A message told in two halves is one message, and its lists count together.
    #[test]
    fn c2_lists_can_not_be_split_to_pass() {
        let half = with_lists(LIST_ITEMS_MAX / 2 + 1).remove(0);
        let half = LinkMessage { body: Some(half) }.encode_to_vec();
        assert_eq!(check(&half), Ok(()));
        assert!(check(&[&half[..], &half[..]].concat()).is_err());
    }

    #[test]
    fn cut_fields_are_malformed() {
        let whole = LinkMessage { body: Some(with_lists(3).remove(0)) }.encode_to_vec();
        for cut in 1..whole.len() {
            assert_eq!(check(&whole[..cut]), Err(MALFORMED), "cut at {cut}");
        }
    }
}
