//! A process that ends with us.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Runs etcd beside itself and waits for a line. When our end of the pipe closes, which the system sees to even if
/// we are killed, it kills etcd, and removes its folder unless the line said `keep`.
const KEEPER: &str = r#"
folder=$1
shift
"$@" </dev/null >>"$folder/log" 2>&1 &
etcd=$!
echo $etcd
read -r word
kill -9 $etcd 2>/dev/null
wait $etcd 2>/dev/null
[ "$word" = keep ] || rm -rf "$folder"
"#;

/// A running etcd.
#[derive(Debug)]
pub(super) struct Process {
    keeper: Child,
    line: Option<ChildStdin>,
    etcd: Pid,
}

impl Process {
    /// Starts etcd with its log in `folder`.
    pub(super) fn start(folder: &Path, arguments: &[String]) -> Self {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(folder)
            .arg("etcd")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut pid = String::new();
        BufReader::new(keeper.stdout.take().expect("stdout")).read_line(&mut pid).expect("a pid");
        let etcd = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a pid");
        Self { line: keeper.stdin.take(), keeper, etcd }
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.etcd.as_raw_nonzero()));
        // After the name in parentheses comes the state; a zombie waits for its keeper.
        stat.map_or(true, |stat| stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with('Z')))
    }

    /// Stops its clock, so to say: it neither answers nor closes anything.
    pub(super) fn pause(&self) {
        kill_process(self.etcd, Signal::STOP).expect("SIGSTOP");
    }

    /// Lets it go on.
    pub(super) fn resume(&self) {
        kill_process(self.etcd, Signal::CONT).expect("SIGCONT");
    }

    /// Kills it, and keeps its folder.
    pub(super) fn kill(mut self) {
        if let Some(mut line) = self.line.take() {
            let _ = line.write_all(b"keep\n");
        }
        let _ = self.keeper.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.line = None;
        let _ = self.keeper.wait();
    }
}

/// The end of the log in `folder`, for the message of a failure.
pub(super) fn log_tail(folder: &Path) -> String {
    let Ok(file) = File::open(folder.join("log")) else { return "(no log)".to_owned() };
    let lines: Vec<_> = BufReader::new(file).lines().map_while(Result::ok).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
