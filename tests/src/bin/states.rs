//! Owns writing docs/states.md: it prints what the table of situations says.
//! Must not say anything itself.

fn main() {
    print!("{}", decide::membership::situations::document());
}
