//! What every [`Disk`] must do while nothing fails: one suite for the real disk and for the double.

use std::io::{self, ErrorKind};

use data_bridge_kv::disk::Disk;

/// A part of the contract, by name.
pub type Clause = (&'static str, fn(&dyn Disk) -> io::Result<()>);

/// All of it. Each clause panics if it is broken, and wants an empty disk.
pub const CLAUSES: &[Clause] = &[
    ("names", names),
    ("bytes", bytes),
    ("sizes", sizes),
    ("renaming", renaming),
    ("removing", removing),
    ("bad names", bad_names),
    ("the lock", the_lock),
    ("free space", free_space),
];

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn names(disk: &dyn Disk) -> io::Result<()> {
    assert!(disk.list()?.is_empty());
    assert_eq!(kind(disk.open("b")), Some(ErrorKind::NotFound));
    disk.create("b")?;
    disk.create("a")?;
    assert_eq!(kind(disk.create("b")), Some(ErrorKind::AlreadyExists));
    disk.sync_names()?;
    assert_eq!(disk.list()?, ["a", "b"]);
    Ok(())
}

fn bytes(disk: &dyn Disk) -> io::Result<()> {
    let file = disk.create("file")?;
    file.write_at(b"hello", 0)?;
    file.write_at(b"world", 10)?;
    file.write_at(b"J", 0)?;
    file.sync_data()?;
    let again = disk.open("file")?;
    let mut read = [0xFF; 15];
    again.read_at(&mut read, 0)?;
    assert_eq!(&read, b"Jello\0\0\0\0\0world");
    again.read_at(&mut read[..3], 12)?;
    assert_eq!(&read[..3], b"rld");
    assert_eq!(kind(again.read_at(&mut read[..3], 13)), Some(ErrorKind::UnexpectedEof));
    assert_eq!(kind(again.read_at(&mut read[..1], 1 << 30)), Some(ErrorKind::UnexpectedEof));
    again.read_at(&mut [], 15)?;
    again.write_at(b"!", 15)?;
    file.read_at(&mut read[..1], 15)?;
    assert_eq!(read[0], b'!', "handles of one file see the same bytes");
    Ok(())
}

fn sizes(disk: &dyn Disk) -> io::Result<()> {
    let file = disk.create("file")?;
    assert_eq!(file.size()?, 0);
    file.write_at(&[7; 100], 0)?;
    file.set_size(50)?;
    file.set_size(60)?;
    let mut read = [1; 60];
    file.read_at(&mut read, 0)?;
    assert_eq!((&read[..50], &read[50..]), (&[7; 50][..], &[0; 10][..]));
    file.allocate(200_000)?;
    assert_eq!(file.size()?, 200_000);
    file.allocate(10)?;
    assert_eq!(file.size()?, 200_000, "what is long enough stays");
    let mut all = vec![1; 200_000];
    file.read_at(&mut all, 0)?;
    assert!(all[..50] == [7; 50] && all[50..].iter().all(|byte| *byte == 0));
    file.sync_data()
}

fn renaming(disk: &dyn Disk) -> io::Result<()> {
    disk.create("new")?.write_at(b"new", 0)?;
    let old = disk.create("old")?;
    old.write_at(b"old", 0)?;
    disk.rename("new", "old")?;
    disk.sync_names()?;
    assert_eq!(disk.list()?, ["old"]);
    let mut read = [0; 3];
    disk.open("old")?.read_at(&mut read, 0)?;
    assert_eq!(&read, b"new");
    old.read_at(&mut read, 0)?;
    assert_eq!(&read, b"old", "an open file is still there");
    assert_eq!(kind(disk.rename("new", "other")), Some(ErrorKind::NotFound));
    disk.rename("old", "old")?;
    assert_eq!(disk.list()?, ["old"]);
    Ok(())
}

fn removing(disk: &dyn Disk) -> io::Result<()> {
    let file = disk.create("file")?;
    file.write_at(b"bytes", 0)?;
    disk.remove("file")?;
    assert_eq!(kind(disk.remove("file")), Some(ErrorKind::NotFound));
    assert!(disk.list()?.is_empty());
    let mut read = [0; 5];
    file.read_at(&mut read, 0)?;
    assert_eq!(&read, b"bytes", "an open file is still there");
    assert_eq!(disk.create("file")?.size()?, 0, "a name can be used again");
    Ok(())
}

fn bad_names(disk: &dyn Disk) -> io::Result<()> {
    let long = "n".repeat(256);
    for name in ["", ".", "..", ".lock", "a/b", "/a", "a\0b", &long] {
        let refused = Some(ErrorKind::InvalidInput);
        assert_eq!(kind(disk.create(name)), refused, "create {name:?}");
        assert_eq!(kind(disk.open(name)), refused, "open {name:?}");
        assert_eq!(kind(disk.remove(name)), refused, "remove {name:?}");
        disk.create("file")?;
        assert_eq!(kind(disk.rename("file", name)), refused, "rename to {name:?}");
        assert_eq!(kind(disk.rename(name, "file")), refused, "rename {name:?}");
        disk.remove("file")?;
    }
    disk.create(&long[1..])?;
    Ok(())
}

fn the_lock(disk: &dyn Disk) -> io::Result<()> {
    let lock = disk.lock()?;
    assert_eq!(kind(disk.lock()), Some(ErrorKind::WouldBlock));
    drop(lock);
    let _again = disk.lock()?;
    assert!(disk.list()?.is_empty(), "the lock is no file");
    Ok(())
}

fn free_space(disk: &dyn Disk) -> io::Result<()> {
    assert!(disk.free_bytes()? > 0);
    Ok(())
}
