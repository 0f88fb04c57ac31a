//! What is measured: each a way from a caller to the target, with its processes.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::process::{Running, free_port, listening, on_path};

/// One way to the target, up and running.
#[derive(Debug)]
pub struct Setup {
    /// Its row in the table.
    pub name: &'static str,
    /// Where callers go.
    pub address: SocketAddr,
    /// The processes between caller and target.
    pub running: Vec<Running>,
}

/// Where things are.
#[derive(Debug)]
pub struct Workshop {
    /// The folder of this package's programs.
    pub programs: PathBuf,
    /// The program under test, if there is one.
    pub underpass: Option<PathBuf>,
    /// Scratch: configurations, data and state folders, logs.
    pub folder: PathBuf,
    /// The target.
    pub target: SocketAddr,
}

/// The rows, in the order in which they are measured.
pub const NAMES: [&str; 9] = [
    "direct",
    "two splice hops",
    "underpass, unsealed",
    "underpass, sealed",
    "rathole",
    "rathole, Noise",
    "bore",
    "haproxy x2",
    "client to client, end to end",
];

/// Ports that the server gives out by default.
const PUBLIC_PORTS: std::ops::RangeInclusive<u16> = 20_000..=29_999;

impl Workshop {
    /// Brings one row up. `Ok(None)` if its program isn't there.
    pub async fn start(&self, name: &'static str) -> io::Result<Option<Setup>> {
        let setup = match name {
            "direct" => Setup { name, address: self.target, running: Vec::new() },
            "two splice hops" => self.splice_hops(name).await?,
            "underpass, unsealed" => return self.public_port(name, "off").await,
            "underpass, sealed" => return self.public_port(name, "on").await,
            "client to client, end to end" => return self.end_to_end(name).await,
            "rathole" => return self.rathole(name, false).await,
            "rathole, Noise" => return self.rathole(name, true).await,
            "bore" => return self.bore(name).await,
            "haproxy x2" => return self.haproxy(name).await,
            other => return Err(io::Error::other(format!("no such row: {other}"))),
        };
        Ok(Some(setup))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    async fn splice_hops(&self, name: &'static str) -> io::Result<Setup> {
        let (program, log) = (self.programs.join("splice-hop"), self.log("splice-hop"));
        let (mut address, mut running) = (self.target, Vec::new());
        for _ in 0..2 {
            let mut hop = Running::start(&program, ["--to", &address.to_string()], &log)?;
            address = hop.line().await?.parse().map_err(io::Error::other)?;
            running.push(hop.unheard());
        }
        Ok(Setup { name, address, running })
    }

    /// A server on the memory store and the invite it prints.
    async fn server(&self, program: &Path, label: &str) -> io::Result<(Running, String)> {
        let links = format!("127.0.0.1:{}", free_port(None).await?);
        let api = format!("127.0.0.1:{}", free_port(None).await?);
        let data = self.folder.join(format!("{label}-data"));
        let mut serve = Running::start(
            program,
            [
                "serve".as_ref(),
                "--store".as_ref(),
                "memory".as_ref(),
                "--data".as_ref(),
                data.as_os_str(),
                "--listen".as_ref(),
                links.as_ref(),
                "--advertise".as_ref(),
                links.as_ref(),
                "--api".as_ref(),
                api.as_ref(),
                "--output".as_ref(),
                "json".as_ref(),
            ],
            &self.log(&format!("{label}-serve")),
        )?;
        let ready = serve.event("ready").await?;
        let invite = text(&ready, "invite")?;
        Ok((serve.unheard(), invite))
    }

    /// A client that has joined: its state folder.
    async fn client(&self, program: &Path, label: &str, invite: &str) -> io::Result<PathBuf> {
        let state = self.folder.join(format!("{label}-state"));
        let args = ["join".as_ref(), invite.as_ref(), "--state".as_ref(), state.as_os_str()];
        let output = ["--output".as_ref(), "json".as_ref()];
        let log = self.log(&format!("{label}-join"));
        Running::start(program, args.into_iter().chain(output), &log)?.event("joined").await?;
        Ok(state)
    }

    /// A verb that stays in the foreground.
    fn verb(&self, program: &Path, state: &Path, label: &str, args: &[&str]) -> io::Result<Running> {
        let rest = ["--state".as_ref(), state.as_os_str(), "--output".as_ref(), "json".as_ref()];
        let args = args.iter().map(AsRef::as_ref).chain(rest);
        Running::start(program, args, &self.log(label))
    }

    async fn public_port(&self, name: &'static str, seal: &str) -> io::Result<Option<Setup>> {
        let Some(program) = &self.underpass else { return Ok(None) };
        let label = format!("underpass-seal-{seal}");
        let (serve, invite) = self.server(program, &label).await?;
        let state = self.client(program, &label, &invite).await?;
        let port = free_port(Some(PUBLIC_PORTS)).await?.to_string();
        let target = self.target.to_string();
        let args = ["expose", &target, "--port", &port, "--seal", seal];
        let mut expose = self.verb(program, &state, &format!("{label}-expose"), &args)?;
        let open = expose.event("open").await?;
        let address = text(&open, "public")?.parse().map_err(io::Error::other)?;
        listening(address).await?;
        Ok(Some(Setup { name, address, running: vec![serve, expose.unheard()] }))
    }

    async fn end_to_end(&self, name: &'static str) -> io::Result<Option<Setup>> {
        let Some(program) = &self.underpass else { return Ok(None) };
        let (serve, invite) = self.server(program, "underpass-pair").await?;
        let offers = self.client(program, "underpass-offers", &invite).await?;
        let target = self.target.to_string();
        let mut share = self.verb(program, &offers, "underpass-share", &["share", &target])?;
        let code = text(&share.event("code").await?, "code")?;

        // An invite is used once; the second client needs its own.
        let data = self.folder.join("underpass-pair-data");
        let args = ["invite".as_ref(), "--data".as_ref(), data.as_os_str()];
        let output = ["--output".as_ref(), "json".as_ref()];
        let log = self.log("underpass-invite");
        let line = Running::start(program, args.into_iter().chain(output), &log)?.line().await?;
        let invite = text(&serde_json::from_str(&line)?, "invite")?;
        let listens = self.client(program, "underpass-listens", &invite).await?;
        let address = format!("127.0.0.1:{}", free_port(None).await?);
        let args = ["connect", &code, "--listen", &address];
        let mut connect = self.verb(program, &listens, "underpass-connect", &args)?;
        let open = connect.event("open").await?;
        let address = text(&open, "listen")?.parse().map_err(io::Error::other)?;
        listening(address).await?;
        Ok(Some(Setup { name, address, running: vec![serve, share.unheard(), connect.unheard()] }))
    }

    async fn rathole(&self, name: &'static str, noise: bool) -> io::Result<Option<Setup>> {
        let Some(program) = on_path("rathole") else { return Ok(None) };
        let label = if noise { "rathole-noise" } else { "rathole" };
        let links = format!("127.0.0.1:{}", free_port(None).await?);
        let address: SocketAddr = ([127, 0, 0, 1], free_port(None).await?).into();
        let (mut server_noise, mut client_noise) = (String::new(), String::new());
        if noise {
            let said = Running::start(&program, ["--genkey"], &self.log(label))?.finish().await?;
            let mut keys = said.lines().map(str::trim).filter(|l| !l.is_empty() && !l.ends_with(':'));
            let (Some(private), Some(public)) = (keys.next(), keys.next()) else {
                return Err(io::Error::other("rathole --genkey printed no keys"));
            };
            let section = |side: &str, key: &str, value: &str| {
                format!(
                    "[{side}.transport]\ntype = \"noise\"\n[{side}.transport.noise]\n{key} = \"{value}\"\n"
                )
            };
            server_noise = section("server", "local_private_key", private);
            client_noise = section("client", "remote_public_key", public);
        }
        let target = self.target;
        let server = format!(
            "[server]\nbind_addr = \"{links}\"\ndefault_token = \"bench\"\n{server_noise}\
             [server.services.bench]\nbind_addr = \"{address}\"\n"
        );
        let client = format!(
            "[client]\nremote_addr = \"{links}\"\ndefault_token = \"bench\"\n{client_noise}\
             [client.services.bench]\nlocal_addr = \"{target}\"\n"
        );
        let mut running = Vec::new();
        for (side, text) in [("server", server), ("client", client)] {
            let file = self.folder.join(format!("{label}-{side}.toml"));
            tokio::fs::write(&file, text).await?;
            let args = [format!("--{side}").into(), file.into_os_string()];
            running.push(Running::start(&program, args, &self.log(label))?.unheard());
        }
        listening(address).await?;
        Ok(Some(Setup { name, address, running }))
    }

    async fn bore(&self, name: &'static str) -> io::Result<Option<Setup>> {
        let Some(program) = on_path("bore") else { return Ok(None) };
        // Its control port can't be chosen.
        if tokio::net::TcpListener::bind("127.0.0.1:7835").await.is_err() {
            return Err(io::Error::other("port 7835, which bore needs, is in use"));
        }
        let port = free_port(None).await?.to_string();
        let log = self.log("bore");
        let server = Running::start(&program, ["server", "--bind-addr", "127.0.0.1"], &log)?.unheard();
        listening(([127, 0, 0, 1], 7835).into()).await?;
        let target = self.target.port().to_string();
        let args = ["local", &target, "--local-host", "127.0.0.1", "--to", "127.0.0.1", "--port", &port];
        let local = Running::start(&program, args, &log)?.unheard();
        let address = ([127, 0, 0, 1], port.parse().map_err(io::Error::other)?).into();
        listening(address).await?;
        Ok(Some(Setup { name, address, running: vec![server, local] }))
    }

    async fn haproxy(&self, name: &'static str) -> io::Result<Option<Setup>> {
        let Some(program) = on_path("haproxy").or_else(|| {
            // Where distributions put it, and a user's PATH often ends before.
            Some(PathBuf::from("/usr/sbin/haproxy")).filter(|file| file.is_file())
        }) else {
            return Ok(None);
        };
        let (mut address, mut running) = (self.target, Vec::new());
        for hop in ["inner", "outer"] {
            let listen: SocketAddr = ([127, 0, 0, 1], free_port(None).await?).into();
            let text = format!(
                "global\n    maxconn 4096\ndefaults\n    mode tcp\n    option splice-auto\n    timeout connect 5s\n    \
                 timeout client 1h\n    timeout server 1h\nlisten bench\n    bind {listen}\n    server next {address}\n"
            );
            let file = self.folder.join(format!("haproxy-{hop}.cfg"));
            tokio::fs::write(&file, text).await?;
            let args = ["-f".as_ref(), file.as_os_str()];
            running.push(Running::start(&program, args, &self.log("haproxy"))?.unheard());
            address = listen;
            listening(address).await?;
        }
        Ok(Some(Setup { name, address, running }))
    }
}

fn text(value: &serde_json::Value, key: &str) -> io::Result<String> {
    value[key]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| io::Error::other(format!("no `{key}` in what the program said: {value}")))
}
