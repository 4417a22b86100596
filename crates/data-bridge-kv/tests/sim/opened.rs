//! The store as one process has it.

use std::sync::{Arc, Weak};

use data_bridge_kv::manifest::Manifest;
use data_bridge_kv::{DataDirectory, Engine, Settings};
use data_bridge_kv_model::Error;
use data_bridge_kv_testkit::disk::FaultyDisk;

use crate::wire::{Plant, Wire};
use crate::world::{Outcome, World};

/// One opening of the store.
pub struct Opened {
    pub engine: Arc<Engine>,
    pub wire: Wire,
}

/// Opens what is on the disk.
pub fn open(disk: &FaultyDisk, settings: &Settings, bystander: Weak<World>, plant: Plant) -> Outcome<Opened> {
    let wire = Wire::new(disk, bystander, plant);
    let told = |error: Error| format!("it does not open: {error}");
    let data = DataDirectory::on(Arc::new(wire.clone()), 1 << 26).map_err(told)?;
    let engine = Engine::open(Settings { data: Some(data), ..settings.clone() }).map_err(told)?;
    Ok(Opened { engine: Arc::new(engine), wire })
}

/// What its versions are counted from.
pub fn base_of(disk: &FaultyDisk) -> u64 {
    Manifest::read(disk).ok().flatten().map_or(0, |manifest| manifest.base)
}
