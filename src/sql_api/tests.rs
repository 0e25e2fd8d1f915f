//! Owns the tests that run inside a server: what needs no second one.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;
}
