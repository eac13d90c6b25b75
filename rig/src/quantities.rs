//! The quantities of a command line.

use std::time::Duration;

/// A share in percent, as parts in a million.
pub(crate) fn parts_per_million(text: &str) -> Result<u32, String> {
    let percent: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.0..=100.0).contains(&percent) {
        return Err("not between 0 and 100".to_owned());
    }
    Ok((percent * 10_000.0).round() as u32)
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a length of time".to_owned())
}

/// At most a minute: longer is a slip of the pen, and would fill any queue.
pub(crate) fn milliseconds(text: &str) -> Result<Duration, String> {
    let millis: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.0..=60_000.0).contains(&millis) {
        return Err("not between 0 and 60000".to_owned());
    }
    Ok(Duration::from_secs_f64(millis / 1000.0))
}

/// A rate in megabits a second, as bits.
pub(crate) fn megabits(text: &str) -> Result<u64, String> {
    let megabits: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.001..=100_000.0).contains(&megabits) {
        return Err("not between 0.001 and 100000".to_owned());
    }
    Ok((megabits * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_has_the_resolution_it_promises() {
        assert_eq!(parts_per_million("2"), Ok(20_000));
        assert_eq!(parts_per_million("0.0001"), Ok(1));
        assert_eq!(parts_per_million("100"), Ok(1_000_000));
        for wrong in ["-1", "100.1", "NaN", "many", ""] {
            assert!(parts_per_million(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_are_a_length_of_time() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert!(seconds("-1").is_err() && seconds("soon").is_err());
    }

    #[test]
    fn milliseconds_and_megabits_have_bounds() {
        assert_eq!(milliseconds("0.5"), Ok(Duration::from_micros(500)));
        assert!(milliseconds("-1").is_err() && milliseconds("60001").is_err() && milliseconds("NaN").is_err());
        assert_eq!(megabits("0.5"), Ok(500_000));
        assert!(megabits("0").is_err() && megabits("inf").is_err());
    }
}
