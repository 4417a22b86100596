//! How many files and sockets the process may have open, and who gets them: the store comes first, as it can't do without;
//! connections get the rest.

use data_bridge_kv::Engine;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Standard streams, listeners, probes, what the runtime has, the log, a snapshot's files.
const OWN: u64 = 128;

/// Raises the limit of open files to the most that the system allows this process: few is what a shell or a container begins
/// with, for the sake of programs that keep numbers of files in sets of a fixed size. Answers the limit; `None` = there is none.
pub fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    // Refused, it is as it was.
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// How the files are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// How many may be open.
    pub limit: Option<u64>,
    /// How many of them the store may come to need.
    pub store: u64,
    /// Most connections, as configured and as taken.
    pub wanted: usize,
    /// The same, as there are files for.
    pub clients: usize,
}

impl Files {
    /// Shares out so many files to this many connections, beside a store with so many bytes on disk.
    pub fn share(limit: Option<u64>, clients: usize, max_disk: Option<u64>) -> Files {
        let store = max_disk.map_or(0, Engine::files_for);
        let most = limit.map_or(u64::MAX, |limit| {
            // Half at least, however large the disk may become.
            limit.saturating_sub(store.saturating_add(OWN).min(limit / 2)).max(1)
        });
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Files { limit, store, wanted: clients, clients: clients.min(most) }
    }

    /// What to tell whoever runs the server, if there are fewer files than was asked for.
    pub fn warning(&self) -> Option<String> {
        let Files { limit, store, wanted, clients } = *self;
        let limit = limit.filter(|_| clients < wanted)?;
        Some(format!(
            "{clients} connections are taken at a time, not max_clients = {wanted}: this process may have {limit} files open \
             (ulimit -Hn), and up to {store} are the data directory's"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_the_store_leaves() {
        let share = |limit, clients, disk| Files::share(limit, clients, disk);
        assert_eq!(share(None, 10_000, Some(1 << 40)).clients, 10_000);
        assert_eq!(share(Some(1 << 20), 10_000, Some(1 << 40)).clients, 10_000);
        let none = share(Some(1024), 10_000, None);
        assert_eq!((none.store, none.clients), (0, 896));
        assert!(none.warning().is_some_and(|text| text.contains("896 connections") && text.contains("1024")));
        assert_eq!(share(Some(1024), 800, None).warning(), None);
        let small = share(Some(1024), 10_000, Some(1 << 30));
        assert_eq!(small.clients, 896 - usize::try_from(small.store).unwrap());
        let large = share(Some(1024), 10_000, Some(100 << 30));
        assert!(large.store > 1600 && large.clients == 512, "{large:?}");
        assert_eq!(share(Some(20), 100, None).clients, 10);
    }
}
