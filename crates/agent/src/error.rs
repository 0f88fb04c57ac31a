//! What can go wrong, as the person at the keyboard needs to hear it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why a verb of the agent failed. The variants are what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The state folder knows no server yet.
    #[error("{} has not joined a server", path.display())]
    NotJoined {
        /// The state folder.
        path: PathBuf,
    },

    /// The state folder belongs to another server.
    #[error("{} already belongs to the server at {server}", path.display())]
    AlreadyJoined {
        /// The state folder.
        path: PathBuf,
        /// The address of the server it belongs to.
        server: String,
    },

    /// An agent runs on the state folder.
    #[error("an agent runs on {} already, as a client of the server at {server}", path.display())]
    Running {
        /// The state folder.
        path: PathBuf,
        /// The addresses of the server it is a client of.
        server: String,
    },

    /// Another `join` has the state folder.
    #[error("another join on {} is under way", path.display())]
    Joining {
        /// The state folder.
        path: PathBuf,
    },

    /// A file or folder with secrets is open to others.
    #[error("{} has mode {mode:04o}, others could read its secrets", path.display())]
    Mode {
        /// What is open.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The permission bits it must have.
        wanted: u32,
    },

    /// A state file does not read back.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },

    /// The operating system refused a file operation.
    #[error("{} can't be {doing}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: "read", "written".
        doing: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },

    /// No address of the server answers as it should.
    #[error("the server at {server} can't be reached: {why}")]
    Unreachable {
        /// The addresses tried.
        server: String,
        /// What the last attempt said.
        why: String,
    },

    /// The server does not accept who we are.
    #[error("the server refused this client: {why}")]
    CredentialsRefused {
        /// The server's sentence.
        why: String,
    },

    /// Another agent with the same key took over.
    #[error("another agent with this client's key has connected and replaced this one")]
    Replaced,

    /// The other side speaks something else, or a version we don't know.
    #[error("the server does not speak as expected: {what}")]
    Protocol {
        /// What was unexpected.
        what: String,
    },

    /// The server refused a request; code, sentence and hint are the server's own.
    #[error("{message}")]
    Refused {
        /// The server's stable code.
        code: String,
        /// The server's sentence.
        message: String,
        /// The server's hint.
        hint: Option<String>,
        /// The thing asked for does not exist.
        not_found: bool,
    },

    /// The server did not answer a request in time; it may or may not have been done.
    #[error("the server did not answer in time")]
    Unanswered,

    /// A target is not an address.
    #[error("`{given}` is not a target: {why}")]
    TargetInvalid {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },

    /// The local address asked for can't be listened on.
    #[error("{address} can't be listened on: {why}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The port is taken (else: something else).
        in_use: bool,
        /// The system's sentence.
        why: String,
    },

    /// The text is not a connection code.
    #[error("this is not a connection code: {why}")]
    CodeInvalid {
        /// Which part is wrong.
        why: String,
    },

    /// The text is not an invite.
    #[error("this is not an invite: {why}")]
    InviteInvalid {
        /// Which part is wrong.
        why: String,
    },

    /// The client at the other end of a pair does not answer.
    #[error("the client that shares this target does not answer")]
    PeerOffline,

    /// The client at the other end has another key than the one pinned.
    #[error("the key of {peer} has changed since it was pinned")]
    PeerKeyChanged {
        /// The peer's client id.
        peer: String,
    },

    /// The end-to-end handshake failed.
    #[error("the end-to-end handshake failed: {what}")]
    PairRefused {
        /// What did not match.
        what: String,
    },

    /// The agent that owns the state folder can't be spoken to.
    #[error("the running agent can't be spoken to: {what}")]
    Local {
        /// What happened.
        what: String,
    },

    /// The agent that served this verb has ended.
    #[error("the agent has ended")]
    Ended,

    /// More is asked for at once than the agent takes.
    #[error("the agent is busy: {what}")]
    Busy {
        /// Which bound was met.
        what: &'static str,
    },

    /// The operating system gave no random bytes; nothing secret can be made without.
    #[error("the random source failed")]
    Random,

    /// A mistake of ours.
    #[error("internal error: {what}")]
    Internal {
        /// What happened.
        what: String,
    },
}

