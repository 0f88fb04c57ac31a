//! Moving bytes between two TCP connections inside the kernel, through a pipe.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::copy::MoveError;
use crate::drive::Turn;
use crate::pool::Buffer;

/// What a pipe is asked to hold, the most that Linux grants anybody (`fs.pipe-max-size`). It takes no
/// memory of its own: it refers to pages that the sockets have.
const PIPE_BYTES: usize = 1024 * 1024;

/// Pipes that this process has at most; who gets none copies. They are in use for moments only, and 64
/// of them stay within what an ordinary user may have in pipes (`fs.pipe-user-pages-soft`).
const PIPES_MAX: usize = 64;

/// Free pipes that a thread keeps. Each is two file descriptors.
const KEPT: usize = 4;

/// A chunk that is copied because there is no pipe for it.
const COPY_BYTES: usize = 64 * 1024;

static EXISTING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static FREE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    _counted: Counted,
}

/// One of the pipes that exist.
#[derive(Debug)]
struct Counted;

impl Pipe {
    /// `None` if there are as many as may be, or the system has none.
    fn open() -> Option<Self> {
        EXISTING
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |existing| {
                (existing < PIPES_MAX).then_some(existing + 1)
            })
            .ok()?;
        // Counted from here on, so that a failure below is counted off by the guard.
        let counted = Counted;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Refused to a user who has much in pipes already; a smaller one does as well.
        let capacity = fcntl_setpipe_size(&write, PIPE_BYTES).or_else(|_| fcntl_getpipe_size(&write)).ok()?;
        Some(Self { read, write, capacity, _counted: counted })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        EXISTING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A pipe and how much is in it. Goes back to the thread when dropped empty, else it is closed.
struct Lent {
    pipe: Option<Pipe>,
    held: usize,
}

impl Lent {
    fn take() -> Option<Self> {
        let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        free.or_else(Pipe::open).map(|pipe| Self { pipe: Some(pipe), held: 0 })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(pipe) = self.pipe.take().filter(|_| self.held == 0) else { return };
        // A thread on its way out has no list any more; the pipe is closed instead.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(pipe);
            }
        });
    }
}

/// What is on its way from one connection to the other.
enum Load {
    Pipe(Lent),
    Copy(Buffer),
}

