//! A channel on which records are spoken.

use bytes::{Bytes, BytesMut};
use underpass_pipeline::record::{HEADER_BYTES, Header};
use underpass_pipeline::{Opener, Sealer};

use crate::Duplex;
use crate::pool::SMALL;
use crate::records::{Inbuf, RecordError, RecordReader, RecordWriter, cut_off, write_queue};

/// The most that may wait in a channel to be written: the record that opens a tunnel and a few
/// chunks of the caller's first bytes.
pub const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// One record, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is, see [`record`](underpass_pipeline::record).
    pub kind: u8,
    /// Its body.
    pub body: Bytes,
}

/// A channel on which records are spoken, whatever seals them: those of the channel itself and those
/// of the tunnels it carries, one after another.
///
/// Holds no buffer while nothing has arrived and nothing waits to be written.
#[derive(Debug)]
pub struct RecordChannel {
    io: Duplex,
    inbuf: Inbuf,
    queue: BytesMut,
    spent: bool,
}

impl RecordChannel {
    /// Speaks records on this stream from its next byte on.
    pub fn new(io: Duplex) -> Self {
        Self { io, inbuf: Inbuf::default(), queue: BytesMut::new(), spent: false }
    }

    /// Makes a record that is written by the next [`flush`](Self::flush), [`send`](Self::send) or
    /// tunnel, in one go with what is queued behind it.
    pub fn queue(&mut self, sealer: &mut Sealer, kind: u8, body: &[u8]) -> Result<(), RecordError> {
        self.check()?;
        let bytes = self.queue.len();
        if bytes.saturating_add(body.len()) > QUEUE_BYTES_MAX {
            return Err(RecordError::QueueFull { bytes });
        }
        Ok(sealer.seal(kind, body, &mut self.queue)?)
    }

    /// Writes what is queued. Cancelled, it goes on where it was with the next call.
    pub async fn flush(&mut self) -> Result<(), RecordError> {
        self.check()?;
        Ok(write_queue(&mut self.io, &mut self.queue, || ()).await?)
    }

    /// Makes a record and writes it, after what is queued.
    pub async fn send(&mut self, sealer: &mut Sealer, kind: u8, body: &[u8]) -> Result<(), RecordError> {
        self.queue(sealer, kind, body)?;
        self.flush().await
    }

    /// The next record; `None` at the end of the channel. Cancel-safe.
    pub async fn recv(&mut self, opener: &mut Opener) -> Result<Option<Record>, RecordError> {
        self.check()?;
        let Some(arrived) = self.inbuf.next(&mut self.io, opener, || ()).await? else { return Ok(None) };
        let body = Bytes::copy_from_slice(self.inbuf.body(arrived));
        self.inbuf.drop_opened();
        Ok(Some(Record { kind: arrived.kind, body }))
    }

    /// As [`recv`](Self::recv), where only short records have a place: one with more than `bytes_max` bytes after
    /// its header is refused before room is made for it.
    pub async fn recv_short(
        &mut self,
        opener: &mut Opener,
        bytes_max: usize,
    ) -> Result<Option<Record>, RecordError> {
        self.check()?;
        self.inbuf.drop_opened();
        loop {
            let have = self.inbuf.filled().len();
            if let Some(head) = self.inbuf.filled().first_chunk::<HEADER_BYTES>() {
                let bytes = Header::parse(head)?.length as usize;
                if bytes > bytes_max {
                    return Err(RecordError::TooLong { bytes, bytes_max });
                }
                return self.recv(opener).await;
            }
            if self.inbuf.fill(&mut self.io, SMALL).await? == 0 {
                return if have == 0 { Ok(None) } else { Err(cut_off().into()) };
            }
        }
    }

    /// Whether a tunnel left the channel unfit for another. Reads and writes are refused then, and
    /// after a failure the stream below is closed already.
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    /// The stream below.
    pub fn io(&self) -> &Duplex {
        &self.io
    }

    /// The stream, and what was read from it beyond the last record.
    pub fn into_inner(self) -> (Duplex, Bytes) {
        let rest = Bytes::copy_from_slice(self.inbuf.filled());
        (self.io, rest)
    }

    fn check(&self) -> Result<(), RecordError> {
        if self.spent { Err(RecordError::Spent) } else { Ok(()) }
    }
}

/// A channel in the hands of a tunnel. Unless it is given back it is spent and closed by a reset: the peer of a tunnel that was dropped in the middle must not take that for its end.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    channel: &'a mut RecordChannel,
    given_back: bool,
}

impl<'a> Lent<'a> {
    pub(crate) fn new(channel: &'a mut RecordChannel) -> Self {
        Self { channel, given_back: false }
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.channel.spent
    }

    pub(crate) fn records(&mut self, sealer: Sealer, opener: Opener) -> (RecordReader<'_>, RecordWriter<'_>) {
        let channel = &mut *self.channel;
        let (read, write) = channel.io.halves();
        (
            RecordReader::new(read, opener, &mut channel.inbuf),
            RecordWriter::new(write, sealer, &mut channel.queue),
        )
    }

    pub(crate) fn parts(&mut self) -> Parts<'_> {
        let channel = &mut *self.channel;
        let (read, write) = channel.io.halves();
        Parts { read, inbuf: &mut channel.inbuf, write, queue: &mut channel.queue }
    }

    /// The next tunnel may have it.
    pub(crate) fn give_back(mut self) {
        self.given_back = true;
    }

    /// No tunnel follows, but all that was written must still arrive.
    pub(crate) fn close_in_order(mut self) {
        self.channel.spent = true;
        self.given_back = true;
    }
}

/// What a channel is made of, for who moves its bytes.
pub(crate) struct Parts<'c> {
    pub(crate) read: crate::duplex::ReadHalf<'c>,
    pub(crate) inbuf: &'c mut Inbuf,
    pub(crate) write: crate::duplex::WriteHalf<'c>,
    pub(crate) queue: &'c mut BytesMut,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if !self.given_back {
            // Closed here and not when its owner gets round to it: the peer is to know at once.
            let gone = RecordChannel { spent: true, ..RecordChannel::new(Duplex::other(tokio::io::empty())) };
            std::mem::replace(self.channel, gone).io.reset_on_close();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::io::AsyncWriteExt;
    use underpass_pipeline::record::KEEPALIVE;

    use super::*;

    /// C2: a length over the limit is refused before the body is waited for; at the limit it passes.
    #[tokio::test]
    async fn c2_a_long_record_where_only_short_ones_have_a_place_is_refused() {
        let (mut from, to) = tokio::io::duplex(1024);
        let (mut channel, mut opener) = (RecordChannel::new(Duplex::other(to)), Opener::plain());
        let mut wire = BytesMut::new();
        Sealer::plain().seal(KEEPALIVE, b"12345", &mut wire).unwrap();
        from.write_all(&wire).await.unwrap();
        let record = channel.recv_short(&mut opener, 5).await.unwrap().unwrap();
        assert_eq!((record.kind, &record.body[..]), (KEEPALIVE, &b"12345"[..]));
        from.write_all(&wire[..HEADER_BYTES]).await.unwrap();
        let refused = channel.recv_short(&mut opener, 4).await;
        assert!(matches!(refused, Err(RecordError::TooLong { bytes: 5, bytes_max: 4 })), "{refused:?}");
    }
}
