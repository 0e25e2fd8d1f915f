//! A harness of real servers for the tests and the measurements of `citus_fleet`.
//!
//! Everything runs on loopback, under one temporary directory, and goes away with the process.
//! Nothing here knows what the extension should do: expectations live in the suites.

pub mod cluster;
pub mod compose;
pub mod daemon;
pub mod dns;
pub mod embeddings;
pub mod etcd;
pub mod fleet;
pub mod history;
pub mod http;
pub mod impostor;
pub mod install;
pub mod kubernetes;
pub mod manifests;
pub mod need;
pub mod net;
pub mod partition;
pub mod patroni;
pub mod prometheus;
pub mod random;
pub mod relay;
pub mod run;
pub mod server;
pub mod tls;
pub mod vector;
pub mod wait;
pub mod writer;

pub use cluster::Cluster;
pub use compose::Compose;
pub use dns::{Behaviour, Dns};
pub use etcd::Etcd;
pub use need::Need;
pub use partition::Partition;
pub use patroni::Patroni;
pub use relay::Relay;
pub use run::Subnet;
pub use server::{Server, Shutdown, Spec};
pub use wait::{until, within};
pub use writer::Writer;
