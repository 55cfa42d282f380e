//! Dates without a library: days since 1970 in UTC, after H. Hinnant's `civil_from_days` and `days_from_civil`.

use std::fmt;

const MS_PER_DAY: u64 = 86_400_000;
/// From 0000-03-01, where the calculation begins, to 1970-01-01.
const SHIFT: u64 = 719_468;
const DAYS_PER_ERA: u64 = 146_097;

/// A day in UTC. Its text is `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day(u64);

impl Day {
    pub(crate) const fn of_unix_ms(unix_ms: u64) -> Self {
        Self(unix_ms / MS_PER_DAY)
    }

    /// Reads the one spelling of a day.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-').map(str::parse::<u64>);
        let (year, month, day) = (
            parts.next()?.ok()?,
            parts.next()?.ok()?,
            parts.next()?.ok()?,
        );
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || day == 0 {
            return None;
        }
        let year = year - u64::from(month <= 2);
        let (era, of_era) = (year / 400, year % 400);
        let month_from_march = (month + 9) % 12;
        let of_year = (153 * month_from_march + 2) / 5 + day - 1;
        let days = era * DAYS_PER_ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
        let day = Self(days.checked_sub(SHIFT)?);
        (day.to_string() == text).then_some(day)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shifted = self.0 + SHIFT;
        let (era, of_era) = (shifted / DAYS_PER_ERA, shifted % DAYS_PER_ERA);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = match month_from_march {
            0..10 => month_from_march + 3,
            _ => month_from_march - 9,
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// A moment as RFC 3339 in UTC, with milliseconds.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    let (to_the_second, ms) = (moment(unix_ms / 1000), unix_ms % 1000);
    format!("{to_the_second}.{ms:03}Z")
}

/// A moment as RFC 3339 in UTC, to the second, as people read it.
#[must_use]
pub fn utc(unix_seconds: u64) -> String {
    moment(unix_seconds) + "Z"
}

fn moment(seconds: u64) -> String {
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let day = Day(seconds / (MS_PER_DAY / 1000));
    format!("{day}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_790_000_000_123, "2026-09-21T14:13:20.123Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn every_day_has_one_text_and_reads_back() {
        for day in (0..100_000).map(Day) {
            assert_eq!(Day::parse(&day.to_string()), Some(day));
        }
        for text in [
            "",
            "2026",
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-1-01",
            "1969-12-31",
            "+2026-01-01",
            "2026-01-01 ",
            "2026-01-01-",
        ] {
            assert_eq!(Day::parse(text), None, "{text:?}");
        }
    }
}
