//! Buffers that belong to the thread and are lent for the time between a read and its write.
//!
//! An idle tunnel holds none, a busy one never allocates: the buffer that one tunnel gives back is
//! the next one's. Kept per thread, so no lock is taken.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use underpass_pipeline::record::{HEADER_BYTES, TAG_BYTES};

use crate::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN};

/// Beside the chunk: its header, its tag, and the header that comes after.
const SLACK: usize = 2 * HEADER_BYTES + TAG_BYTES;

/// Bytes of a buffer of each class: a chunk at rest, a flow that grows, bulk.
const CLASSES: [usize; 3] = [CHUNK_BYTES_MIN + SLACK, 4 * CHUNK_BYTES_MIN + SLACK, CHUNK_BYTES_MAX + SLACK];

/// Free buffers that a thread keeps of each class. All of them are not quite 2.5 MiB, about what the
/// tunnels that are busy at one moment on one thread take.
const KEPT: [usize; 3] = [16, 8, 6];

/// What fits into a buffer of the smallest class.
pub(crate) const SMALL: usize = CLASSES[0];

thread_local! {
    static FREE: RefCell<[Vec<Box<[u8]>>; 3]> = const { RefCell::new([const { Vec::new() }; 3]) };
}

/// Bytes with a window of those that count. Goes back to the thread when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// A buffer for at least `bytes` (or the largest there is), empty.
    pub(crate) fn take(bytes: usize) -> Self {
        let class = CLASSES.iter().position(|size| *size >= bytes).unwrap_or(CLASSES.len() - 1);
        let kept = FREE.try_with(|free| free.borrow_mut()[class].pop()).ok().flatten();
        let bytes = kept.unwrap_or_else(|| vec![0; CLASSES[class]].into_boxed_slice());
        Self { bytes, start: 0, end: 0 }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Gives up the first `bytes` of the window.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
    }

    /// Lengthens the window by `bytes` whose content is whatever lay there.
    pub(crate) fn extend(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.bytes.len());
    }

    /// Cuts the window to its first `bytes`.
    pub(crate) fn truncate(&mut self, bytes: usize) {
        self.end = (self.start + bytes).min(self.end);
    }

    /// Moves the window so that `room` bytes from its start fit, into a larger buffer if need be.
    pub(crate) fn make_room(&mut self, room: usize) {
        if self.start + room <= self.capacity() {
            return;
        }
        if room <= self.capacity() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        } else {
            let mut larger = Self::take(room);
            larger.extend(self.filled().len());
            larger.filled_mut().copy_from_slice(self.filled());
            *self = larger;
        }
    }

    /// Reads once, until the window has at most `room` bytes. Nought bytes are the stream's end.
    pub(crate) fn poll_fill(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        room: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let limit = (self.start + room).min(self.capacity());
        let mut buf = ReadBuf::new(&mut self.bytes[self.end..limit]);
        ready!(Pin::new(io).poll_read(cx, &mut buf))?;
        let read = buf.filled().len();
        self.end += read;
        Poll::Ready(Ok(read))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let Some(class) = CLASSES.iter().position(|size| *size == bytes.len()) else { return };
        // A thread on its way out has no list any more; the buffer is freed instead.
        let _ = FREE.try_with(|free| {
            let free = &mut free.borrow_mut()[class];
            if free.len() < KEPT[class] {
                free.push(bytes);
            }
        });
    }
}

/// Reads once into a buffer for a chunk of `chunk` bytes, after `before` bytes of room. While nothing
/// is there, nothing is held. An empty chunk is the stream's end.
pub(crate) async fn read_chunk(
    io: &mut (impl AsyncRead + Unpin),
    before: usize,
    chunk: usize,
) -> io::Result<Buffer> {
    std::future::poll_fn(|cx| {
        let mut buffer = Buffer::take(chunk + SLACK);
        buffer.extend(before);
        ready!(buffer.poll_fill(io, before + chunk, cx))?;
        Poll::Ready(Ok(buffer))
    })
    .await
}

/// How much to read at once: grows while reads fill it, shrinks when they no longer do.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: usize,
    max: usize,
    short: u32,
}

/// A chunk is made smaller after this many reads in a row that took less than a quarter of it: one
/// short read is the end of a burst, several are another kind of traffic.
const SHORT_READS: u32 = 4;

impl Chunk {
    pub(crate) fn new(max: usize) -> Self {
        Self { bytes: CHUNK_BYTES_MIN, max: max.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX), short: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn saw(&mut self, read: usize) {
        if read >= self.bytes {
            self.bytes = (self.bytes * 4).min(self.max);
            self.short = 0;
        } else if read < self.bytes / 4 {
            self.short += 1;
            if self.short >= SHORT_READS {
                self.bytes = (self.bytes / 4).max(CHUNK_BYTES_MIN);
                self.short = 0;
            }
        } else {
            self.short = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_grows_with_the_flow_and_is_given_back() {
        let mut chunk = Chunk::new(CHUNK_BYTES_MAX);
        assert_eq!(chunk.bytes(), 16 * 1024);
        for expected in [64, 256, 256] {
            chunk.saw(chunk.bytes());
            assert_eq!(chunk.bytes(), expected * 1024);
        }
        for expected in [256, 256, 256, 64, 64, 64, 64, 16, 16] {
            chunk.saw(100);
            assert_eq!(chunk.bytes(), expected * 1024);
        }
    }

    #[test]
    fn a_thread_keeps_a_few_buffers_and_no_more() {
        let lent: Vec<_> = (0..100).map(|_| Buffer::take(CHUNK_BYTES_MAX)).collect();
        drop(lent);
        let kept = FREE.with(|free| free.borrow()[2].len());
        assert_eq!(kept, KEPT[2]);
        let again = Buffer::take(CHUNK_BYTES_MAX);
        assert_eq!(FREE.with(|free| free.borrow()[2].len()), kept - 1, "a kept one is lent first");
        assert!(again.filled().is_empty());
    }

    #[test]
    fn a_window_moves_into_a_larger_buffer_with_its_bytes() {
        let mut buffer = Buffer::take(SMALL);
        buffer.extend(SMALL);
        buffer.filled_mut().fill(7);
        buffer.consume(SMALL - 5);
        buffer.make_room(SMALL);
        assert_eq!((buffer.filled(), buffer.capacity()), (&[7; 5][..], SMALL));
        buffer.make_room(CHUNK_BYTES_MAX);
        assert_eq!(buffer.filled(), [7; 5]);
        assert!(buffer.capacity() >= CHUNK_BYTES_MAX);
    }
}
