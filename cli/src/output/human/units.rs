//! Bytes and times as people read them.

/// `1.5 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut scaled = bytes;
    let mut rest = 0;
    while scaled >= 1024 && unit + 1 < UNITS.len() {
        rest = scaled % 1024;
        scaled /= 1024;
        unit += 1;
    }
    let tenth = rest * 10 / 1024;
    if unit == 0 || scaled >= 100 {
        format!("{scaled} {}", UNITS[unit])
    } else {
        format!("{scaled}.{tenth} {}", UNITS[unit])
    }
}

/// `4m10s`.
pub(super) fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// `2026-11-20 03:12:45 UTC`.
pub(super) fn moment(millis: i64) -> String {
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => format!("{millis} ms"),
    }
}

/// How long before `now`.
pub(super) fn ago(now: i64, then: i64) -> String {
    format!(
        "{} ago",
        span(u64::try_from(now.saturating_sub(then)).unwrap_or(0))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(10 << 30), "10.0 GiB");
        assert_eq!(bytes(u64::MAX), "16383 PiB");
        assert_eq!(span(59_999), "59s");
        assert_eq!(span(3_600_000), "1h00m");
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
    }
}
