//! How much memory this process may use: the container's limit, or the machine's memory.

use std::path::{Path, PathBuf};

use super::size::Size;

/// Share of the limit that the budget takes unless one is given, in percent.
const SHARE: f64 = 75.0;
/// The same with a data directory, since the system's cache of its files counts for a container too.
const SHARE_BESIDE_DISK: f64 = 60.0;

/// A limit and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Bytes.
    pub bytes: u64,
    /// What set it, for the start line.
    pub origin: &'static str,
}

/// Where to look: `/` outside of tests.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Default for Host {
    fn default() -> Host {
        Host { root: PathBuf::from("/") }
    }
}

impl Host {
    /// Looks below another root.
    pub fn at(root: &Path) -> Host {
        Host { root: root.to_owned() }
    }

    /// The smallest of the cgroup limits up the path of this process and the machine's memory.
    pub fn limit(&self) -> Option<Found> {
        let candidates = [
            self.machine().map(|bytes| Found { bytes, origin: "the machine's memory" }),
            self.version_two().map(|bytes| Found { bytes, origin: "the container's limit (cgroup v2)" }),
            self.version_one().map(|bytes| Found { bytes, origin: "the container's limit (cgroup v1)" }),
        ];
        candidates.into_iter().flatten().min_by_key(|found| found.bytes)
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path.trim_start_matches('/'))).ok()
    }

    fn machine(&self) -> Option<u64> {
        let text = self.read("proc/meminfo")?;
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
        kib.checked_mul(1024)
    }

    /// The path of this process in a hierarchy: `controller` is empty for version 2.
    fn path_of(&self, controller: &str) -> Option<String> {
        let text = self.read("proc/self/cgroup")?;
        text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let ours = controllers.split(',').any(|name| name == controller);
            ours.then(|| path.to_owned())
        })
    }

    fn version_two(&self) -> Option<u64> {
        let path = self.path_of("")?;
        self.smallest("sys/fs/cgroup", &path, "memory.max")
    }

    fn version_one(&self) -> Option<u64> {
        let path = self.path_of("memory")?;
        self.smallest("sys/fs/cgroup/memory", &path, "memory.limit_in_bytes")
    }

    /// The smallest limit from the process's own group up to the root. In a container the path may name a group
    /// that is not mounted here: then only those above it are there.
    fn smallest(&self, mount: &str, path: &str, file: &str) -> Option<u64> {
        let mut group = Some(Path::new(path.trim_start_matches('/')));
        let mut smallest: Option<u64> = None;
        while let Some(at) = group {
            let file = Path::new(mount).join(at).join(file);
            let limit = self.read(&file.to_string_lossy()).and_then(|text| text.trim().parse().ok());
            smallest = smallest.into_iter().chain(limit).min();
            group = at.parent();
        }
        smallest
    }
}

/// The budget and how it came about, for the start line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes; `u64::MAX` where no limit is known.
    pub bytes: u64,
    /// In words.
    pub origin: String,
}

/// Turns a size into a budget.
pub fn budget(size: Size, has_directory: bool, host: &Host) -> Budget {
    let percent = match size {
        Size::Bytes(bytes) => return Budget { bytes, origin: "as configured".to_owned() },
        Size::Percent(percent) => percent,
        Size::Auto if has_directory => SHARE_BESIDE_DISK,
        Size::Auto => SHARE,
    };
    match host.limit() {
        Some(found) => Budget {
            bytes: (found.bytes as f64 * percent / 100.0) as u64,
            origin: format!("{percent} % of {}, {}", found.origin, super::size::show(found.bytes)),
        },
        None => Budget { bytes: u64::MAX, origin: "no limit found, so none is kept".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use data_bridge_kv_testkit::directory::Directory;

    use super::*;

    /// A made-up machine of these files by path, and their directory.
    fn machine(name: &str, files: &[(&str, &str)]) -> (Host, Directory) {
        let root = Directory::new(name);
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        (Host { root: root.path().to_owned() }, root)
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 5 kB\n");
    const GIB: u64 = 1 << 30;

    #[test]
    fn the_machine_counts_where_no_group_limits() {
        let files = [MEMINFO, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")];
        let machine = machine("none", &files);
        assert_eq!(machine.0.limit().unwrap().bytes, 16 * GIB);
        let half = budget(Size::Percent(50.0), true, &machine.0);
        assert_eq!(half.bytes, 8 * GIB);
        assert_eq!(half.origin, "50 % of the machine's memory, 16.00 GiB");
    }

    #[test]
    fn version_two_takes_the_smallest_limit_up_the_path() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/kubepods/pod1/c1\n"),
            ("sys/fs/cgroup/kubepods/pod1/c1/memory.max", "max\n"),
            ("sys/fs/cgroup/kubepods/pod1/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/kubepods/memory.max", "8589934592\n"),
        ];
        let machine = machine("two", &files);
        assert_eq!(
            machine.0.limit().unwrap(),
            Found { bytes: 2 * GIB, origin: "the container's limit (cgroup v2)" }
        );
        assert_eq!(budget(Size::Auto, false, &machine.0).bytes, 3 * GIB / 2);
        assert_eq!(budget(Size::Auto, true, &machine.0).bytes, 6 * GIB / 5);
    }

    #[test]
    fn a_path_that_is_not_mounted_falls_back_to_the_root_group() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/../elsewhere\n"),
            ("sys/fs/cgroup/memory.max", "1073741824\n"),
        ];
        let machine = machine("namespaced", &files);
        assert_eq!(machine.0.limit().unwrap().bytes, GIB);
    }

    #[test]
    fn version_one_reads_its_own_hierarchy() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        let machine = machine("one", &files);
        assert_eq!(
            machine.0.limit().unwrap(),
            Found { bytes: 512 << 20, origin: "the container's limit (cgroup v1)" }
        );
    }

    #[test]
    fn without_any_limit_there_is_no_budget() {
        let budget = budget(Size::Auto, false, &machine("nothing", &[]).0);
        assert_eq!(budget.bytes, u64::MAX);
        assert_eq!(super::budget(Size::Bytes(7), false, &Host::default()).bytes, 7);
    }
}
