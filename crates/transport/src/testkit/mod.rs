//! The conformance suite that every transport passes.
//!
//! A transport gives a [`Fixture`] and calls the macro:
//!
//! ```ignore
//! underpass_transport::conformance!(tcp, TcpFixture::new());
//! ```

mod fixtures;
mod server;
pub mod suite;

use std::any::Any;
use std::fmt::Debug;

use async_trait::async_trait;

pub use fixtures::{MemoryFixture, TcpFixture};

use crate::{Connector, Listener};

/// One transport, ready to be tried.
#[async_trait]
pub trait Fixture: Send + Sync + Debug {
    /// A listener on an address of its own.
    async fn listen(&self) -> Box<dyn Listener>;

    /// The side that connects to it.
    fn connector(&self) -> Box<dyn Connector>;

    /// Somebody who connects to the listener below this transport, says `says` and then nothing more, for as
    /// long as the value lives. For the tcp transport that is a TCP connection, for one over TLS a TCP
    /// connection as well.
    async fn mute(&self, address: &str, says: &[u8]) -> Box<dyn Any + Send>;
}

/// Declares one test per point of the suite in a module called `$name`, each against a fixture of its own.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $fixture:expr) => {
        $crate::conformance!($name, $fixture, [
            echo_64_mib_each_way_is_exact,
            single_bytes_come_one_by_one,
            the_end_comes_after_the_last_byte,
            a_reset_in_the_middle_is_noticed,
            a_stalled_reader_is_bounded_and_alone,
            accept_cancelled_a_thousand_times_loses_nothing,
            silent_callers_delay_nobody,
            five_hundred_channels_live_at_once,
            a_dropped_listener_refuses_and_lets_channels_finish,
            nobody_there_is_an_error_in_time,
        ]);
    };
    ($name:ident, $fixture:expr, [$($test:ident),* $(,)?]) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    $crate::testkit::suite::$test(&$fixture).await;
                }
            )*
        }
    };
}
