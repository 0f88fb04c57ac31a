//! The node in the middle: records pass, unopened.

use std::io;

use underpass_pipeline::record::{DATA, FIN, HEADER_BYTES, Header, HeaderError, RAW, RESET};

use crate::channel::{Lent, Parts};
use crate::copy::{MoveError, broken, shut, unless_broken, write_all};
use crate::drive::{Cause, Flow, Turn, drive};
use crate::duplex::{ReadHalf, WriteHalf};
use crate::pool::{Chunk, SMALL, read_chunk};
use crate::records::{Inbuf, RecordError, ahead_of_reset, cut_off, write_queue};
use crate::splice;
use crate::{Counters, Ended, How, Options, RecordChannel};

/// The rest of a body that is worth moving inside the kernel: below this the calls cost more than
/// copying.
const SPLICE_FROM: usize = 64 * 1024;

/// Passes the records of one tunnel between two channels without opening them, until the last record
/// of each direction has passed.
///
/// Reads headers, so it knows where a tunnel ends: what follows a last record stays in its channel
/// for the next tunnel. It can neither make records nor read bodies; whatever ends the tunnel early
/// (silence, [`Options::stop`], a failure of either channel) leaves both channels spent and their close a
/// reset. [`Options::early`] and [`Options::allow_raw`] have no meaning here.
pub async fn forward(
    a: &mut RecordChannel,
    b: &mut RecordChannel,
    options: &Options,
    counters: &Counters,
) -> Ended {
    let flow = Flow::new(counters);
    let (mut a, mut b) = (Lent::new(a), Lent::new(b));
    let ended =
        |how, reusable| Ended { how, reusable, in_bytes: flow.in_bytes(), out_bytes: flow.out_bytes() };
    if a.is_spent() || b.is_spent() {
        return ended(How::ChannelFailed(io::Error::other(RecordError::Spent)), false);
    }

    let (mut there, mut back) = {
        let (a, b) = (a.parts(), b.parts());
        let Parts { read: a_read, inbuf: a_inbuf, write: a_write, queue: a_queue } = a;
        let Parts { read: b_read, inbuf: b_inbuf, write: b_write, queue: b_queue } = b;
        (
            Way::new(a_read, a_inbuf, b_write, b_queue, options),
            Way::new(b_read, b_inbuf, a_write, a_queue, options),
        )
    };
    let cause = {
        let inwards = async {
            if let Err(failure) = there.pass(|bytes| flow.add_in(bytes), &flow).await {
                return failure;
            }
            flow.in_done();
            there.watch(&flow).await
        };
        let outwards = async {
            if let Err(failure) = back.pass(|bytes| flow.add_out(bytes), &flow).await {
                return failure;
            }
            flow.out_done();
            back.watch(&flow).await
        };
        drive(inwards, outwards, &flow, options).await
    };
    match cause {
        Cause::Failed(failure) => ended(How::ChannelFailed(failure), false),
        Cause::Idle => ended(How::Idle, false),
        Cause::Stopped => ended(How::Stopped, false),
        Cause::BothDone => {
            let (first, second) = (there.end, back.end);
            if first == RAW || second == RAW {
                a.close_in_order();
                b.close_in_order();
                return ended(How::Finished { channel_reusable: false }, false);
            }
            let heard = |way: &Way<'_>, answer| way.late_reset_passed && answer == RESET;
            let unheard =
                (there.late_reset && !heard(&there, second)) || (back.late_reset && !heard(&back, first));
            let cut_off = first == RESET || second == RESET;
            if unheard {
                // It may meet the next tunnel.
                return ended(How::Reset, false);
            }
            a.give_back();
            b.give_back();
            ended(if cut_off { How::Reset } else { How::Finished { channel_reusable: true } }, true)
        }
    }
}

/// One direction.
struct Way<'c> {
    read: ReadHalf<'c>,
    inbuf: &'c mut Inbuf,
    write: WriteHalf<'c>,
    queue: &'c mut bytes::BytesMut,
    chunk: Chunk,
    /// The kind of the last record, once it has passed.
    end: u8,
    /// Whether a `RESET` followed a `FIN`.
    late_reset: bool,
    /// And whether the whole of it was written: the other direction may end while it waits.
    late_reset_passed: bool,
}

impl<'c> Way<'c> {
    fn new(
        read: ReadHalf<'c>,
        inbuf: &'c mut Inbuf,
        write: WriteHalf<'c>,
        queue: &'c mut bytes::BytesMut,
        options: &Options,
    ) -> Self {
        Self {
            read,
            inbuf,
            write,
            queue,
            chunk: Chunk::new(options.chunk_max),
            end: DATA,
            late_reset: false,
            late_reset_passed: false,
        }
    }

