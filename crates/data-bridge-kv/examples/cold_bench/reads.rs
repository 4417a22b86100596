//! Cold reads while the system has nothing of the files in memory, and plain reads of the same files beside them, in turn.
#![expect(clippy::disallowed_types, reason = "what reads are compared with goes past the trait for disks")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};

/// How many reads of each, at most.
const READS: usize = 10_000;
/// Bytes of the files for each of them at least, so that what one read leaves in memory hardly serves another.
const APART: u64 = 64 << 10;

/// The files of the tier that are long enough for a read, synced, and forgotten by the system.
fn forgotten(directory: &Path, length: usize) -> Vec<(File, u64)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let is_segment = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cold-"));
        let file = File::open(path).expect("a file");
        let bytes = file.metadata().expect("a file").len();
        if is_segment && bytes > length as u64 {
            file.sync_all().expect("synced");
            fadvise(&file, 0, None, Advice::DontNeed).expect("forgotten");
            files.push((file, bytes));
        }
    }
    files
}

/// Prints medians of `read`, which reads the n-th entry, and of a plain read of so many bytes.
pub fn run(directory: &Path, entries: usize, length: usize, mut read: impl FnMut(usize)) {
    let files = forgotten(directory, length);
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let (mut ours, mut plain, mut buffer) = (Vec::new(), Vec::new(), vec![0; length]);
    let timed = |times: &mut Vec<f64>, read: &mut dyn FnMut()| {
        let start = Instant::now();
        read();
        times.push(start.elapsed().as_secs_f64() * 1e6);
    };
    let mut random = data_bridge_kv_testkit::random::Random::new(1);
    for _ in 0..READS.min((total / APART) as usize).max(1) {
        let n = random.below(entries);
        timed(&mut ours, &mut || read(n));
        let mut at = random.below(total as usize) as u64;
        let (file, bytes) = files
            .iter()
            .find(|(_, bytes)| {
                let is_here = at < *bytes;
                at -= if is_here { 0 } else { *bytes };
                is_here
            })
            .expect("in one of them");
        let at = at.min(bytes - length as u64);
        timed(&mut plain, &mut || file.read_exact_at(&mut buffer, at).expect("read"));
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    println!("forgotten: {:.2} us a cold read, {:.2} us a plain read", median(&mut ours), median(&mut plain));
}
