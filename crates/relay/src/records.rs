//! The two directions of a channel, as records.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use underpass_pipeline::record::{self, HEADER_BYTES, Header, HeaderError};
use underpass_pipeline::{OpenError, Opener, SealError, Sealer};

use crate::copy::{broken, flush, write_some};
use crate::drive::Flow;
use crate::duplex::{ReadHalf, WriteHalf};
use crate::pool::{Buffer, SMALL};

/// Why records can't be spoken on a channel any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The stream below failed, or ended in the middle of a record.
    #[error("the channel failed")]
    Io(#[from] io::Error),
    /// What came is no record.
    #[error("the channel's peer doesn't speak records")]
    Header(#[from] HeaderError),
    /// A record is longer than its place allows.
    #[error("a record of {bytes} bytes where {bytes_max} are allowed")]
    TooLong {
        /// What its header says, in bytes.
        bytes: usize,
        /// The most there.
        bytes_max: usize,
    },
    /// A record was changed, repeated or out of order.
    #[error("a record was refused")]
    Open(#[from] OpenError),
    /// A record can't be made.
    #[error("a record can't be made")]
    Seal(#[from] SealError),
    /// More is waiting to be written than may: flush first.
    #[error("{bytes} bytes wait to be written already")]
    QueueFull {
        /// Bytes that wait.
        bytes: usize,
    },
    /// An earlier tunnel left the channel in a state that serves no other. Close it.
    #[error("the channel is spent")]
    Spent,
}

/// What was read from a channel and isn't used yet.
#[derive(Debug, Default)]
pub(crate) struct Inbuf {
    buffer: Option<Buffer>,
    /// Bytes at the front that belong to a record already opened.
    opened: usize,
}

impl Inbuf {
    pub(crate) fn filled(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], Buffer::filled)
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        if let Some(buffer) = &mut self.buffer {
            buffer.consume(bytes);
            if buffer.filled().is_empty() {
                self.buffer = None;
            }
        }
    }

    /// Reads once, until there are at most `room` bytes; nought is the end of the stream. While
    /// nothing is there, no buffer is held for it. Cancel-safe.
    pub(crate) async fn fill(&mut self, io: &mut (impl AsyncRead + Unpin), room: usize) -> io::Result<usize> {
        if let Some(buffer) = &mut self.buffer {
            buffer.make_room(room);
        }
        poll_fn(|cx| {
            if let Some(buffer) = &mut self.buffer {
                return buffer.poll_fill(io, room, cx);
            }
            let mut buffer = Buffer::take(room);
            let read = ready!(buffer.poll_fill(io, room, cx))?;
            if read > 0 {
                self.buffer = Some(buffer);
            }
            Poll::Ready(Ok(read))
        })
        .await
    }

    /// The next record, opened in place; `None` at the end of the stream. It stays until the next
    /// call or [`drop_opened`](Self::drop_opened). Cancel-safe.
    pub(crate) async fn next(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        opener: &mut Opener,
        mut progress: impl FnMut(),
    ) -> Result<Option<Arrived>, RecordError> {
        self.drop_opened();
        loop {
            let filled = self.filled();
            let have = filled.len();
            let want = match filled.first_chunk::<HEADER_BYTES>() {
                None => HEADER_BYTES,
                Some(head) => {
                    let header = Header::parse(head)?;
                    let want = header.record_bytes();
                    if let Some(buffer) = self.buffer.as_mut().filter(|_| have >= want) {
                        let body =
                            opener.open_in_place(header, &mut buffer.filled_mut()[HEADER_BYTES..want])?;
                        self.opened = want;
                        return Ok(Some(Arrived { kind: header.kind, bytes: body }));
                    }
                    want
                }
            };
            // Small records are read in a heap. Of a large one nothing is read beyond the next header,
            // so that no part of its successor has to be moved.
            let room = if want <= SMALL { SMALL } else { want + HEADER_BYTES };
            if self.fill(io, room).await? == 0 {
                return if have == 0 { Ok(None) } else { Err(cut_off().into()) };
            }
            progress();
        }
    }

    /// The body of the record that [`next`](Self::next) answered last.
    pub(crate) fn body(&self, arrived: Arrived) -> &[u8] {
        &self.filled()[HEADER_BYTES..HEADER_BYTES + arrived.bytes]
    }

    pub(crate) fn drop_opened(&mut self) {
        let opened = std::mem::take(&mut self.opened);
        self.consume(opened);
    }
}

/// A record that lies opened in an [`Inbuf`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) kind: u8,
    pub(crate) bytes: usize,
}

