//! The real traces: where they are, how they are read, and what others reach on them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

/// A trace, a capacity, and what libCacheSim 0.3.5's S3-FIFO reaches there.
pub struct Row {
    /// Name of the trace.
    pub trace: &'static str,
    /// Objects that fit.
    pub capacity: usize,
    /// Hit ratio in percent.
    pub s3_fifo: f64,
}

const fn row(trace: &'static str, capacity: usize, s3_fifo: f64) -> Row {
    Row { trace, capacity, s3_fifo }
}

/// Every trace with its capacities, 1 to 20 % of its objects.
pub const ROWS: &[Row] = &[
    row("oltp", 1868, 46.46),
    row("oltp", 9344, 62.09),
    row("oltp", 18688, 67.66),
    row("oltp", 37376, 72.45),
    row("orm-busy", 763, 75.64),
    row("orm-busy", 3817, 85.24),
    row("orm-busy", 7634, 88.89),
    row("orm-busy", 15269, 92.72),
    row("multi3", 74, 15.29),
    row("multi3", 372, 36.67),
    row("multi3", 745, 47.72),
    row("multi3", 1490, 55.49),
    row("loop", 50, 4.44),
    row("loop", 101, 8.98),
    row("loop", 202, 17.97),
    row("web12", 137, 40.96),
    row("web12", 687, 64.79),
    row("web12", 1375, 72.12),
    row("web12", 2751, 78.14),
];

/// Every trace of `ROWS` by name, or nothing if one is not there.
pub fn load() -> Option<HashMap<&'static str, Vec<u32>>> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/traces");
    let folder = std::env::var_os("KV_TRACES").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let mut traces = HashMap::new();
    for row in ROWS {
        if !traces.contains_key(row.trace) {
            let file = folder.join(format!("{}.u32le.xz", row.trace));
            let unpacked =
                Command::new("xz").arg("-dc").arg(&file).output().ok().filter(|out| out.status.success())?;
            let words = unpacked.stdout.as_chunks().0.iter();
            traces.insert(row.trace, words.map(|word| u32::from_le_bytes(*word)).collect());
        }
    }
    Some(traces)
}
