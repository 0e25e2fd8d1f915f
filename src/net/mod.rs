//! Owns talking to other servers: names, logins, and asking many of them at once within one deadline.
//! Must not know what is asked, nor call PostgreSQL from inside the async runtime.

pub mod ask;
pub mod credentials;
pub mod crowd;
pub mod dns;
mod helpers;
pub mod login;
