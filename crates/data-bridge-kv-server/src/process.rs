//! What the operating system knows of this process.

use std::fs::File;
use std::os::unix::fs::FileExt;

use data_bridge_kv::Resident;

/// Clock ticks of a second in `/proc`: a constant of the Linux interface.
const TICKS: f64 = 100.0;

/// Resident memory in bytes; 0 where it can't be read.
pub fn resident_bytes() -> u64 {
    Process::new().bytes().unwrap_or(0)
}

/// What the memory budget of a server is held against. It looks a hundred times a second: the file stays open, since to open it
/// costs more than all the rest.
pub struct Process {
    statm: Option<File>,
}

impl Process {
    /// This process.
    pub fn new() -> Process {
        Process { statm: File::open("/proc/self/statm").ok() }
    }
}

impl Resident for Process {
    fn bytes(&self) -> Option<u64> {
        let mut text = [0; 128];
        let length = self.statm.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = str::from_utf8(text.get(..length)?).ok()?;
        let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(pages.saturating_mul(rustix::param::page_size() as u64)).filter(|bytes| *bytes > 0)
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
        let process = Process::new();
        let before = process.bytes().unwrap();
        assert!(before > 100_000);
        let taken = vec![7_u8; 64 << 20];
        assert!(process.bytes().unwrap() > before + (32 << 20), "it is looked at again");
        drop(taken);
        assert!(cpu_seconds().0 >= 0.0);
    }
}
