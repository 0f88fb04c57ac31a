//! Real services, each on a free port and in a folder of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bytes::dial;
use crate::process::Process;
use crate::{eventually, free_address};

/// A service that ends with the test.
pub struct Service {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its files.
    pub folder: tempfile::TempDir,
    _process: Process,
}

/// A program that `make test` installs.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: run `make test`, or scripts/bootstrap test"))
}

fn started(folder: tempfile::TempDir, address: SocketAddr, name: &str, command: Command) -> Service {
    let process = Process::spawn(name.to_owned(), command);
    eventually(name, || TcpStream::connect(address).map(drop).map_err(|error| error.to_string()));
    Service { address, folder, _process: process }
}

/// redis, keeping nothing.
pub fn redis() -> Service {
    let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
    let mut command = Command::new(program("redis-server"));
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", ""]);
    command.args(["--appendonly", "no", "--dir"]).arg(folder.path());
    started(folder, address, "redis-server", command)
}

/// nginx, serving the files in `www` of its folder.
pub fn nginx() -> Service {
    let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
    let root = folder.path().display().to_string();
    std::fs::create_dir_all(folder.path().join("www/put")).unwrap();
    std::fs::write(folder.path().join("www/index.html"), "hello from behind NAT\n").unwrap();
    let configuration = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; client_max_body_size 1g;\n\
         client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;\n\
         uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
         server {{ listen {address}; root {root}/www; location /put/ {{ dav_methods PUT; }} }} }}\n"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let mut command = Command::new(program("nginx"));
    command.arg("-p").arg(folder.path()).arg("-c").arg(&file).arg("-e").arg(folder.path().join("start.log"));
    started(folder, address, "nginx", command)
}

/// PostgreSQL with a user and database `postgres`, trusting everybody on this machine.
pub fn postgres() -> Service {
    let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
    let bin = newest_postgres();
    let data = folder.path().join("data");
    own(folder.path());
    let mut init = unprivileged(&bin.join("initdb"));
    init.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "--no-sync", "--no-instructions"]);
    let done = init.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut command = unprivileged(&bin.join("postgres"));
    command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &address.port().to_string()]);
    command.arg("-k").arg(folder.path()).args(["-F"]);
    started(folder, address, "postgres", command)
}

/// psql and its kin of the installed release.
pub fn newest_postgres() -> PathBuf {
    let mut releases: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .unwrap_or_else(|_| panic!("PostgreSQL is missing: run scripts/bootstrap test"))
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|bin| bin.join("postgres").is_file())
        .collect();
    releases.sort();
    releases.pop().expect("PostgreSQL is installed with its server")
}

/// PostgreSQL refuses to run as root: then it runs as `postgres`.
fn unprivileged(program: &Path) -> Command {
    if rustix::process::getuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn own(folder: &Path) {
    if rustix::process::getuid().is_root() {
        let done = Command::new("chown").arg("-R").arg("postgres:postgres").arg(folder).status().unwrap();
        assert!(done.success());
    }
}

/// sshd with keys of its own; `client_key` in its folder lets the current user in, `known_hosts` knows it.
pub fn sshd() -> Service {
    let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
    let path = |name: &str| folder.path().join(name);
    for key in ["host_key", "client_key"] {
        let mut command = Command::new(program("ssh-keygen"));
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(key));
        assert!(command.status().unwrap().success());
    }
    std::fs::copy(path("client_key.pub"), path("authorized_keys")).unwrap();
    let host_key = std::fs::read_to_string(path("host_key.pub")).unwrap();
    std::fs::write(path("known_hosts"), format!("* {host_key}")).unwrap();
    let configuration = format!(
        "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n",
        path("host_key").display(),
        path("authorized_keys").display()
    );
    std::fs::write(path("sshd_config"), configuration).unwrap();
    if rustix::process::getuid().is_root() {
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    let mut command = Command::new(program("sshd"));
    command.args(["-D", "-e", "-f"]).arg(path("sshd_config"));
    started(folder, address, "sshd", command)
}

/// A tool of a service, on the command line. It is ended when it hangs.
pub fn tool(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg("120").arg(program).env_remove("http_proxy").env_remove("HTTP_PROXY");
    command
}

/// What a tool says, which must succeed.
#[track_caller]
pub fn said(command: &mut Command) -> Vec<u8> {
    fed(command, |_| ())
}

/// The same, with something on its standard input, written while it runs.
#[track_caller]
pub fn fed(command: &mut Command, feed: impl FnOnce(&mut dyn Write) + Send) -> Vec<u8> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || feed(&mut input));
        child.wait_with_output().unwrap()
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {stderr}", output.status);
    output.stdout
}

/// What redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A short word.
    Simple(String),
    /// A number.
    Number(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Nothing is there.
    Nil,
}

/// A client of redis.
pub struct Redis {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Redis {
    /// Connects.
    pub fn open(address: SocketAddr) -> Self {
        let stream = dial(address).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    /// One command and its answer.
    #[track_caller]
    pub fn call(&mut self, words: &[&[u8]]) -> Reply {
        self.stream.write_all(&Self::encoded(words)).unwrap();
        self.reply()
    }

    /// Many commands at once, then all of their answers.
    #[track_caller]
    pub fn pipeline(&mut self, commands: &[Vec<Vec<u8>>]) -> Vec<Reply> {
        let mut writer = self.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let encode = |words: &Vec<Vec<u8>>| {
                    Self::encoded(&words.iter().map(Vec::as_slice).collect::<Vec<_>>())
                };
                writer.write_all(&commands.iter().flat_map(encode).collect::<Vec<u8>>()).unwrap();
            });
            commands.iter().map(|_| self.reply()).collect()
        })
    }

    fn encoded(words: &[&[u8]]) -> Vec<u8> {
        let mut out = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            out.extend_from_slice(word);
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    #[track_caller]
    fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let (kind, rest) = line.trim_end().split_at_checked(1).expect("redis closed the connection");
        match kind {
            "+" => Reply::Simple(rest.to_owned()),
            ":" => Reply::Number(rest.parse().unwrap()),
            "$" if rest == "-1" => Reply::Nil,
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.reader.read_exact(&mut bytes).unwrap();
                assert_eq!(bytes.split_off(bytes.len() - 2), b"\r\n");
                Reply::Bulk(bytes)
            }
            _ => panic!("redis says {line:?}"),
        }
    }
}
