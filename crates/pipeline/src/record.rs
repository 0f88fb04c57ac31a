//! The header of a record, the kinds of records, and their limits.

/// Bytes of a header: type, flags and a length of three bytes.
pub const HEADER_BYTES: usize = 5;

/// Bytes that sealing adds after the body.
pub const TAG_BYTES: usize = 16;

/// The longest body before sealing: 256 KiB. Longer ones gain no speed and cost memory in every
/// tunnel that is busy.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// The longest that follows a header: a full body and its tag.
pub const LENGTH_MAX: usize = BODY_BYTES_MAX + TAG_BYTES;

/// Bytes of the stream.
pub const DATA: u8 = 0;
/// The direction has ended; what was sent arrived whole.
pub const FIN: u8 = 1;
/// The direction was cut off; whoever hears it cuts its plain side off too. It may also follow a `FIN`, as
/// long as the other direction goes on: then its sender no longer reads.
pub const RESET: u8 = 2;
/// One datagram.
pub const DATAGRAM: u8 = 3;
/// What follows on this direction, up to the channel's end, is the stream itself.
pub const RAW: u8 = 4;
/// Is anybody there? Asked on a parked channel.
pub const KEEPALIVE: u8 = 5;
/// Yes.
pub const KEEPALIVE_ANSWER: u8 = 6;
/// Serve this tunnel: node to target agent.
pub const OPEN: u8 = 16;
/// The target is connected.
pub const OPENED: u8 = 17;
/// The tunnel can't be served, and why.
pub const FAILED: u8 = 18;
/// A caller is here: listening agent to node.
pub const DIAL: u8 = 19;

/// The first bytes of every record, in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the record is: [`DATA`], [`FIN`], … Kinds this program doesn't know parse as well.
    pub kind: u8,
    /// Reserved, nought in this version.
    pub flags: u8,
    /// Bytes after the header, the tag of a sealed record included. At most [`LENGTH_MAX`].
    pub length: u32,
}

/// Why five bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// More than a record may hold. Noticed before anything is allocated for it.
    #[error("a record of {length} bytes, the longest is {LENGTH_MAX}")]
    TooLong {
        /// What the header says, in bytes.
        length: u32,
    },
    /// A flag that this version doesn't know; its meaning can't be guessed.
    #[error("a record with unknown flags {flags:#04x}")]
    UnknownFlags {
        /// The flags byte.
        flags: u8,
    },
}

impl Header {
    /// Reads a header and checks its limits.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let [kind, flags, high, middle, low] = *bytes;
        let length = u32::from_be_bytes([0, high, middle, low]);
        if length as usize > LENGTH_MAX {
            return Err(HeaderError::TooLong { length });
        }
        if flags != 0 {
            return Err(HeaderError::UnknownFlags { flags });
        }
        Ok(Self { kind, flags, length })
    }

    /// The five bytes. Of the length the lower three bytes are written: no valid header has more.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [_, high, middle, low] = self.length.to_be_bytes();
        [self.kind, self.flags, high, middle, low]
    }

    /// Writes the header into the room before a body.
    pub fn write(self, room: &mut [u8; HEADER_BYTES]) {
        *room = self.to_bytes();
    }

    /// Bytes of the whole record on the wire.
    pub fn record_bytes(self) -> usize {
        HEADER_BYTES + self.length as usize
    }
}
