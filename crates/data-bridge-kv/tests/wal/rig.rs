//! A log whose records can be told by their LSN and the life in which they were written, on a disk that crashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_bridge_kv::ManualClock;
use data_bridge_kv::disk::Disk;
use data_bridge_kv::wal::{Lsn, NewRecord, OpenError, Recovered, Wal, WalPolicy};
use data_bridge_kv_testkit::disk::FaultyDisk;

/// All files of a disk.
pub type Image = BTreeMap<String, Vec<u8>>;

/// Small segments, so that there are many.
pub fn policy() -> WalPolicy {
    WalPolicy { segment_bytes: 4096, backlog_bytes: 1 << 20, sync_every_ms: 1000, fingerprint: 77 }
}

/// A log and its disk; the clock stands still until it is moved.
pub struct Rig {
    pub disk: FaultyDisk,
    pub clock: Arc<ManualClock>,
    pub wal: Arc<Wal>,
    pub recovered: Recovered,
    /// Which life wrote the records that opening found, from the first one on.
    pub found: Vec<u32>,
    /// Which life this is.
    pub life: u32,
}

/// The payload of a record: any size up to a few hundred bytes, now and then a large one.
pub fn payload(lsn: Lsn, life: u32) -> Vec<u8> {
    let mixed = lsn.wrapping_add(u64::from(life) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let size = match mixed % 16 {
        0 => 0,
        1 => 1,
        2 => 5000,
        _ => mixed as usize % 300,
    };
    let mut payload = vec![mixed as u8; size];
    payload.iter_mut().zip(mixed.to_le_bytes()).for_each(|(to, from)| *to = from);
    payload
}

/// The envelope of a record.
pub fn head(lsn: Lsn, life: u32) -> NewRecord {
    NewRecord { namespace: (lsn % 16) as u8, generation: life, kind: (lsn % 240) as u8 }
}

impl Rig {
    /// Opens what is there. Every record found is compared with what that life wrote.
    pub fn open(disk: &FaultyDisk, policy: WalPolicy) -> Result<Rig, OpenError> {
        Rig::open_as(disk, policy, 0)
    }

    /// The same, for writing as another life.
    pub fn open_as(disk: &FaultyDisk, policy: WalPolicy, life: u32) -> Result<Rig, OpenError> {
        let clock = Arc::new(ManualClock::new(1_790_000_000_000));
        let mut found = Vec::new();
        let mut next = None;
        let opened =
            Wal::open(Arc::new(disk.clone()), Arc::clone(&clock) as _, policy, &mut |lsn, record| {
                assert_eq!(lsn, next.unwrap_or(lsn), "no gap");
                next = Some(lsn + 1);
                let read = record.head;
                let life = read.generation;
                let read = NewRecord { namespace: read.namespace, generation: life, kind: read.kind };
                assert_eq!(
                    (read, record.payload),
                    (head(lsn, life), payload(lsn, life).as_slice()),
                    "record {lsn}"
                );
                found.push(life);
                Ok(())
            });
        let (wal, recovered) = opened?;
        assert_eq!(recovered.last + 1, recovered.first + found.len() as u64);
        assert_eq!((wal.last(), wal.durable()), (recovered.last, recovered.last));
        Ok(Rig { disk: disk.clone(), clock, wal: Arc::new(wal), recovered, found, life })
    }

    /// An empty log.
    pub fn new() -> Rig {
        Rig::open(&FaultyDisk::new(), policy()).expect("an empty log opens")
    }

    /// Appends the next record.
    pub fn append(&self, urgent: bool) -> Lsn {
        let lsn = self.wal.last() + 1;
        let given = self.wal.append(head(lsn, self.life), &payload(lsn, self.life), urgent);
        assert_eq!(given, lsn, "LSNs grow by one");
        lsn
    }

    /// Appends so many records, each of which is durable before the next.
    pub fn fill(&self, count: usize) {
        for _ in 0..count {
            let lsn = self.append(true);
            self.wal.wait_durable(lsn).expect("durable");
        }
    }
}

/// What is on a disk.
pub fn image(disk: &dyn Disk) -> Image {
    let read = |name: String| {
        let file = disk.open(&name).expect("listed");
        let mut bytes = vec![0; file.size().expect("open") as usize];
        file.read_at(&mut bytes, 0).expect("open");
        (name, bytes)
    };
    disk.list().expect("a directory").into_iter().map(read).collect()
}

/// A disk that has this.
pub fn disk_of(image: &Image) -> FaultyDisk {
    let disk = FaultyDisk::new();
    for (name, bytes) in image {
        let file = disk.create(name).expect("new");
        file.write_at(bytes, 0).expect("writable");
        file.sync_data().expect("writable");
    }
    disk.sync_names().expect("writable");
    disk
}
