//! Lengths of time as Go writes and reads them: `1h2m3.5s`, `100ms`.

use std::time::Duration;

const UNITS: &[(&str, f64)] =
    &[("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// The value of a flag. One that is negative is as good as 0, which nobody takes.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "must be a length of time, such as 500ms or 1m30s";
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0.0;
    loop {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(WRONG)?;
        let (number, tail) = rest.split_at(unit_at);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(WRONG)?;
        seconds += number.parse::<f64>().map_err(|_| WRONG)? * size;
        if tail.is_empty() {
            break;
        }
        rest = tail;
    }
    // Go's durations end after 292 years.
    match Duration::try_from_secs_f64(seconds) {
        Ok(_) if negative => Ok(Duration::ZERO),
        Ok(length) if length.as_nanos() <= i64::MAX as u128 => Ok(length),
        _ => Err(WRONG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_spellings_are_taken() {
        for (text, ms) in [
            ("5s", 5000),
            ("100ms", 100),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            (".5h", 1_800_000),
            ("+2s", 2000),
            ("0", 0),
            ("-1s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(duration("3us"), duration("3µs"));
        for bad in ["", "5", "s", "-", "5x", "1s2", "1..2s", "1 s", "300000h000h0000h0", "9999999h"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