/// A stream that ended where it must not.
pub(crate) fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the channel ended in the middle of a tunnel")
}

/// Writes what waits in `queue`. Cancelled, it has kept the rest.
pub(crate) async fn write_queue(
    io: &mut (impl AsyncWrite + Unpin),
    queue: &mut BytesMut,
    mut progress: impl FnMut(),
) -> io::Result<()> {
    if queue.is_empty() {
        return Ok(());
    }
    while !queue.is_empty() {
        let written = write_some(io, queue).await?;
        queue.advance(written);
        progress();
    }
    *queue = BytesMut::new();
    flush(io).await
}

/// How far a direction of a channel has come in its tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Records go on.
    Records,
    /// A last record has passed. What follows belongs to the next tunnel.
    Ended,
    /// The bare stream follows.
    Raw,
}

/// The direction of a channel that a tunnel writes. What is half written stays here when a future
/// is dropped, so that another record can follow it.
pub(crate) struct RecordWriter<'c> {
    pub(crate) io: WriteHalf<'c>,
    pub(crate) sealer: Sealer,
    pub(crate) stage: Stage,
    queue: &'c mut BytesMut,
    frame: Option<Buffer>,
}

impl<'c> RecordWriter<'c> {
    pub(crate) fn new(io: WriteHalf<'c>, sealer: Sealer, queue: &'c mut BytesMut) -> Self {
        Self { io, sealer, stage: Stage::Records, queue, frame: None }
    }

    /// Makes a record behind those that wait; nothing is written.
    pub(crate) fn queue(&mut self, kind: u8, body: &[u8]) -> Result<(), SealError> {
        self.sealer.seal(kind, body, self.queue)
    }

    /// Makes a record of a chunk that has the room of a header before it, where it lies. It is
    /// written by [`flush`](Self::flush), which must have come to its end before.
    pub(crate) fn put(&mut self, kind: u8, mut frame: Buffer) -> Result<(), SealError> {
        frame.extend(self.sealer.tag_bytes());
        self.sealer.seal_frame(kind, frame.filled_mut())?;
        self.frame = Some(frame);
        Ok(())
    }

    pub(crate) async fn flush(&mut self, flow: &Flow<'_>) -> io::Result<()> {
        write_queue(&mut self.io, self.queue, || flow.touch()).await?;
        if let Some(frame) = &mut self.frame {
            while !frame.filled().is_empty() {
                let written = write_some(&mut self.io, frame.filled()).await?;
                frame.consume(written);
                flow.touch();
            }
            self.frame = None;
            flush(&mut self.io).await?;
        }
        Ok(())
    }

    /// Queues the record after which this direction has no more data.
    pub(crate) fn queue_end(&mut self, kind: u8) -> Result<(), SealError> {
        // A frame that is half written had nothing left before it; the end goes behind its rest.
        if let Some(frame) = self.frame.take() {
            self.queue.extend_from_slice(frame.filled());
        }
        self.queue(kind, &[])?;
        self.stage = if kind == record::RAW { Stage::Raw } else { Stage::Ended };
        Ok(())
    }
}

/// The direction of a channel that a tunnel reads.
pub(crate) struct RecordReader<'c> {
    pub(crate) io: ReadHalf<'c>,
    pub(crate) opener: Opener,
    pub(crate) stage: Stage,
    pub(crate) inbuf: &'c mut Inbuf,
    /// Whether the other end cut the tunnel off.
    pub(crate) reset: bool,
}

impl<'c> RecordReader<'c> {
    pub(crate) fn new(io: ReadHalf<'c>, opener: Opener, inbuf: &'c mut Inbuf) -> Self {
        Self { io, opener, stage: Stage::Records, inbuf, reset: false }
    }

    pub(crate) async fn next(&mut self, flow: &Flow<'_>) -> Result<Arrived, RecordError> {
        let arrived = self.inbuf.next(&mut self.io, &mut self.opener, || flow.touch()).await?;
        let arrived = arrived.ok_or_else(cut_off)?;
        if matches!(arrived.kind, record::FIN | record::RESET) {
            self.inbuf.drop_opened();
            self.stage = Stage::Ended;
            self.reset = arrived.kind == record::RESET;
        }
        Ok(arrived)
    }

