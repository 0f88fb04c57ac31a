//! Requests of a client, run beside each other, each once.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use underpass_wire::link::{Answer, Body, Command, Failure, FailureClass, Outcome, Request};

use crate::gateway::Shared;
use crate::link::{Goodbye, Link};
use crate::requests;

/// Commands of one client that run at once. Most wait for the log, which takes many in one go.
const RUNNING_MAX: usize = 32;

/// Commands of one client that run or wait for those. One more is answered with `link.busy`.
const PENDING_MAX: usize = 160;

/// Answers that are kept for repeated commands. A client repeats what it has no answer to, so this need not be
/// more than what can be pending, twice.
const ANSWERS_MAX: usize = 320;

type Id = [u8; 16];

/// The commands of one session.
#[derive(Debug)]
pub(crate) struct Commands {
    shared: Arc<Shared>,
    link: Arc<Link>,
    running: Arc<Semaphore>,
    known: Arc<Mutex<Known>>,
}

/// What became of each command id.
#[derive(Debug, Default)]
struct Known {
    /// Nothing yet, or the answer.
    answers: HashMap<Id, Option<Outcome>>,
    /// Those with an answer, oldest first.
    answered: VecDeque<Id>,
}

/// What to do with a command that came.
#[derive(Debug, PartialEq)]
enum Verdict {
    Run,
    /// It is under way; its answer serves both.
    Wait,
    Again(Box<Outcome>),
    Busy,
}

impl Known {
    fn receive(&mut self, id: Id) -> Verdict {
        match self.answers.get(&id) {
            Some(Some(outcome)) => Verdict::Again(Box::new(outcome.clone())),
            Some(None) => Verdict::Wait,
            None if self.answers.len() - self.answered.len() >= PENDING_MAX => Verdict::Busy,
            None => {
                self.answers.insert(id, None);
                Verdict::Run
            }
        }
    }

    /// The answer is there. One that changed nothing need not be kept: asking again does no harm, and lists
    /// are long.
    fn answer(&mut self, id: Id, kept: Option<Outcome>) {
        let Some(outcome) = kept else {
            self.answers.remove(&id);
            return;
        };
        self.answers.insert(id, Some(outcome));
        self.answered.push_back(id);
        if self.answered.len() > ANSWERS_MAX
            && let Some(oldest) = self.answered.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }
}

impl Commands {
    pub(crate) fn new(shared: Arc<Shared>, link: Arc<Link>) -> Self {
        Self { shared, link, running: Arc::new(Semaphore::new(RUNNING_MAX)), known: Arc::default() }
    }

    /// Takes a command. Never waits: what it does, it does in a job.
    pub(crate) fn submit(&self, command: Command) {
        let Ok(id) = Id::try_from(command.id.as_slice()) else {
            answer(&self.link, &command.id, invalid("a command id has 16 bytes"));
            return;
        };
        let Some(request) = command.request else {
            answer(&self.link, &id, unsupported());
            return;
        };
        match self.lock().receive(id) {
            Verdict::Wait => {}
            Verdict::Again(outcome) => answer(&self.link, &id, *outcome),
            Verdict::Busy => answer(&self.link, &id, busy()),
            Verdict::Run => self.run(id, request),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command that was begun is carried to its end, also when the link is over by then: the client asks for
    /// its outcome under the same id over the next one.
    fn run(&self, id: Id, request: Request) {
        let (shared, link) = (self.shared.clone(), self.link.clone());
        let (running, known) = (self.running.clone(), self.known.clone());
        self.shared.tasks.spawn_job("command", |_| async move {
            let Ok(_turn) = running.acquire().await else { return Ok::<_, Infallible>(()) };
            let changes = requests::changes_something(&request);
            let outcome = requests::execute(&shared, &link, id, request).await;
            let kept = (changes && is_final(&outcome)).then(|| outcome.clone());
            known.lock().unwrap_or_else(PoisonError::into_inner).answer(id, kept);
            answer(&link, &id, outcome);
            Ok(())
        });
    }
}

/// Whether the same command would be answered so again. What failed for the moment may be tried again under the
/// same id.
fn is_final(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Failed(failure) if failure.class() == FailureClass::Unavailable)
}

fn answer(link: &Link, id: &[u8], outcome: Outcome) {
    if !link.outbox.say(Body::Answer(Answer { id: id.to_vec(), outcome: Some(outcome) })) {
        // Megabytes of answers wait already.
        link.end(Goodbye::Failed("the client does not read its answers".to_owned()));
    }
}

fn busy() -> Outcome {
    Outcome::Failed(Failure {
        code: "link.busy".to_owned(),
        message: "too many commands of this client are under way".to_owned(),
        hint: "wait for answers before asking for more".to_owned(),
        class: FailureClass::Unavailable.into(),
        retry_after_ms: 1000,
    })
}

fn unsupported() -> Outcome {
    Outcome::Failed(Failure {
        code: "command.unsupported".to_owned(),
        message: "this server does not know the command".to_owned(),
        hint: "the server is older than the client: update it".to_owned(),
        class: FailureClass::Unsupported.into(),
        retry_after_ms: 0,
    })
}

/// A request that makes no sense.
pub(crate) fn invalid(message: &str) -> Outcome {
    Outcome::Failed(Failure {
        code: "request.invalid".to_owned(),
        message: message.to_owned(),
        hint: String::new(),
        class: FailureClass::Invalid.into(),
        retry_after_ms: 0,
    })
}

#[cfg(test)]
mod tests {
    use underpass_wire::link::Done;

    use super::*;

    fn done(position: u64) -> Outcome {
        Outcome::Done(Done { position })
    }

    #[test]
    fn c16_a_repeated_command_id_runs_once() {
        let mut known = Known::default();
        assert_eq!(known.receive([1; 16]), Verdict::Run);
        assert_eq!(known.receive([1; 16]), Verdict::Wait);
        known.answer([1; 16], Some(done(7)));
        assert_eq!(known.receive([1; 16]), Verdict::Again(Box::new(done(7))));
        assert_eq!(known.receive([2; 16]), Verdict::Run);
    }

    #[test]
    fn an_answer_that_is_not_kept_leaves_nothing() {
        let mut known = Known::default();
        assert_eq!(known.receive([1; 16]), Verdict::Run);
        known.answer([1; 16], None);
        assert_eq!(known.receive([1; 16]), Verdict::Run);
    }

    #[test]
    fn pending_commands_and_kept_answers_are_bounded() {
        let mut known = Known::default();
        let id = |number: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            id
        };
        for number in 0..PENDING_MAX {
            assert_eq!(known.receive(id(number)), Verdict::Run);
        }
        assert_eq!(known.receive([9; 16]), Verdict::Busy);
        for number in 0..PENDING_MAX {
            known.answer(id(number), Some(done(1)));
        }
        for number in PENDING_MAX..10 * PENDING_MAX {
            assert_eq!(known.receive(id(number)), Verdict::Run);
            known.answer(id(number), Some(done(1)));
        }
        assert_eq!(known.answers.len(), ANSWERS_MAX);
    }
}
