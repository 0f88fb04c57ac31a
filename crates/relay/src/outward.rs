//! From the plain side into records.

use std::io;

use tokio::net::TcpStream;
use underpass_pipeline::SealError;
use underpass_pipeline::record::{BODY_BYTES_MAX, DATA, FIN, HEADER_BYTES, RAW};

use crate::copy::{MoveError, broken, shut, unless_broken};
use crate::drive::{Flow, Turn};
use crate::duplex::ReadHalf;
use crate::pool::{Chunk, read_chunk};
use crate::records::{RecordError, RecordWriter};
use crate::splice;
use crate::{BULK_AFTER, Options};

/// What ended a loop of a tunnel.
#[derive(Debug)]
pub(crate) enum Trouble {
    Plain(io::Error),
    Channel(io::Error),
    Forged,
    Reset,
}

impl From<SealError> for Trouble {
    fn from(refused: SealError) -> Self {
        Self::Channel(io::Error::other(refused))
    }
}

impl From<RecordError> for Trouble {
    fn from(failure: RecordError) -> Self {
        match failure {
            RecordError::Io(failure) => Self::Channel(failure),
            RecordError::Open(_) => Self::Forged,
            other => Self::Channel(io::Error::new(io::ErrorKind::InvalidData, other)),
        }
    }
}

/// Sends what the plain side says, up to its end and the record that tells of it; then waits for a
/// failure. Returns with one only.
pub(crate) async fn outward(
    mut plain: ReadHalf<'_>,
    records: &mut RecordWriter<'_>,
    flow: &Flow<'_>,
    options: &Options,
) -> Trouble {
    if let Err(trouble) = send_all(&mut plain, records, flow, options).await {
        return trouble;
    }
    flow.in_done();
    Trouble::Plain(broken(plain.tcp()).await)
}

async fn send_all(
    plain: &mut ReadHalf<'_>,
    records: &mut RecordWriter<'_>,
    flow: &Flow<'_>,
    options: &Options,
) -> Result<(), Trouble> {
    for chunk in options.early.chunks(BODY_BYTES_MAX) {
        records.queue(DATA, chunk)?;
        flush(plain.tcp(), records, flow).await?;
        flow.add_in(chunk.len());
    }
    // What was queued before the tunnel (the record that opened it) goes out even if nothing follows.
    flush(plain.tcp(), records, flow).await?;

    let may_go_raw =
        options.allow_raw && records.sealer.is_plain() && plain.tcp().is_some() && records.io.tcp().is_some();
    let mut chunk = Chunk::new(options.chunk_max);
    let mut turn = Turn::new();
    while !(may_go_raw && flow.in_bytes() >= BULK_AFTER) {
        let frame = read_chunk(plain, HEADER_BYTES, chunk.bytes()).await.map_err(Trouble::Plain)?;
        let read = frame.filled().len() - HEADER_BYTES;
        if read == 0 {
            records.queue_end(FIN)?;
            return flush(plain.tcp(), records, flow).await;
        }
        chunk.saw(read);
        records.put(DATA, frame)?;
        flush(plain.tcp(), records, flow).await?;
        flow.add_in(read);
        turn.spend(read).await;
    }

    records.queue_end(RAW)?;
    flush(plain.tcp(), records, flow).await?;
    if let (Some(from), Some(to)) = (plain.tcp(), records.io.tcp()) {
        splice::to_end(from, to, |bytes| flow.add_in(bytes)).await.map_err(trouble)?;
    }
    shut(&mut records.io, flow).await.map_err(Trouble::Channel)
}

async fn flush(
    plain: Option<&TcpStream>,
    records: &mut RecordWriter<'_>,
    flow: &Flow<'_>,
) -> Result<(), Trouble> {
    unless_broken(records.flush(flow), plain).await.map_err(trouble)
}

fn trouble(failure: MoveError) -> Trouble {
    match failure {
        MoveError::From(failure) => Trouble::Plain(failure),
        MoveError::To(failure) => Trouble::Channel(failure),
    }
}
