//! Synthetic workloads, each about one thing a policy can get wrong. All are drawn from a fixed seed.

/// A sequence of requests and the capacities to try it with.
pub struct Workload {
    /// What it is about.
    pub name: &'static str,
    /// Requested ids.
    pub ids: Vec<u32>,
    /// Entries that fit.
    pub capacities: &'static [usize],
}

const REQUESTS: usize = 500_000;

/// All of them.
pub fn all() -> Vec<Workload> {
    let workload = |name, ids, capacities| Workload { name, ids, capacities };
    vec![
        workload("zipf 0.7", zipf_of(REQUESTS, 50_000, 0.7), &[100, 1000, 5000]),
        workload("zipf 1.0", zipf_of(REQUESTS, 50_000, 1.0), &[100, 1000, 5000]),
        workload("zipf 1.0 with scans", scans(), &[200, 2000]),
        workload(
            "loop larger than the cache",
            (0..REQUESTS as u32).map(|at| at % 3000).collect(),
            &[300, 1500],
        ),
        workload("zipf 1.0 half, loop half", looped(), &[200, 1000]),
        workload("popularity shifts", shifting(), &[200, 1000, 4000]),
        workload("popularity is replaced", replaced(), &[200, 1000]),
        workload("uniform window, sliding", window(1, 8), &[400, 1000, 2000]),
        workload("uniform window, jumping", window(1600, 12_000), &[800, 1700]),
        workload(
            "newest first, exponential age",
            news(|draw| -(1.0 - draw).ln() * 1000.0),
            &[200, 1000, 3000],
        ),
        workload(
            "newest first, log-uniform age",
            news(|draw| (draw * 20_000_f64.ln()).exp()),
            &[200, 1000, 3000],
        ),
        workload("LRU stack, geometric depth", stack(|draw| -(1.0 - draw).ln() * 300.0), &[200, 1000]),
        workload("LRU stack, log-uniform depth", stack(|draw| (draw * 5000_f64.ln()).exp()), &[200, 1000]),
        workload("each id twice", twice(1000), &[200, 500]),
    ]
}

/// Every id once.
pub fn scan(requests: usize) -> Vec<u32> {
    (0..requests as u32).collect()
}

/// Zipf with exponent 0.9 over so many ids.
pub fn zipf(requests: usize, ids: usize) -> Vec<u32> {
    zipf_of(requests, ids, 0.9)
}

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut drawn = self.0;
        drawn = (drawn ^ drawn >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        drawn = (drawn ^ drawn >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        drawn ^ drawn >> 31
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.unit() * limit as f64) as usize
    }
}

/// Ranks by popularity.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(ids: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let up_to = |rank: usize| {
            sum += (rank as f64).powf(-exponent);
            sum
        };
        Self((1..=ids).map(up_to).collect())
    }

    fn rank(&self, draw: &mut Draw) -> usize {
        let at = draw.unit() * self.0.last().copied().unwrap_or(0.0);
        self.0.partition_point(|up_to| *up_to < at)
    }
}

fn zipf_of(requests: usize, ids: usize, exponent: f64) -> Vec<u32> {
    let (zipf, mut draw) = (Zipf::new(ids, exponent), Draw(1));
    (0..requests).map(|_| zipf.rank(&mut draw) as u32).collect()
}

/// Two thirds popular ids, one third ids that never come back, a thousand in a row.
fn scans() -> Vec<u32> {
    let (zipf, mut draw) = (Zipf::new(20_000, 1.0), Draw(2));
    let request = |at: usize| if at % 3000 < 2000 { zipf.rank(&mut draw) as u32 } else { 20_000 + at as u32 };
    (0..REQUESTS).map(request).collect()
}

fn looped() -> Vec<u32> {
    let (zipf, mut draw) = (Zipf::new(5000, 1.0), Draw(3));
    let request = |at: usize| {
        if at.is_multiple_of(2) { zipf.rank(&mut draw) as u32 } else { 5000 + at as u32 / 2 % 3000 }
    };
    (0..REQUESTS).map(request).collect()
}

/// The hundred most popular ids go and each other moves up, every 5000 requests.
fn shifting() -> Vec<u32> {
    let (zipf, mut draw) = (Zipf::new(20_000, 1.0), Draw(4));
    (0..REQUESTS).map(|at| (zipf.rank(&mut draw) + at / 5000 * 100) as u32).collect()
}

/// All popular ids are new ones, every 50,000 requests.
fn replaced() -> Vec<u32> {
    let (zipf, mut draw) = (Zipf::new(10_000, 0.9), Draw(5));
    (0..REQUESTS).map(|at| (zipf.rank(&mut draw) + at / 50_000 * 10_000) as u32).collect()
}

/// 1600 ids, each as likely, that move on by `step` every so many requests.
fn window(step: usize, every: usize) -> Vec<u32> {
    let mut draw = Draw(6);
    (0..REQUESTS).map(|at| (draw.below(1600) + at / every * step) as u32).collect()
}

/// A new id every six requests, requests for ids of a certain age.
fn news(age: impl Fn(f64) -> f64) -> Vec<u32> {
    let mut draw = Draw(7);
    (0..REQUESTS).map(|at| ((20_000 + at / 6) as f64 - age(draw.unit())).max(0.0) as u32).collect()
}

/// One request in ten for a new id, the others at a depth in the order of use.
fn stack(depth: impl Fn(f64) -> f64) -> Vec<u32> {
    let mut draw = Draw(8);
    let mut order: Vec<u32> = Vec::new();
    let mut new = 0..;
    let mut request = |_| {
        let depth = depth(draw.unit()) as usize;
        let again = draw.unit() >= 0.1 && depth < order.len();
        let id = if again { order.remove(order.len() - 1 - depth) } else { new.next().unwrap_or(0) };
        if order.len() > 20_000 {
            order.drain(..8000);
        }
        order.push(id);
        id
    };
    (0..REQUESTS / 2).map(&mut request).collect()
}

/// Every id is requested again once, up to so many requests later.
fn twice(later: usize) -> Vec<u32> {
    let mut draw = Draw(9);
    let mut due: Vec<Option<u32>> = vec![None; REQUESTS + later + 1];
    let mut new = 0..;
    for at in 0..REQUESTS {
        if due[at].is_none() {
            let id = new.next();
            due[at] = id;
            let again = at + 1 + draw.below(later);
            if let Some(free) = due[again..].iter_mut().find(|slot| slot.is_none()) {
                *free = id;
            }
        }
    }
    due.into_iter().take(REQUESTS).flatten().collect()
}