    /// Waits, after this direction has ended, for a `RESET` that follows its `FIN`.
    pub(crate) async fn late_reset(&mut self, flow: &Flow<'_>) -> Result<(), RecordError> {
        ahead_of_reset(&mut self.io, self.inbuf).await?;
        self.next(flow).await.map(|_| ())
    }

    /// Throws records away up to the last one of this tunnel.
    pub(crate) async fn discard(&mut self, flow: &Flow<'_>) -> Result<(), RecordError> {
        while self.stage == Stage::Records {
            if self.next(flow).await?.kind == record::RAW {
                self.stage = Stage::Raw;
            }
        }
        Ok(())
    }
}

/// Waits, after the `FIN` of a direction, until a whole `RESET` lies in front; fails when the channel
/// does. Its sender has no other way to say that it no longer reads what still comes the other way.
/// Anything else that lies there already belongs to the next tunnel and is left alone.
pub(crate) async fn ahead_of_reset(io: &mut ReadHalf<'_>, inbuf: &mut Inbuf) -> Result<(), RecordError> {
    loop {
        let have = inbuf.filled().len();
        if let Some(head) = inbuf.filled().first_chunk::<HEADER_BYTES>() {
            let header = Header::parse(head)?;
            if header.kind != record::RESET || header.record_bytes() > SMALL {
                return Err(broken(io.tcp()).await.into());
            }
            if have >= header.record_bytes() {
                return Ok(());
            }
        }
        if inbuf.fill(io, SMALL).await? == 0 {
            return Err(cut_off().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use underpass_pipeline::record::{BODY_BYTES_MAX, DATA};

    use super::*;

    /// No buffer is held while nothing flows, before bulk and after it.
    #[tokio::test]
    async fn between_records_no_buffer_is_held() {
        let (mut from, mut to) = tokio::io::duplex(10_000);
        let (mut inbuf, mut opener) = (Inbuf::default(), Opener::plain());
        let mut wire = BytesMut::new();
        for body in [1, BODY_BYTES_MAX, 0, BODY_BYTES_MAX, 5] {
            Sealer::plain().seal(DATA, &vec![7; body], &mut wire).unwrap();
        }
        let receive = async {
            for body in [1, BODY_BYTES_MAX, 0, BODY_BYTES_MAX, 5] {
                let arrived = inbuf.next(&mut to, &mut opener, || ()).await.unwrap().unwrap();
                assert_eq!(inbuf.body(arrived), vec![7; body]);
            }
            inbuf.drop_opened();
            assert!(inbuf.buffer.is_none());
            let mut waiting = Box::pin(inbuf.next(&mut to, &mut opener, || ()));
            assert!(poll_once(&mut waiting).await.is_pending());
            drop(waiting);
            assert!(inbuf.buffer.is_none());
        };
        let (sent, ()) = tokio::join!(from.write_all(&wire), receive);
        sent.unwrap();
    }

    async fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
        poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
    }

    /// C2: the longest record there is needs one buffer of the largest class, and no more is asked for.
    #[tokio::test]
    async fn a_record_over_the_limit_is_refused_with_nothing_allocated() {
        let (mut from, mut to) = tokio::io::duplex(64);
        let (mut inbuf, mut opener) = (Inbuf::default(), Opener::plain());
        from.write_all(&[0, 0, 0xff, 0xff, 0xff]).await.unwrap();
        let refused = inbuf.next(&mut to, &mut opener, || ()).await;
        assert!(matches!(refused, Err(RecordError::Header(HeaderError::TooLong { .. }))), "{refused:?}");
        assert_eq!(inbuf.buffer.unwrap().capacity(), SMALL);
    }

    /// A channel that ends inside a record is a failure, between two records an end.
    #[tokio::test]
    async fn an_end_inside_a_record_is_told_from_an_end_between_records() {
        for (wire, whole) in
            [(&[0, 0, 0, 0, 1, 7][..], true), (&[0, 0, 0, 0, 2, 7], false), (&[0, 0, 0], false)]
        {
            let (mut from, mut to) = tokio::io::duplex(64);
            let (mut inbuf, mut opener) = (Inbuf::default(), Opener::plain());
            from.write_all(wire).await.unwrap();
            drop(from);
            if whole {
                inbuf.next(&mut to, &mut opener, || ()).await.unwrap().unwrap();
            }
            match inbuf.next(&mut to, &mut opener, || ()).await {
                Ok(None) => assert!(whole),
                Err(RecordError::Io(failure)) => {
                    assert!(!whole && failure.kind() == io::ErrorKind::UnexpectedEof);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
