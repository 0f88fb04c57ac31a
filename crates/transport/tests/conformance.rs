//! Both transports of this crate keep the contract.

use underpass_transport::testkit::{MemoryFixture, TcpFixture};

underpass_transport::conformance!(tcp, TcpFixture);
underpass_transport::conformance!(memory, MemoryFixture::default());
