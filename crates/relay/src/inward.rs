//! From records to the plain side.

use std::io;

use underpass_pipeline::record::{DATA, FIN, RAW, RESET};

use crate::copy::{MoveError, broken, shut, unless_broken, write_all};
use crate::drive::{Flow, Turn};
use crate::duplex::WriteHalf;
use crate::outward::Trouble;
use crate::pool::{Chunk, read_chunk};
use crate::records::{RecordReader, Stage};
use crate::splice;

/// Writes what arrives to the plain side, up to the record that ends it; then waits for a failure.
/// Returns with one only.
pub(crate) async fn inward(
    records: &mut RecordReader<'_>,
    mut plain: WriteHalf<'_>,
    flow: &Flow<'_>,
) -> Trouble {
    if let Err(trouble) = receive_all(records, &mut plain, flow).await {
        return trouble;
    }
    flow.out_done();
    if records.stage == Stage::Raw {
        return Trouble::Channel(broken(records.io.tcp()).await);
    }
    match records.late_reset(flow).await {
        Ok(()) => Trouble::Reset,
        Err(failure) => failure.into(),
    }
}

async fn receive_all(
    records: &mut RecordReader<'_>,
    plain: &mut WriteHalf<'_>,
    flow: &Flow<'_>,
) -> Result<(), Trouble> {
    let mut turn = Turn::new();
    loop {
        let arrived = records.next(flow).await?;
        match arrived.kind {
            DATA => {
                let write = write_all(plain, records.inbuf.body(arrived), |bytes| flow.add_out(bytes));
                unless_broken(write, records.io.tcp()).await.map_err(trouble)?;
                turn.spend(arrived.bytes).await;
            }
            FIN => break,
            RESET => return Err(Trouble::Reset),
            RAW if records.opener.is_plain() => {
                records.stage = Stage::Raw;
                raw(records, plain, flow).await?;
                break;
            }
            kind => {
                let broken_rule = format!("a record of kind {kind} inside a tunnel");
                return Err(Trouble::Channel(io::Error::new(io::ErrorKind::InvalidData, broken_rule)));
            }
        }
    }
    shut(plain, flow).await.map_err(Trouble::Plain)
}

/// The rest of the direction is the stream itself, beginning with what was read along with the record.
async fn raw(
    records: &mut RecordReader<'_>,
    plain: &mut WriteHalf<'_>,
    flow: &Flow<'_>,
) -> Result<(), Trouble> {
    records.inbuf.drop_opened();
    let rest = records.inbuf.filled().len();
    let write = write_all(plain, records.inbuf.filled(), |bytes| flow.add_out(bytes));
    unless_broken(write, records.io.tcp()).await.map_err(trouble)?;
    records.inbuf.consume(rest);

    if let (Some(from), Some(to)) = (records.io.tcp(), plain.tcp()) {
        return splice::to_end(from, to, |bytes| flow.add_out(bytes)).await.map_err(trouble);
    }
    let mut chunk = Chunk::new(crate::CHUNK_BYTES_MAX);
    let mut turn = Turn::new();
    loop {
        let buffer = read_chunk(&mut records.io, 0, chunk.bytes()).await.map_err(Trouble::Channel)?;
        if buffer.filled().is_empty() {
            return Ok(());
        }
        chunk.saw(buffer.filled().len());
        let write = write_all(plain, buffer.filled(), |bytes| flow.add_out(bytes));
        unless_broken(write, records.io.tcp()).await.map_err(trouble)?;
        turn.spend(buffer.filled().len()).await;
    }
}

fn trouble(failure: MoveError) -> Trouble {
    match failure {
        MoveError::From(failure) => Trouble::Channel(failure),
        MoveError::To(failure) => Trouble::Plain(failure),
    }
}
