//! What a sequence does, decided by its seed before anything runs, so that it can be shrunk.

use data_bridge_kv_model::command::table::{COUNTED, by_opcode, opcode};
use data_bridge_kv_testkit::workload::{KEYS, Request, Workload};

/// When every sequence starts, unix ms.
pub const START: u64 = 1_700_000_000_000;
const STEPS: usize = 40;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A command alone.
    Run(Request),
    /// Several in one call.
    Batch(Vec<Request>),
    /// Several as one step.
    Atomic { requests: Vec<Request>, abort: bool, watched: Vec<Watched> },
    /// The clock moves; the engine expires what is due if `ticks`.
    Pause { ms: u64, ticks: bool },
}

/// A key that must still have its version.
#[derive(Clone, Debug)]
pub struct Watched {
    pub key: &'static str,
    /// Whether the version is the one that it has, so that the step runs.
    pub holds: bool,
}

/// A sequence.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub steps: Vec<Step>,
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut workload = Workload::new(seed, START);
        let mut steps = Vec::new();
        while steps.len() < STEPS {
            let ms = workload.pause();
            if ms > 0 {
                workload.now += ms;
                steps.push(Step::Pause { ms, ticks: workload.below(2) == 0 });
            }
            steps.push(match workload.below(10) {
                0 => Step::Batch((0..2 + workload.below(4)).map(|_| workload.request()).collect()),
                1 => atomic(&mut workload),
                _ => Step::Run(workload.request()),
            });
        }
        Plan { seed, steps }
    }

    pub fn lines(&self) -> String {
        self.steps.iter().map(|step| format!("  {}\n", step.line())).collect()
    }
}

fn atomic(workload: &mut Workload) -> Step {
    let abort = workload.below(2) == 0;
    let count = 1 + workload.below(4);
    let mut requests = Vec::new();
    while requests.len() < count {
        let request = workload.request();
        let walks = by_opcode(request.opcode).is_none_or(|spec| spec.keys.first == 0 && !spec.has(COUNTED));
        // What a random pick was can't be told from the error of an undone step.
        let untold = abort && request.opcode == opcode::SPOP;
        if !walks && !untold {
            requests.push(request);
        }
    }
    let watched = (0..workload.below(3))
        .map(|_| Watched { key: KEYS[workload.below(KEYS.len())], holds: workload.below(4) > 0 })
        .collect();
    Step::Atomic { requests, abort, watched }
}

impl Step {
    pub fn line(&self) -> String {
        let lines = |requests: &[Request]| requests.iter().map(Request::line).collect::<Vec<_>>().join("; ");
        match self {
            Step::Run(request) => request.line(),
            Step::Batch(requests) => format!("batch {}", lines(requests)),
            Step::Atomic { requests, abort, watched } => {
                format!("atomic abort={abort} watched={watched:?} {}", lines(requests))
            }
            Step::Pause { ms, ticks } => format!("pause {ms} ms, ticks={ticks}"),
        }
    }
}

/// Leaves steps out as long as what remains still fails; the plan with its failure.
pub fn shrink(mut plan: Plan, fails: impl Fn(&Plan) -> Option<String>) -> (Plan, String) {
    let mut why = fails(&plan).expect("the plan fails");
    let mut size = plan.steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < plan.steps.len() {
            let mut smaller = plan.clone();
            smaller.steps.drain(at..plan.steps.len().min(at + size));
            match fails(&smaller) {
                Some(reason) => (plan, why) = (smaller, reason),
                None => at += size,
            }
        }
        size /= 2;
    }
    (plan, why)
}
