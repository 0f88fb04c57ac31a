//! Lists, a page at a time.

use std::fmt::Display;
use std::str::FromStr;

use crate::problem::Problem;

/// Items on a page when the request says nothing.
pub const LIMIT_DEFAULT: u32 = 50;
/// Items on a page at the most: what a browser shows with ease and a node puts together at once.
pub const LIMIT_MAX: u32 = 500;

/// Which part of a list is asked for. Lists are in the order of ids, which never change, so a page that is
/// read while others write neither skips nor repeats what was there all the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<I> {
    after: Option<I>,
    limit: usize,
}

/// One page, and where the next one begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slice<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

impl<I: FromStr + Ord + Copy + Display> Page<I> {
    pub(crate) fn new(after: Option<&str>, limit: Option<u32>) -> Result<Self, Problem> {
        let after =
            match after {
                Some(text) => Some(text.parse().map_err(|_| {
                    Problem::parameter("after", "`after` must be the `next` of an earlier page")
                })?),
                None => None,
            };
        let limit = limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
        Ok(Self { after, limit: limit as usize })
    }

    /// The page of `all`, which is in the order of ids.
    pub(crate) fn of<T>(&self, all: impl Iterator<Item = T>, id: impl Fn(&T) -> I) -> Slice<T> {
        let mut rest = all.filter(|item| self.after.is_none_or(|after| id(item) > after));
        let items: Vec<T> = rest.by_ref().take(self.limit).collect();
        let more = rest.next().is_some();
        let next = items.last().filter(|_| more).map(|item| id(item).to_string());
        Slice { items, next }
    }
}

impl<T> Slice<T> {
    pub(crate) fn map<U>(self, into: impl Fn(T) -> U) -> Slice<U> {
        Slice { items: self.items.into_iter().map(into).collect(), next: self.next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let mut all: Vec<u32> = (0..95).collect();
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = Page::<u32>::new(after.as_deref(), Some(10)).unwrap().of(all.iter().copied(), |n| *n);
            assert!(page.items.len() <= 10);
            seen.extend(page.items);
            // Somebody removes what was shown already and adds at the end.
            all.retain(|n| *n != seen[0]);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, (0..95).collect::<Vec<_>>());
    }

    #[test]
    fn a_last_page_that_is_just_full_has_no_next() {
        let page = Page::<u32>::new(None, Some(10)).unwrap().of(0..10, |n| *n);
        assert_eq!((page.items.len(), page.next), (10, None));
    }

    #[test]
    fn limits_are_bounded_and_cursors_checked() {
        assert_eq!(Page::<u32>::new(None, None).unwrap().of(0..1000, |n| *n).items.len(), 50);
        assert_eq!(Page::<u32>::new(None, Some(9_999)).unwrap().of(0..1000, |n| *n).items.len(), 500);
        assert!(Page::<u32>::new(Some("x"), None).is_err());
    }
}
