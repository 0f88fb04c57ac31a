//! Is there an order in which all of this happened one after another?
//!
//! A history is linearizable if each operation can be given an instant between its question and its answer, so that
//! carried out one after another at these instants they would have had the same answers.
//!
//! For a register one has to search for such an order (Wing and Gong 1993), which is exponential. A log tells: an
//! append has a position, a read has seen the log up to some position, so an append stands behind all of lower
//! positions, and a read between the append that it has seen last and the next one. A fence tells, too: what was
//! appended under it stands before every operation that ended it and behind the one that took it. So the order is
//! given, and all that is left to ask is whether instants fit it: give each operation the earliest one that it can
//! have, its own question or the instant of what stands before it, whatever is later. Were this later than its
//! answer, no other choice would help, as each of these instants is the least possible. That takes one walk over a
//! graph with a few edges for each operation.
//!
//! What is not told doesn't matter: an append of unknown outcome that is in the log when all is over has a question
//! and no answer; one that is not in it has not happened, and nobody may have seen it.

use std::collections::{HashMap, HashSet};

use super::history::{Appended, Did, Operation, Reign, Slice};

/// Why a history is illegal.
pub type Illegal = String;

/// Checks what clients did on a log that holds these tokens in the end, from position 1.
pub fn check(log: &[u64], operations: &[Operation]) -> Result<(), Illegal> {
    let positions = positions(log)?;
    contents(log, &positions, operations)?;
    let order = Order::of(log, &positions, operations)?;
    let instants = order.instants(operations)?;
    fences(&order, &instants, operations)
}

/// Where each token is, which is one place.
fn positions(log: &[u64]) -> Result<HashMap<u64, u64>, Illegal> {
    let mut positions = HashMap::new();
    for (token, position) in log.iter().zip(1..) {
        if let Some(before) = positions.insert(*token, position) {
            return Err(format!("token {token} is in the log twice, at {before} and {position}"));
        }
    }
    Ok(positions)
}

/// What was acknowledged is where it was said to be, what was refused is nowhere, and whoever read has read the log.
fn contents(log: &[u64], positions: &HashMap<u64, u64>, operations: &[Operation]) -> Result<(), Illegal> {
    let mut asked = HashSet::from([0]);
    // What its own log has told a client: it never shows less afterwards.
    let mut known: HashMap<usize, u64> = HashMap::new();
    for Operation { client, did, .. } in operations {
        let known = known.entry(*client).or_default();
        match did {
            Did::Append { token, outcome, .. } => {
                asked.insert(*token);
                let there = positions.get(token).copied();
                match outcome {
                    Appended::At(at) if there != Some(*at) => {
                        return Err(format!("token {token} was acknowledged at {at}, and is at {there:?}"));
                    }
                    Appended::EndsAt(_) | Appended::Fenced | Appended::Failed if there.is_some() => {
                        return Err(format!("{did:?} was told to have failed, and is at {there:?}"));
                    }
                    Appended::At(at) | Appended::EndsAt(at) => *known = (*known).max(*at),
                    _ => {}
                }
            }
            Did::Read { head, read } => {
                read.iter().try_for_each(|read| is_of(log, read))?;
                if read.is_none() {
                    *known = (*known).max(*head);
                }
            }
            Did::Followed { read } => {
                is_of(log, read)?;
                if read.end() < *known {
                    return Err(format!("client {client} knew of {known}, and was shown {}", read.end()));
                }
                *known = read.end();
            }
            Did::Took { .. } | Did::Ended { .. } => {}
        }
    }
    match log.iter().find(|token| !asked.contains(token)) {
        Some(token) => Err(format!("token {token} is in the log, and nobody has written it")),
        None => Ok(()),
    }
}

fn is_of(log: &[u64], read: &Slice) -> Result<(), Illegal> {
    let range = usize::try_from(read.after).ok().zip(usize::try_from(read.end()).ok());
    match range.and_then(|(from, to)| log.get(from..to)) {
        Some(there) if there == read.tokens => Ok(()),
        there => Err(format!("{:?} were read behind {}, and there are {there:?}", read.tokens, read.after)),
    }
}

/// What stands behind what.
struct Order {
    /// Positions of the log. They are the first nodes; behind them come the operations that have none.
    length: usize,
    /// By node: the nodes behind it.
    behind: Vec<Vec<usize>>,
    /// The earliest instant, by itself, and the latest.
    bounds: Vec<(u64, u64)>,
    /// The operation of a node; a token of unknown outcome may stand alone.
    operation: Vec<Option<usize>>,
    /// The nodes that have surely ended a reign.
    ends: HashMap<Reign, Vec<usize>>,
}