/// Every code the agent makes itself: code, meaning, what to do. Codes passed through from the server are
/// described by the server. `docs/errors` is made from this list.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "state.not_joined",
        "The state folder knows no server yet.",
        "Get an invite (`underpass invite` on the server) and run `underpass join INVITE`.",
    ),
    (
        "state.joined",
        "The state folder already belongs to another server.",
        "Use another folder: `--state DIR`.",
    ),
    (
        "agent.running",
        "An agent runs on this state folder already.",
        "Nothing needs to be done: the other verbs go through it; to join anew, stop it first (Ctrl-C or SIGTERM).",
    ),
    (
        "state.mode",
        "A file or folder with secrets can be read by other users.",
        "Run the chmod command that the message names, after asking yourself who may have read it.",
    ),
    (
        "state.damaged",
        "A file of the state folder does not read back.",
        "Put it back from a copy, or move the folder away and join again.",
    ),
    (
        "state.file",
        "The operating system refused to read or write a state file.",
        "Check owner, permissions and free space of the state folder.",
    ),
    (
        "link.unreachable",
        "No address of the server answers.",
        "Check the address, the network and that the server runs.",
    ),
    (
        "link.refused",
        "The server does not accept this client's key or invite.",
        "Ask for a new invite; if the client was blocked, ask the server's operator. Don't retry unchanged.",
    ),
    (
        "link.replaced",
        "Another agent with the same key has connected.",
        "Run one agent per state folder; a copied folder must join anew.",
    ),
    (
        "link.protocol",
        "The other side does not speak this program's protocol or version.",
        "Check that the address is an Underpass server and that both are no more than one minor version apart.",
    ),
    (
        "link.unanswered",
        "The server did not answer a request in time; it may have been done.",
        "Run the same command again: it finds what it made before.",
    ),
    (
        "target.invalid",
        "The target is not a port, HOST:PORT or [IPV6]:PORT.",
        "Write for example `3000`, `127.0.0.1:3000` or `db.internal:5432`.",
    ),
    (
        "target.denied",
        "The target is not on this client's allow list.",
        "Expose or share it from this client, or start the agent with a range that holds it.",
    ),
    (
        "target.refused",
        "The target refused the connection.",
        "Start the service behind the target, or correct the port.",
    ),
    (
        "target.unreachable",
        "The target can't be reached or its name not be resolved.",
        "Check the target's address from the client that dials it.",
    ),
    (
        "target.timeout",
        "The target did not answer within the deadline.",
        "Check the target's address and firewalls from the client that dials it.",
    ),
    (
        "tunnel.offline",
        "The client that dials the target is not connected.",
        "Start its agent: `underpass up`.",
    ),
    (
        "tunnel.limit",
        "The mapping has as many connections as it may have.",
        "Wait for one to end, or raise `max_connections`.",
    ),
    (
        "tunnel.unsealed",
        "A tunnel was offered with weaker sealing than its mapping asks for, and was refused.",
        "Update both sides; if it persists, the server is not to be trusted.",
    ),
    (
        "tunnel.failed",
        "The tunnel could not be opened for another reason.",
        "The message says more; try again.",
    ),
    (
        "listen.in_use",
        "The local port is taken by another program.",
        "Free it, or choose another with `--listen`.",
    ),
    (
        "listen.failed",
        "The local address can't be listened on.",
        "Choose an address of this machine with `--listen`.",
    ),
    (
        "listen.refused",
        "The server asks this client to listen at an address that is not this mapping's.",
        "Choose another address for it; or `underpass rm`, on this client, the mapping that the message names.",
    ),
    (
        "code.invalid",
        "The text is not a connection code.",
        "Copy the whole code; the message says which part is wrong.",
    ),
    (
        "invite.invalid",
        "The text is not an invite.",
        "Copy the whole invite; the message says which part is wrong.",
    ),
    (
        "pair.offline",
        "The client at the other end does not answer.",
        "Start its agent (`underpass up`), then run the same command again.",
    ),
    (
        "pair.key_changed",
        "The key of the client at the other end is not the one pinned.",
        "Ask its owner whether it was set up anew. If so: `underpass rm` the mapping and connect with a new code.",
    ),
    (
        "pair.unknown",
        "The other end no longer knows the keys of this pair.",
        "Nothing: the agents agree on new ones by themselves.",
    ),
    (
        "pair.refused",
        "The end-to-end handshake did not succeed.",
        "Copy the whole code again, or ask for a new one.",
    ),
    (
        "agent.local",
        "The agent that owns the state folder can't be spoken to.",
        "Run the command again; if it persists, stop the running agent.",
    ),
    ("agent.ended", "The agent that served this command has ended.", "Run the command again."),
    ("agent.busy", "More is asked for at once than the agent takes.", "Try again in a moment."),
    (
        "agent.random",
        "The operating system gave no random bytes.",
        "Repair the system's random source; nothing secret is made without it.",
    ),
    ("agent.internal", "A mistake in this program.", "Report it with the log."),
];

/// What the process that ran the verb should exit with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitClass {
    /// 1
    Failed,
    /// 2
    Usage,
    /// 3
    Refused,
    /// 4
    NotFound,
    /// 5
    Unreachable,
    /// 10
    Credentials,
}

impl ExitClass {
    /// The exit code of the process.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::NotFound => 4,
            Self::Unreachable => 5,
            Self::Credentials => 10,
        }
    }
}

