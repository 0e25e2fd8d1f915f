//! Owns what recall means: which of the rows that an index returned are hits, what the queries
//! together say, and how many of them a budget has room for.
//! Must not know where distances come from.

pub mod ask;
pub mod nearest;
pub mod result;
pub mod summary;
