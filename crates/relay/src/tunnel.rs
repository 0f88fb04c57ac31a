//! One end of a tunnel.

use std::io;
use std::time::Duration;

use tokio::time::timeout;
use underpass_pipeline::record::RESET;
use underpass_pipeline::{Opener, Sealer};

use crate::channel::Lent;
use crate::drive::{Cause, Flow, drive};
use crate::inward::inward;
use crate::outward::{Trouble, outward};
use crate::records::{RecordError, RecordReader, RecordWriter, Stage};
use crate::{Counters, Duplex, Ended, How, Options, RecordChannel};

/// How long both ends of a tunnel that was cut off may take to agree on where its records stop. Two
/// seconds after the cut nothing of a tunnel is left.
const SETTLE: Duration = Duration::from_millis(1500);

/// One tunnel between a plain stream (caller or target) and a record channel.
///
/// Returns when both directions have ended or the tunnel failed; the plain stream is closed then, with
/// a reset unless both directions ended. What was queued on the channel is written first, then
/// [`Options::early`].
///
/// Whatever cuts the tunnel off here is told to the other end by a `RESET` record, and where both ends
/// then agree the channel may still be used again ([`Ended::channel_reusable`]). Dropped before its
/// end, the future resets the plain stream and leaves the channel spent.
pub async fn tunnel(
    plain: Duplex,
    channel: &mut RecordChannel,
    sealer: Sealer,
    opener: Opener,
    options: &Options,
    counters: &Counters,
) -> Ended {
    let flow = Flow::new(counters);
    let mut plain = Plain { stream: plain, finished: false };
    let mut channel = Lent::new(channel);
    let ended =
        |how, reusable| Ended { how, reusable, in_bytes: flow.in_bytes(), out_bytes: flow.out_bytes() };
    if channel.is_spent() {
        return ended(How::ChannelFailed(io::Error::other(RecordError::Spent)), false);
    }

    let (mut reader, mut writer) = channel.records(sealer, opener);
    let cause = {
        let (read, write) = plain.stream.halves();
        let inwards = outward(read, &mut writer, &flow, options);
        let outwards = inward(&mut reader, write, &flow);
        drive(inwards, outwards, &flow, options).await
    };
    let how = match cause {
        Cause::BothDone => {
            plain.finished = true;
            let reusable = writer.stage == Stage::Ended && reader.stage == Stage::Ended;
            if reusable {
                channel.give_back();
            } else {
                channel.close_in_order();
            }
            return ended(How::Finished { channel_reusable: reusable }, reusable);
        }
        Cause::Idle => How::Idle,
        Cause::Stopped => How::Stopped,
        Cause::Failed(Trouble::Reset) => How::Reset,
        Cause::Failed(Trouble::Plain(failure)) => How::PlainFailed(failure),
        Cause::Failed(Trouble::Channel(failure)) => return ended(How::ChannelFailed(failure), false),
        Cause::Failed(Trouble::Forged) => return ended(How::Forged, false),
    };
    // The plain side learns of it now, however long the channel takes.
    drop(plain);
    let reusable = settle(&mut reader, &mut writer, &flow).await;
    if reusable {
        channel.give_back();
    }
    ended(how, reusable)
}

/// Says that this end is cut off and throws away what comes before the other's last record. Answers
/// whether both ends then agree on where the tunnel stops.
async fn settle(reader: &mut RecordReader<'_>, writer: &mut RecordWriter<'_>, flow: &Flow<'_>) -> bool {
    if writer.stage == Stage::Raw || reader.stage == Stage::Raw {
        return false;
    }
    let late = writer.stage == Stage::Ended;
    if (!late || reader.stage == Stage::Records) && writer.queue_end(RESET).is_err() {
        return false;
    }
    let told = async { writer.flush(flow).await.map_err(RecordError::from) };
    let heard = async {
        reader.discard(flow).await?;
        Ok(reader.stage == Stage::Ended)
    };
    let settled = timeout(SETTLE, async { tokio::try_join!(told, heard) }).await;
    let Ok(Ok(((), ended))) = settled else { return false };
    // A `RESET` behind our `FIN` may have crossed the other's `FIN`, and would then meet the next tunnel.
    // Only a `RESET` in answer says that it was heard.
    ended && (!late || reader.reset)
}

/// The plain stream of a tunnel. Unless both of its directions ended, its close is a reset.
struct Plain {
    stream: Duplex,
    finished: bool,
}

impl Drop for Plain {
    fn drop(&mut self) {
        if !self.finished {
            self.stream.reset_on_close();
        }
    }
}