impl AgentError {
    /// The stable code, one of [`CODES`] or the server's own.
    pub fn code(&self) -> &str {
        match self {
            Self::NotJoined { .. } => "state.not_joined",
            Self::AlreadyJoined { .. } => "state.joined",
            Self::Running { .. } | Self::Joining { .. } => "agent.running",
            Self::Mode { .. } => "state.mode",
            Self::Damaged { .. } => "state.damaged",
            Self::File { .. } => "state.file",
            Self::Unreachable { .. } => "link.unreachable",
            Self::CredentialsRefused { .. } => "link.refused",
            Self::Replaced => "link.replaced",
            Self::Protocol { .. } => "link.protocol",
            Self::Refused { code, .. } => code,
            Self::Unanswered => "link.unanswered",
            Self::TargetInvalid { .. } => "target.invalid",
            Self::Listen { in_use: true, .. } => "listen.in_use",
            Self::Listen { in_use: false, .. } => "listen.failed",
            Self::CodeInvalid { .. } => "code.invalid",
            Self::InviteInvalid { .. } => "invite.invalid",
            Self::PeerOffline => "pair.offline",
            Self::PeerKeyChanged { .. } => "pair.key_changed",
            Self::PairRefused { .. } => "pair.refused",
            Self::Local { .. } => "agent.local",
            Self::Ended => "agent.ended",
            Self::Busy { .. } => "agent.busy",
            Self::Random => "agent.random",
            Self::Internal { .. } => "agent.internal",
        }
    }

    /// What to do, as one sentence; `None` where only the server could say and did not.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Mode { path, wanted, .. } => Some(format!("run: chmod {wanted:o} {}", shell_word(path))),
            Self::Refused { hint, .. } => hint.clone(),
            Self::Joining { .. } => Some("wait for it, then run the command again".into()),
            _ => CODES.iter().find(|(code, ..)| *code == self.code()).map(|(_, _, todo)| (*todo).to_owned()),
        }
    }

    /// Which exit code fits.
    pub fn exit_class(&self) -> ExitClass {
        match self {
            Self::TargetInvalid { .. } | Self::CodeInvalid { .. } | Self::InviteInvalid { .. } => {
                ExitClass::Usage
            }
            Self::Refused { not_found: true, .. } => ExitClass::NotFound,
            Self::Refused { .. } | Self::AlreadyJoined { .. } => ExitClass::Refused,
            Self::Unreachable { .. } | Self::Unanswered | Self::PeerOffline => ExitClass::Unreachable,
            Self::CredentialsRefused { .. } | Self::PeerKeyChanged { .. } | Self::PairRefused { .. } => {
                ExitClass::Credentials
            }
            _ => ExitClass::Failed,
        }
    }

    /// The same error in a form that crosses the local socket.
    pub fn to_report(&self) -> ErrorReport {
        ErrorReport {
            code: self.code().to_owned(),
            message: self.to_string(),
            hint: self.hint(),
            class: self.exit_class(),
        }
    }
}

/// An error as it crosses the local socket: everything a person or script needs, nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorReport {
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Which exit code fits.
    pub class: ExitClass,
}

impl From<AgentError> for ErrorReport {
    fn from(error: AgentError) -> Self {
        error.to_report()
    }
}

/// The path as one word for a POSIX shell.
fn shell_word(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%=:,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loose_mode_comes_with_the_command_that_mends_it() {
        let error = AgentError::Mode { path: "/a b/it's".into(), mode: 0o644, wanted: 0o600 };
        assert_eq!(error.hint().as_deref(), Some(r"run: chmod 600 '/a b/it'\''s'"));
        let error = AgentError::Mode { path: "/plain/key".into(), mode: 0o644, wanted: 0o600 };
        assert_eq!(error.hint().as_deref(), Some("run: chmod 600 /plain/key"));
    }

    #[test]
    fn every_code_is_listed_once() {
        let mut codes: Vec<_> = CODES.iter().map(|(code, ..)| *code).collect();
        codes.sort_unstable();
        let count = codes.len();
        codes.dedup();
        assert_eq!(codes.len(), count);
        assert!(CODES.iter().all(|(_, meaning, todo)| meaning.ends_with('.') && todo.ends_with('.')));
    }

    #[test]
    fn the_server_s_refusal_keeps_its_code_and_hint() {
        let error = AgentError::Refused {
            code: "mapping.not_found".into(),
            message: "there is no mapping `web`".into(),
            hint: Some("see `underpass ls`".into()),
            not_found: true,
        };
        assert_eq!(error.code(), "mapping.not_found");
        assert_eq!(error.exit_class().exit_code(), 4);
        assert_eq!(error.to_report().hint.as_deref(), Some("see `underpass ls`"));
    }

    #[test]
    fn refused_credentials_exit_with_ten() {
        let error = AgentError::CredentialsRefused { why: "unknown".into() };
        assert_eq!(error.exit_class().exit_code(), 10);
        let error = AgentError::Unreachable { server: "x".into(), why: "y".into() };
        assert_eq!(error.exit_class().exit_code(), 5);
    }
}
