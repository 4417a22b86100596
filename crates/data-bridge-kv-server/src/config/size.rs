//! Sizes as people write them: `512MB`, `1GiB`, `75%`, `auto`.

/// A size as asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// A share of what the container or machine gives.
    Auto,
    /// This share of it, in percent.
    Percent(f64),
    /// Bytes.
    Bytes(u64),
}

/// Units and their bytes; `MB` and `MiB` are both 2^20, as Redis's `maxmemory` has it.
const UNITS: [(&str, u64); 13] = [
    ("b", 1),
    ("k", 1 << 10),
    ("kb", 1 << 10),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mb", 1 << 20),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gb", 1 << 30),
    ("gib", 1 << 30),
    ("t", 1 << 40),
    ("tb", 1 << 40),
    ("tib", 1 << 40),
];

impl Size {
    /// Reads a size; the error says what is expected.
    pub fn parse(text: &str) -> Result<Size, String> {
        let text = text.trim().to_ascii_lowercase();
        if text == "auto" {
            return Ok(Size::Auto);
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent: Option<f64> = percent.trim().parse().ok();
            return percent
                .filter(|percent| *percent > 0.0 && *percent <= 100.0)
                .map(Size::Percent)
                .ok_or_else(expected);
        }
        bytes(&text).map(Size::Bytes)
    }
}

/// Reads a number of bytes with an optional unit.
pub fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let scale =
        if unit.is_empty() { Some(1) } else { UNITS.iter().find(|(name, _)| *name == unit).map(|u| u.1) };
    let number: Option<u64> = number.parse().ok();
    number.zip(scale).and_then(|(number, scale)| number.checked_mul(scale)).ok_or_else(expected)
}

/// A number of bytes for people: two digits after the point, binary units.
pub fn show(bytes: u64) -> String {
    for (unit, scale) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= scale {
            return format!("{:.2} {unit}", bytes as f64 / scale as f64);
        }
    }
    format!("{bytes} B")
}

fn expected() -> String {
    "a size such as 512MB, 1GiB, 75% or auto".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, size) in [
            ("auto", Size::Auto),
            ("75%", Size::Percent(75.0)),
            ("512MB", Size::Bytes(512 << 20)),
            ("1GiB", Size::Bytes(1 << 30)),
            ("12gb", Size::Bytes(12 << 30)),
            ("100", Size::Bytes(100)),
            (" 4 k ", Size::Bytes(4096)),
        ] {
            assert_eq!(Size::parse(text), Ok(size), "{text}");
        }
        for bad in ["", "x", "1.5GB", "-1", "0%", "101%", "1XB", "99999999999TB", "GB"] {
            assert!(Size::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(show(3 << 29), "1.50 GiB");
        assert_eq!(show(12), "12 B");
    }
}