impl Order {
    fn of(log: &[u64], positions: &HashMap<u64, u64>, operations: &[Operation]) -> Result<Self, Illegal> {
        let length = log.len();
        let mut order = Self {
            length,
            behind: (0..length).map(|at| if at + 1 < length { vec![at + 1] } else { vec![] }).collect(),
            bounds: vec![(0, u64::MAX); length],
            operation: vec![None; length],
            ends: HashMap::new(),
        };
        let mut under: HashMap<Reign, Vec<usize>> = HashMap::new();
        let mut taken: HashMap<Reign, usize> = HashMap::new();
        for (index, Operation { asked, answered, did, .. }) in operations.iter().enumerate() {
            match did {
                Did::Append { token, reign, outcome } => {
                    if let Appended::EndsAt(head) = outcome {
                        order.reads(*head, index, (*asked, *answered), true)?;
                    }
                    let Some(at) = positions.get(token).map(|at| node_of(*at)) else { continue };
                    let answered = if matches!(outcome, Appended::At(_)) { *answered } else { u64::MAX };
                    order.bounds[at] = (*asked, answered);
                    order.operation[at] = Some(index);
                    if let Some(reign) = reign {
                        under.entry(*reign).or_default().push(at);
                    }
                }
                Did::Read { head, .. } => order.reads(*head, index, (*asked, *answered), true)?,
                Did::Followed { read } => order.reads(read.end(), index, (0, *answered), false)?,
                Did::Took { reign, before } => {
                    let node = order.add(index, (*asked, *answered));
                    taken.insert(*reign, node);
                    if let Some(before) = before {
                        order.ends.entry(*before).or_default().push(node);
                    }
                }
                Did::Ended { reign, surely: true } => {
                    let node = order.add(index, (*asked, *answered));
                    order.ends.entry(*reign).or_default().push(node);
                }
                Did::Ended { surely: false, .. } => {}
            }
        }
        for (reign, appends) in under {
            for append in appends {
                order.behind[append].extend(order.ends.get(&reign).into_iter().flatten());
                if let Some(taken) = taken.get(&reign) {
                    order.behind[*taken].push(append);
                }
            }
        }
        Ok(order)
    }

    fn add(&mut self, operation: usize, bounds: (u64, u64)) -> usize {
        self.behind.push(Vec::new());
        self.bounds.push(bounds);
        self.operation.push(Some(operation));
        self.behind.len() - 1
    }

    /// An operation that has seen the log end at `head`; if `then`, as it was at an instant of its own.
    fn reads(&mut self, head: u64, operation: usize, bounds: (u64, u64), then: bool) -> Result<(), Illegal> {
        if head == 0 || node_of(head) >= self.length {
            return Err(format!("operation {operation} has seen the log end at {head}, where it never did"));
        }
        let node = self.add(operation, bounds);
        self.behind[node_of(head)].push(node);
        if then && node_of(head + 1) < self.length {
            self.behind[node].push(node_of(head + 1));
        }
        Ok(())
    }

    /// The least instant that each node can have.
    fn instants(&self, operations: &[Operation]) -> Result<Vec<u64>, Illegal> {
        let mut waits = vec![0; self.behind.len()];
        self.behind.iter().flatten().for_each(|node| waits[*node] += 1);
        let mut instants: Vec<u64> = self.bounds.iter().map(|(earliest, _)| *earliest).collect();
        let mut after: Vec<Option<usize>> = vec![None; self.behind.len()];
        let mut ready: Vec<usize> = (0..waits.len()).filter(|node| waits[*node] == 0).collect();
        let mut done = 0;
        let tell = |node: usize| self.operation[node].map(|at| &operations[at]);
        while let Some(node) = ready.pop() {
            done += 1;
            if instants[node] > self.bounds[node].1 {
                let mut reason = node;
                while let Some(before) = after[reason].filter(|before| instants[*before] == instants[node]) {
                    reason = before;
                }
                return Err(format!(
                    "{:?} had its answer before {:?} was asked, and stands behind it",
                    tell(node),
                    tell(reason)
                ));
            }
            for next in &self.behind[node] {
                if instants[node] > instants[*next] {
                    instants[*next] = instants[node];
                    after[*next] = Some(node);
                }
                waits[*next] -= 1;
                if waits[*next] == 0 {
                    ready.push(*next);
                }
            }
        }
        if done < waits.len() {
            let node = (0..waits.len()).find(|node| waits[*node] > 0 && self.operation[*node].is_some());
            return Err(format!("{:?} stands behind itself", node.and_then(tell)));
        }
        Ok(instants)
    }
}

fn node_of(position: u64) -> usize {
    usize::try_from(position.saturating_sub(1)).unwrap_or(usize::MAX)
}

/// Who was told that its fence is gone was told so because somebody may have ended it by then.
fn fences(order: &Order, instants: &[u64], operations: &[Operation]) -> Result<(), Illegal> {
    for operation in operations {
        let Did::Append { reign: Some(reign), outcome: Appended::Fenced, .. } = &operation.did else {
            continue;
        };
        let surely = order.ends.get(reign).into_iter().flatten().map(|node| instants[*node]);
        let perhaps = operations.iter().filter_map(|other| match other.did {
            Did::Ended { reign: ended, surely: false } if ended == *reign => Some(other.asked),
            _ => None,
        });
        if !surely.chain(perhaps).any(|ended| ended <= operation.answered) {
            return Err(format!("{operation:?}: nobody had ended its fence"));
        }
    }
    Ok(())
}
