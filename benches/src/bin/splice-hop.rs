//! The limit: a hop that does nothing but splice(2). Listens, dials, moves bytes both ways with two
//! threads for a connection, and keeps the half-close. Prints the address it listens on.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use clap::Parser;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What a pipe is asked to hold: the most that Linux grants anybody.
const PIPE_BYTES: usize = 1024 * 1024;

/// A bare splice(2) hop.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What to dial for each connection.
    #[arg(long)]
    to: SocketAddr,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("splice-hop: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let listener = TcpListener::bind(args.listen)?;
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    for caller in listener.incoming() {
        let (caller, to) = (caller?, args.to);
        thread::spawn(move || hop(caller, to).ok());
    }
    Ok(())
}

fn hop(caller: TcpStream, to: SocketAddr) -> io::Result<()> {
    let target = TcpStream::connect(to)?;
    caller.set_nodelay(true)?;
    target.set_nodelay(true)?;
    let (caller, target) = (Arc::new(caller), Arc::new(target));
    let back = {
        let (caller, target) = (Arc::clone(&caller), Arc::clone(&target));
        thread::spawn(move || one_way(&target, &caller))
    };
    let there = one_way(&caller, &target);
    let back = back.join().map_err(|_| io::Error::other("the other direction panicked"))?;
    there.and(back)
}

fn one_way(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let moved = move_all(from, to);
    // The end, or the failure, is the other side's to know; it may be gone already.
    let _ = to.shutdown(Shutdown::Write);
    if moved.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
    moved
}

fn move_all(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // A smaller pipe does as well.
    let capacity = fcntl_setpipe_size(&write, PIPE_BYTES).unwrap_or(64 * 1024);
    loop {
        let mut held = splice(from, None, &write, None, capacity, SpliceFlags::MOVE)?;
        if held == 0 {
            return Ok(());
        }
        while held > 0 {
            held -= splice(&read, None, to, None, held, SpliceFlags::MOVE)?;
        }
    }
}
