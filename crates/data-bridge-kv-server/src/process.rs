//! What the operating system knows of this process.

use data_bridge_kv::Resident;

/// Clock ticks of a second in `/proc`: a constant of the Linux interface.
const TICKS: f64 = 100.0;

/// Resident memory in bytes; 0 where it can't be read.
pub fn resident_bytes() -> u64 {
    let pages = read("/proc/self/statm").and_then(|text| text.split_ascii_whitespace().nth(1)?.parse().ok());
    pages.map_or(0, |pages: u64| pages.saturating_mul(rustix::param::page_size() as u64))
}

/// What the memory budget of a server is held against.
pub struct Process;

impl Resident for Process {
    fn bytes(&self) -> Option<u64> {
        Some(resident_bytes()).filter(|bytes| *bytes > 0)
    }
}

/// CPU seconds in user and in system mode.
pub fn cpu_seconds() -> (f64, f64) {
    let Some(text) = read("/proc/self/stat") else { return (0.0, 0.0) };
    // The name in brackets may hold blanks.
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    let mut fields = after.split_ascii_whitespace().skip(11).map(|field| field.parse().unwrap_or(0.0));
    (fields.next().unwrap_or(0.0) / TICKS, fields.next().unwrap_or(0.0) / TICKS)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_memory() {
        assert!(resident_bytes() > 100_000);
        assert!(cpu_seconds().0 >= 0.0);
    }
}
