//! Owns reading figures as catalogs and statistics may hold them: −1 for what is not known, NULL, NaN, or
//! more than anything can be. Must not refuse one: it would cost all others theirs.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A finite number; floats that are none come as words.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite())
}

/// A count; 0 where it is not known.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(known_count(deserializer)?.unwrap_or_default())
}

/// A count; none where it is not known.
pub fn known_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    // A float of 64 bits does not hold every integer.
    let rounded = || number(&value).filter(|number| *number >= 0.0).map(|number| number as u64);
    Ok(value.as_u64().or_else(rounded))
}

/// `pg_class.reltuples`; −1 where it is not known.
pub fn tuples<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(number(&value).filter(|tuples| *tuples >= 0.0).unwrap_or(-1.0))
}

/// A share, from 0 to 1; none where it is not known.
pub fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(number(&value).filter(|share| (0.0..=1.0).contains(share)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn what_is_no_figure_is_not_known() {
        for strange in [json!(-1), json!("NaN"), json!("-Infinity"), json!(null)] {
            assert_eq!(super::count(strange.clone()).unwrap(), 0, "{strange}");
            assert_eq!(super::known_count(strange.clone()).unwrap(), None, "{strange}");
            assert_eq!(super::tuples(strange.clone()).unwrap(), -1.0, "{strange}");
            assert_eq!(super::share(strange.clone()).unwrap(), None, "{strange}");
        }
        assert_eq!(super::count(json!(u64::MAX)).unwrap(), u64::MAX);
        assert_eq!(super::count(json!(1e300)).unwrap(), u64::MAX);
        assert_eq!(super::tuples(json!(12.0)).unwrap(), 12.0);
        assert_eq!(super::share(json!(1.5)).unwrap(), None);
    }
}
