//! Lines of text out of a reader, none of them longer than a bound.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Reads line by line. Memory holds one line.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    bytes_max: usize,
    number: u64,
    /// Bytes read so far, ends of lines included.
    read: u64,
    line: Vec<u8>,
}

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("the line is longer than {0} bytes")]
    TooLong(usize),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A line without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OneLine<'a> {
    pub(crate) text: &'a [u8],
    /// Whether it had an end. Only the last can lack it.
    pub(crate) ended: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(crate) fn new(input: R, bytes_max: usize) -> Self {
        Self { input, bytes_max, number: 0, read: 0, line: Vec::new() }
    }

    /// The number of the last line that was asked for, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes up to the end of the last line that was given.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// The next line; `None` at the end. After an error there is no going on.
    pub(crate) async fn next(&mut self) -> Result<Option<OneLine<'_>>, LineError> {
        self.line.clear();
        self.number += 1;
        let mut ended = false;
        while !ended {
            let available = self.input.fill_buf().await?;
            if available.is_empty() {
                break;
            }
            let (part, used) = match available.iter().position(|byte| *byte == b'\n') {
                Some(end) => (&available[..end], end + 1),
                None => (available, available.len()),
            };
            ended = used > part.len();
            if self.line.len() + part.len() > self.bytes_max {
                return Err(LineError::TooLong(self.bytes_max));
            }
            self.line.extend_from_slice(part);
            self.input.consume(used);
            self.read += used as u64;
        }
        if !ended && self.line.is_empty() {
            self.number -= 1;
            return Ok(None);
        }
        Ok(Some(OneLine { text: &self.line, ended }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In pieces of every size, so that lines lie across them in every way.
    #[tokio::test]
    async fn lines_come_whole_however_they_arrive() -> Result<(), LineError> {
        let text = b"one\n\nthree\r\nfour";
        for piece in 1..=text.len() {
            let mut lines = Lines::new(tokio::io::BufReader::with_capacity(piece, &text[..]), 6);
            let mut all = Vec::new();
            while let Some(line) = lines.next().await? {
                all.push((line.text.to_vec(), line.ended));
            }
            let expected: Vec<(&[u8], bool)> =
                vec![(b"one", true), (b"", true), (b"three\r", true), (b"four", false)];
            assert_eq!(all, expected.iter().map(|(t, e)| (t.to_vec(), *e)).collect::<Vec<_>>());
            assert_eq!((lines.number(), lines.read()), (4, text.len() as u64));
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_line_over_the_bound_is_not_kept() -> Result<(), LineError> {
        let text = vec![b'x'; 1000];
        let mut lines = Lines::new(tokio::io::BufReader::with_capacity(10, &text[..]), 100);
        assert!(matches!(lines.next().await, Err(LineError::TooLong(100))));
        assert!(lines.line.capacity() < 300);
        let mut lines = Lines::new(&text[..100], 100);
        assert_eq!(lines.next().await?.map(|line| line.text.len()), Some(100));
        Ok(())
    }
}