impl Load {
    /// Takes at most `limit` bytes. An empty load is the end of the stream.
    fn take(from: &TcpStream, limit: usize) -> io::Result<Self> {
        if let Some(mut lent) = Lent::take()
            && let Some(pipe) = &lent.pipe
        {
            // The pipe is empty, so "would block" speaks of the connection.
            let limit = limit.min(pipe.capacity);
            match splice(from.as_fd(), None, pipe.write.as_fd(), None, limit, flags()) {
                Ok(bytes) => {
                    lent.held = bytes;
                    return Ok(Self::Pipe(lent));
                }
                // A kernel or sandbox without splice for sockets.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        let mut buffer = Buffer::take(limit.min(COPY_BYTES));
        buffer.extend(limit.min(COPY_BYTES));
        let bytes = rustix::io::read(from, buffer.filled_mut())?;
        buffer.truncate(bytes);
        Ok(Self::Copy(buffer))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Pipe(lent) => lent.held,
            Self::Copy(buffer) => buffer.filled().len(),
        }
    }

    fn give(&mut self, to: &TcpStream) -> io::Result<usize> {
        match self {
            Self::Pipe(lent) => {
                let Some(pipe) = &lent.pipe else { return Ok(0) };
                let bytes = splice(pipe.read.as_fd(), None, to.as_fd(), None, lent.held, flags())?;
                lent.held = lent.held.saturating_sub(bytes);
                Ok(bytes)
            }
            Self::Copy(buffer) => {
                let bytes = rustix::net::send(to, buffer.filled(), rustix::net::SendFlags::NOSIGNAL)?;
                buffer.consume(bytes);
                Ok(bytes)
            }
        }
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

/// Moves everything up to the end of `from`. Nothing is held while nothing flows.
pub(crate) async fn to_end(
    from: &TcpStream,
    to: &TcpStream,
    mut count: impl FnMut(usize),
) -> Result<(), MoveError> {
    let mut turn = Turn::new();
    loop {
        match step(from, to, usize::MAX, &mut count).await? {
            0 => return Ok(()),
            moved => turn.spend(moved).await,
        }
    }
}

/// Moves exactly `bytes`, or answers how many are missing because `from` ended.
pub(crate) async fn exactly(
    from: &TcpStream,
    to: &TcpStream,
    mut bytes: usize,
    mut count: impl FnMut(usize),
) -> Result<usize, MoveError> {
    let mut turn = Turn::new();
    while bytes > 0 {
        let moved = step(from, to, bytes, &mut count).await?;
        if moved == 0 {
            break;
        }
        bytes -= moved;
        turn.spend(moved).await;
    }
    Ok(bytes)
}

/// Takes one load and gives it away whole. Answers its bytes; nought is the end of the stream.
async fn step(
    from: &TcpStream,
    to: &TcpStream,
    limit: usize,
    count: &mut impl FnMut(usize),
) -> Result<usize, MoveError> {
    let mut load = poll_fn(|cx| {
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || Load::take(from, limit)) {
                Err(failure) if again(&failure) => {}
                taken => return Poll::Ready(taken),
            }
        }
    })
    .await
    .map_err(MoveError::From)?;

    let bytes = load.bytes();
    let give = async {
        while load.bytes() > 0 {
            let given = poll_fn(|cx| {
                loop {
                    ready!(to.poll_write_ready(cx))?;
                    match to.try_io(Interest::WRITABLE, || load.give(to)) {
                        Err(failure) if again(&failure) => {}
                        given => return Poll::Ready(given),
                    }
                }
            })
            .await?;
            if given == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            count(given);
        }
        Ok(())
    };
    crate::copy::unless_broken(give, Some(from)).await?;
    Ok(bytes)
}

fn again(failure: &io::Error) -> bool {
    matches!(failure.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    async fn move_a_mebibyte() {
        let ((mut caller, from), (to, mut target)) = (pair().await, pair().await);
        let message: Vec<u8> = (0..1_048_576_u32).map(|at| (at / 3).to_le_bytes()[0]).collect();
        let send = async {
            caller.write_all(&message).await.unwrap();
            caller.shutdown().await.unwrap();
        };
        let mut counted = 0;
        let pass = async {
            let missing = exactly(&from, &to, 1000, |bytes| counted += bytes).await.unwrap();
            assert_eq!((missing, counted), (0, 1000), "exactly so many");
            to_end(&from, &to, |bytes| counted += bytes).await.unwrap();
            assert_eq!(exactly(&from, &to, 5, |_| ()).await.unwrap(), 5, "nothing follows the end");
            drop(to);
        };
        let mut received = Vec::new();
        let (_, (), ()) = tokio::join!(target.read_to_end(&mut received), pass, send);
        assert!(received == message);
        assert_eq!(counted, message.len());
    }

    /// The number of pipes is bounded; who gets none moves its bytes all the same.
    #[tokio::test]
    async fn without_a_pipe_bytes_are_copied_and_a_used_one_is_empty() {
        move_a_mebibyte().await;
        let kept = FREE.with(|free| free.borrow().len());
        assert_eq!(kept, 1, "one pipe served all of it and is kept");

        let all: Vec<_> = std::iter::from_fn(Lent::take).collect();
        assert_eq!(all.len(), PIPES_MAX);
        move_a_mebibyte().await;
        assert_eq!(EXISTING.load(Ordering::Relaxed), PIPES_MAX);
        drop(all);
        assert_eq!(FREE.with(|free| free.borrow().len()), KEPT);
        assert_eq!(EXISTING.load(Ordering::Relaxed), KEPT, "the others are closed");

        // What is left in a pipe belongs to nobody else.
        let (mut caller, from) = pair().await;
        caller.write_all(b"left over").await.unwrap();
        from.readable().await.unwrap();
        let load = Load::take(&from, 100).unwrap();
        assert_eq!(load.bytes(), 9);
        drop(load);
        assert_eq!(EXISTING.load(Ordering::Relaxed), KEPT - 1, "so it is closed");
    }
}
