//! Owns the tests of the checks.
