//! Several servers that are one.

use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::server::{EtcdServer, Ports, Setup};
use crate::options::EtcdOptions;

/// A leader is there within two elections; a machine under load takes longer.
const LEADER: Duration = Duration::from_secs(30);

/// A cluster on loopback.
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<EtcdServer>,
}

impl EtcdCluster {
    /// A cluster of so many members, ready. Three survive the loss of one.
    pub fn start(members: usize) -> Self {
        let ports: Vec<_> = (0..members).map(|_| Ports::free()).collect();
        let listed = ports.iter().enumerate();
        let listed: Vec<_> =
            listed.map(|(number, ports)| format!("m{number}=http://127.0.0.1:{}", ports.peer)).collect();
        let listed = listed.join(",");
        let launch =
            |(number, ports)| EtcdServer::launch(Setup::default(), &format!("m{number}"), ports, &listed);
        let members: Vec<_> = ports.into_iter().enumerate().map(launch).collect();
        members.iter().for_each(EtcdServer::wait_until_ready);
        Self { members }
    }

    /// The members.
    pub fn members(&self) -> &[EtcdServer] {
        &self.members
    }

    /// How to open a store on it, with all members as endpoints.
    pub fn options(&self, prefix: &str) -> EtcdOptions {
        EtcdOptions::new(self.members.iter().map(EtcdServer::endpoint), prefix)
    }

    /// The member that leads. Waits until there is one.
    pub fn leader(&self) -> &EtcdServer {
        let start = Instant::now();
        loop {
            if let Some(leader) = self.members.iter().find(|member| member.leads()) {
                return leader;
            }
            assert!(start.elapsed() < LEADER, "the cluster has no leader");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A member that doesn't lead.
    pub fn follower(&self) -> &EtcdServer {
        let leader = self.leader().endpoint();
        self.members.iter().find(|member| member.endpoint() != leader).expect("more than one member")
    }
}
