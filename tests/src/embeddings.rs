//! Owns the real embeddings of `tests/data` and bringing them into tables, as many as a test wants.
//! Must not draw anything: the same number is the same vector in every run.

use crate::random::Random;
use crate::server::Server;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::OnceLock;

pub const DIMENSIONS: usize = 384;

const ROWS: &[u8] = include_bytes!("../data/rows.f16");
const CATEGORIES: &str = include_str!("../data/categories.txt");
const QUERIES: &[u8] = include_bytes!("../data/queries.f16");
/// Bytes of one vector.
const SIZE: usize = 2 * DIMENSIONS;
/// How many rows there are before they repeat.
const SAMPLE: usize = ROWS.len() / SIZE;
/// How far a coordinate of a copy is from its original's at the most: the cosine of the two is 0.99,
/// nearer than any two originals mostly are.
const NOISE: f32 = 0.01;

/// The category of a row.
pub fn category(number: usize) -> &'static str {
    static LINES: OnceLock<Vec<&str>> = OnceLock::new();
    LINES.get_or_init(|| CATEGORIES.lines().collect())[number % SAMPLE]
}

/// The text of a row's vector. After the last one they begin again, with a little noise.
pub fn row(number: usize) -> String {
    let mut vector = decoded(ROWS, number % SAMPLE);
    if number >= SAMPLE {
        let mut random = Random::new(number as u64);
        for coordinate in &mut vector {
            *coordinate += (random.below(2001) as f32 / 1000.0 - 1.0) * NOISE;
        }
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|coordinate| *coordinate /= norm);
    }
    text(&vector)
}

/// The text of a query's vector.
pub fn query(number: usize) -> String {
    text(&decoded(QUERIES, number % (QUERIES.len() / SIZE)))
}

fn decoded(vectors: &[u8], position: usize) -> Vec<f32> {
    let bytes = &vectors[position * SIZE..(position + 1) * SIZE];
    bytes.chunks_exact(2).map(|pair| single(u16::from_le_bytes([pair[0], pair[1]]))).collect()
}

/// A half-precision float. Coordinates of unit vectors are finite.
fn single(half: u16) -> f32 {
    let (exponent, fraction) = (i32::from(half >> 10 & 0x1f), f32::from(half & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    };
    if half & 0x8000 == 0 { size } else { -size }
}

/// Four digits are what half precision holds.
fn text(vector: &[f32]) -> String {
    let mut text = String::with_capacity(8 * vector.len());
    for (position, coordinate) in vector.iter().enumerate() {
        let _ = write!(text, "{}{coordinate:.4}", if position == 0 { '[' } else { ',' });
    }
    text + "]"
}

impl Server {
    /// COPY of rows `into` a table with its columns, of which the vector is the last: `columns` gives the
    /// others, between tabs.
    #[track_caller]
    pub fn load(&self, into: &str, numbers: Range<usize>, columns: impl Fn(usize) -> String) {
        let lines = numbers.map(|number| format!("{}\t{}\n", columns(number), row(number)));
        // A session of its own, so that what it has written is counted when it ends.
        self.session().copy(&format!("COPY {into} FROM STDIN"), lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_read_as_they_are_written() {
        for (half, value) in [(0x0000, 0.0), (0x3c00, 1.0), (0xb800, -0.5), (0x2e66, 0.099_975_586)]
        {
            assert_eq!(single(half), value);
        }
        assert_eq!(single(0x0001), 2f32.powi(-24));
    }

    #[test]
    fn all_of_them_are_unit_vectors_and_copies_lie_close() {
        let norm = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>();
        assert_eq!(
            (CATEGORIES.lines().count(), ROWS.len() % SIZE, QUERIES.len() % SIZE),
            (SAMPLE, 0, 0)
        );
        for number in [0, 1, SAMPLE - 1] {
            let length = norm(&decoded(ROWS, number));
            assert!((0.99..1.01).contains(&length), "{number}: {length}");
        }
        let numbers = |text: String| -> Vec<f32> {
            text[1..text.len() - 1].split(',').map(|x| x.parse().expect("a number")).collect()
        };
        let (one, copy) = (numbers(row(7)), numbers(row(7 + SAMPLE)));
        let cosine: f32 = one.iter().zip(&copy).map(|(a, b)| a * b).sum();
        assert!((0.98..0.999).contains(&cosine), "{cosine}");
        assert_eq!(row(7 + SAMPLE), row(7 + SAMPLE));
    }
}
