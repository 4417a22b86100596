//! What happened in runs, so that they can be seen to have done something.

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub commands: u64,
    pub refused: u64,
    pub shown: u64,
    pub pushed: u64,
    pub between: u64,
    pub power_cuts: u64,
    pub kills: u64,
    pub closes: u64,
    pub lost: u64,
    pub faults: u64,
    pub full: u64,
    pub checkpoints: u64,
    pub snapshots: u64,
    pub fetched: u64,
    pub failed_openings: u64,
    pub trims: u64,
}

impl Counts {
    fn each(&mut self) -> [&mut u64; 16] {
        [
            &mut self.commands,
            &mut self.refused,
            &mut self.shown,
            &mut self.pushed,
            &mut self.between,
            &mut self.power_cuts,
            &mut self.kills,
            &mut self.closes,
            &mut self.lost,
            &mut self.faults,
            &mut self.full,
            &mut self.checkpoints,
            &mut self.snapshots,
            &mut self.fetched,
            &mut self.failed_openings,
            &mut self.trims,
        ]
    }

    pub fn add(&mut self, other: &Counts) {
        let mut other = *other;
        self.each().into_iter().zip(other.each()).for_each(|(sum, more)| *sum += *more);
    }

    /// Everything happened, about once a seed at least.
    pub fn check_each(mut self, seeds: u64) {
        assert!(self.each().into_iter().all(|count| *count > seeds / 3), "{self:?}");
    }
}
