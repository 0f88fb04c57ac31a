//! The program as a child process.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{SOON, now, underpass};

/// Lines kept for a test that does not read them.
const LINES_MAX: usize = 100_000;

/// A verb that stays: its JSON lines, and its end.
pub struct Process {
    child: Child,
    lines: Receiver<Value>,
    errors: Arc<Mutex<String>>,
    /// Reads standard error to its end.
    reading: Option<JoinHandle<()>>,
    name: String,
}

/// A verb that ended.
#[derive(Debug)]
pub struct Done {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it said, line by line.
    pub lines: Vec<Value>,
    /// The `error` line of its standard error, or null.
    pub error: Value,
    /// All of its standard error.
    pub stderr: String,
}

/// Runs a verb with `--output json` to its end.
pub fn run(arguments: &[&str]) -> Done {
    run_with_input(arguments, "")
}

/// The same, with something on standard input.
pub fn run_with_input(arguments: &[&str], input: &str) -> Done {
    finish(arguments, &[], input)
}

/// The same, with more in its environment.
pub fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Done {
    finish(arguments, environment, "")
}

fn finish(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Done {
    use std::io::Write;
    let mut child = Command::new(underpass())
        .args(arguments)
        .args(["--output", "json"])
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A verb that does not read its input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Done {
        code: output.status.code().unwrap_or(-1),
        lines: json_lines(&String::from_utf8_lossy(&output.stdout)),
        error: error_line(&stderr),
        stderr,
    }
}

impl Done {
    /// The last line of a verb that must have succeeded.
    #[track_caller]
    pub fn last(&self) -> &Value {
        assert_eq!(self.code, 0, "{self:?}");
        self.lines.last().expect("it says something")
    }

    /// A string of that line.
    #[track_caller]
    pub fn text(&self, key: &str) -> String {
        let line = self.last();
        line[key].as_str().unwrap_or_else(|| panic!("{key} is missing: {line}")).to_owned()
    }

    /// Asserts how it failed, and that it says what to do.
    #[track_caller]
    pub fn failed(&self, exit: i32, code: &str) {
        assert_eq!((self.code, self.error["code"].as_str()), (exit, Some(code)), "{self:?}");
        assert!(self.error["message"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        assert!(self.error["hint"].as_str().is_some_and(|text| !text.is_empty()), "no hint: {self:?}");
    }
}

fn error_line(stderr: &str) -> Value {
    json_lines(stderr).into_iter().rfind(|line| line["event"] == "error").unwrap_or_default()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

impl Process {
    /// Starts a verb with `--output json`.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// The same, with environment variables.
    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(underpass());
        command.args(arguments).args(["--output", "json"]).envs(environment.iter().copied());
        Self::spawn(arguments.join(" "), command)
    }

    /// Starts any program.
    pub fn spawn(name: String, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sender, lines) = sync_channel(LINES_MAX);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.try_send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let (mut stderr, kept) = (child.stderr.take().unwrap(), Arc::clone(&errors));
        let reading = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut chunk) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..read]));
            }
        });
        Self { child, lines, errors, reading: Some(reading), name }
    }

    /// The next line that is this event; fails the test when it does not come soon.
    #[track_caller]
    pub fn expect(&mut self, event: &str) -> Value {
        self.event_within(event, SOON)
            .unwrap_or_else(|| panic!("`{}` did not say `{event}`: {}", self.name, self.stderr()))
    }

    /// The next line that is this event, if it comes in time and before the end.
    pub fn event_within(&mut self, event: &str, within: Duration) -> Option<Value> {
        let deadline = now() + within;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(now())) {
                Ok(line) if line["event"] == event => return Some(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// What it has said on standard error.
    pub fn stderr(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its exit code.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.wait().code().unwrap_or(-1)
    }

    /// Waits until it ends by itself, which must be soon.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(now() < deadline, "`{}` does not end: {}", self.name, self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it ends by itself, and tells how.
    #[track_caller]
    pub fn done(mut self) -> Done {
        let code = self.wait().code().unwrap_or(-1);
        if let Some(reading) = self.reading.take() {
            reading.join().unwrap();
        }
        let stderr = self.stderr();
        let error = error_line(&stderr);
        Done { code, lines: self.lines.try_iter().collect(), error, stderr }
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("-- {}:\n{}", self.name, self.stderr());
        }
    }
}