    /// Passes records up to and including the last one of this direction, and after `RAW` the stream.
    /// `count` is told of the bytes of data bodies, tags included.
    async fn pass(&mut self, mut count: impl FnMut(usize), flow: &Flow<'_>) -> io::Result<()> {
        unless_broken(write_queue(&mut self.write, self.queue, || flow.touch()), self.read.tcp())
            .await
            .map_err(either)?;
        let (mut walk, mut turn) = (Walk::default(), Turn::new());
        loop {
            let step = walk.over(self.inbuf.filled()).map_err(invalid)?;
            let write = write_all(&mut self.write, &self.inbuf.filled()[..step.bytes], |_| flow.touch());
            unless_broken(write, self.read.tcp()).await.map_err(either)?;
            self.inbuf.consume(step.bytes);
            count(step.data);
            if let Some(end) = step.end {
                self.end = end;
                return if end == RAW { self.pass_raw(count, flow).await } else { Ok(()) };
            }
            turn.spend(step.bytes).await;

            if walk.left >= SPLICE_FROM
                && self.inbuf.filled().is_empty()
                && let (Some(from), Some(to)) = (self.read.tcp(), self.write.tcp())
            {
                let data = walk.kind == DATA;
                let missing = splice::exactly(from, to, walk.left, |bytes| {
                    flow.touch();
                    if data {
                        count(bytes);
                    }
                })
                .await
                .map_err(either)?;
                if missing > 0 {
                    return Err(cut_off());
                }
                walk.left = 0;
                // The next header comes with little of its body, so that the rest is spliced too.
                self.fill(SMALL, flow).await?;
            } else {
                let room = self.inbuf.filled().len() + self.chunk.bytes();
                let read = self.fill(room, flow).await?;
                self.chunk.saw(read);
            }
        }
    }

    async fn fill(&mut self, room: usize, flow: &Flow<'_>) -> io::Result<usize> {
        let read = self.inbuf.fill(&mut self.read, room).await?;
        flow.touch();
        if read == 0 { Err(cut_off()) } else { Ok(read) }
    }

    async fn pass_raw(&mut self, mut count: impl FnMut(usize), flow: &Flow<'_>) -> io::Result<()> {
        let rest = self.inbuf.filled().len();
        let write = write_all(&mut self.write, self.inbuf.filled(), &mut count);
        unless_broken(write, self.read.tcp()).await.map_err(either)?;
        self.inbuf.consume(rest);
        if let (Some(from), Some(to)) = (self.read.tcp(), self.write.tcp()) {
            splice::to_end(from, to, count).await.map_err(either)?;
        } else {
            let mut turn = Turn::new();
            loop {
                let buffer = read_chunk(&mut self.read, 0, self.chunk.bytes()).await?;
                if buffer.filled().is_empty() {
                    break;
                }
                self.chunk.saw(buffer.filled().len());
                let write = write_all(&mut self.write, buffer.filled(), &mut count);
                unless_broken(write, self.read.tcp()).await.map_err(either)?;
                turn.spend(buffer.filled().len()).await;
            }
        }
        shut(&mut self.write, flow).await
    }

    /// Waits for a failure, when this direction is through and the other isn't. A `RESET` that follows a
    /// `FIN` passes.
    async fn watch(&mut self, flow: &Flow<'_>) -> io::Error {
        if self.end == FIN
            && let Err(failure) = self.pass_late_reset(flow).await
        {
            return failure;
        }
        broken(self.read.tcp()).await
    }

    async fn pass_late_reset(&mut self, flow: &Flow<'_>) -> io::Result<()> {
        ahead_of_reset(&mut self.read, self.inbuf).await.map_err(|failure| match failure {
            RecordError::Io(failure) => failure,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        })?;
        self.late_reset = true;
        // What follows its header is its tag, if it has one.
        let step = Walk::default().over(self.inbuf.filled()).map_err(invalid)?;
        write_all(&mut self.write, &self.inbuf.filled()[..step.bytes], |_| flow.touch()).await?;
        self.inbuf.consume(step.bytes);
        self.late_reset_passed = true;
        Ok(())
    }
}

/// Follows headers through a stream of records that is read in any pieces.
#[derive(Debug, Default)]
struct Walk {
    kind: u8,
    /// Bytes of the current record that haven't been seen.
    left: usize,
}

/// What may be passed on.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// Bytes from the front.
    bytes: usize,
    /// Those of them that are bodies of data records.
    data: usize,
    /// The kind of the record that ends the direction, if its last byte is among them.
    end: Option<u8>,
}

impl Walk {
    /// Goes over what has arrived: everything but a header that isn't whole yet, and nothing beyond a
    /// last record.
    fn over(&mut self, arrived: &[u8]) -> Result<Step, HeaderError> {
        let mut step = Step { bytes: 0, data: 0, end: None };
        loop {
            let seen = self.left.min(arrived.len() - step.bytes);
            step.bytes += seen;
            self.left -= seen;
            if self.kind == DATA {
                step.data += seen;
            }
            if self.left > 0 {
                return Ok(step);
            }
            if matches!(self.kind, FIN | RESET | RAW) {
                step.end = Some(self.kind);
                return Ok(step);
            }
            let Some(head) = arrived[step.bytes..].first_chunk::<HEADER_BYTES>() else { return Ok(step) };
            let header = Header::parse(head)?;
            step.bytes += HEADER_BYTES;
            self.kind = header.kind;
            self.left = header.length as usize;
        }
    }
}

fn invalid(refused: HeaderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, refused)
}

/// Both ends of a move are channels here.
fn either(failure: MoveError) -> io::Error {
    match failure {
        MoveError::From(failure) | MoveError::To(failure) => failure,
    }
}
