//! The removal of every entry of some namespaces, as one record of the log:
//!
//! ```text
//! for each namespace:  u8 its number, varint how many shards it has,
//!                      for each of them u64 LE: the version up to which every entry is gone
//! ```
//! What is newer stays: a record of the cold tier that was written later, for one.

use data_bridge_kv_model::codec::{Reader, put_varint};
use data_bridge_kv_model::{Error, ErrorKind, Result};

/// What stands in front of a namespace's versions, at most.
const FRONT_BYTES: usize = 8;

/// What a clear does to one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// The namespace.
    pub namespace: u8,
    /// For each shard the version up to which every entry is gone.
    pub versions: Vec<u64>,
}

/// Most bytes that a namespace of so many shards takes.
pub fn most_bytes(shards: usize) -> usize {
    FRONT_BYTES + shards * size_of::<u64>()
}

/// Appends what is done to a namespace.
pub fn encode(cleared: &Cleared, out: &mut Vec<u8>) {
    out.push(cleared.namespace);
    put_varint(cleared.versions.len(), out);
    cleared.versions.iter().for_each(|version| out.extend_from_slice(&version.to_le_bytes()));
}

/// What a record does, by namespace.
pub fn decode(payload: &[u8]) -> Result<Vec<Cleared>> {
    let (mut reader, mut all) = (Reader::new(payload), Vec::new());
    while !reader.rest().is_empty() {
        let (namespace, shards) = (reader.byte()?, reader.varint()?);
        if shards > reader.rest().len() / size_of::<u64>() {
            return Err(Error::new(ErrorKind::Corruption, "a clear ends too early"));
        }
        let versions = (0..shards).map(|_| Ok(reader.i64()?.cast_unsigned()));
        all.push(Cleared { namespace, versions: versions.collect::<Result<_>>()? });
    }
    Ok(all)
}

/// The same in words.
pub fn describe(all: &[Cleared]) -> String {
    let of_one = |cleared: &Cleared| {
        let highest = cleared.versions.iter().max().copied().unwrap_or(0);
        let (namespace, shards) = (cleared.namespace, cleared.versions.len());
        format!("clear namespace {namespace}, every key of {shards} shards (up to version {highest})")
    };
    all.iter().map(of_one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> [Cleared; 2] {
        [
            Cleared { namespace: 1, versions: vec![258, 7] },
            Cleared { namespace: 15, versions: (0..300).map(|at| u64::MAX >> 1 | at).collect() },
        ]
    }

    #[test]
    fn every_namespace_comes_back() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|cleared| encode(cleared, &mut bytes));
        assert_eq!(decode(&bytes).unwrap(), samples());
        assert!(bytes.len() <= most_bytes(2) + most_bytes(300));
    }

    #[test]
    fn the_bytes_are_golden() {
        let mut bytes = Vec::new();
        encode(&samples()[0], &mut bytes);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "010202010000000000000700000000000000");
        assert_eq!(
            describe(&decode(&bytes).unwrap()),
            "clear namespace 1, every key of 2 shards (up to version 258)"
        );
    }

    #[test]
    fn every_cut_is_an_error() {
        let mut bytes = Vec::new();
        encode(&samples()[1], &mut bytes);
        for end in 1..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert_eq!(decode(&[]).unwrap(), []);
        // A count that nothing stands behind takes no memory.
        assert!(decode(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    }
}
