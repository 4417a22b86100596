//! Tests of the timer wheel over a model of the table, with the time as a variable.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_790_000_000_123;
const DAY: u64 = 86_400_000;
const YEAR: u64 = 365 * DAY;

/// A table with deadlines that keeps the contract, and notes what expired when.
struct Model {
    wheel: Wheel,
    now: u64,
    deadlines: BTreeMap<u32, u64>,
    expired: Vec<(u32, u64)>,
    looks: usize,
}

impl Model {
    fn new() -> Self {
        Self { wheel: Wheel::new(NOW), now: NOW, deadlines: BTreeMap::new(), expired: Vec::new(), looks: 0 }
    }

    fn set(&mut self, reference: u32, deadline: u64) {
        let before = self.deadlines.insert(reference, deadline);
        if before.is_none_or(|before| deadline < before) {
            self.wheel.insert(reference, deadline);
        }
        if self.wheel.is_crowded(self.deadlines.len()) {
            let deadlines = &self.deadlines;
            self.wheel.sweep(|reference| deadlines.get(&reference).copied());
        }
    }

    /// One call; true if more may be due.
    fn step(&mut self, limit: usize) -> bool {
        let Self { wheel, now, deadlines, expired, looks } = self;
        wheel.advance(*now, limit, |reference, _| {
            *looks += 1;
            let deadline = *deadlines.get(&reference)?;
            if deadline > *now {
                return Some(deadline);
            }
            deadlines.remove(&reference);
            expired.push((reference, *now));
            None
        })
    }

    fn advance(&mut self, by: u64) {
        self.now += by;
        while self.step(7) {}
    }
}

#[test]
fn each_expires_within_a_tick_of_its_deadline() {
    let mut model = Model::new();
    let deadlines: BTreeMap<u32, u64> =
        (0..5000_u64).map(|at| (at as u32, NOW + at * at / 250 + at % 7)).collect();
    deadlines.iter().for_each(|(reference, deadline)| model.set(*reference, *deadline));
    while !model.deadlines.is_empty() {
        model.advance(1);
    }
    assert_eq!((model.expired.len(), model.looks), (5000, 5000), "each is looked at once");
    for (reference, at) in model.expired {
        let deadline = deadlines[&reference];
        let late = at as i64 - deadline as i64;
        assert!(
            (0..=TICK_MS as i64).contains(&late),
            "{reference}: {late} ms late, due at {}",
            deadline - NOW
        );
    }
}

#[test]
fn a_deadline_that_has_passed_expires_with_the_next_tick() {
    let mut model = Model::new();
    model.advance(1000);
    model.set(1, NOW);
    model.advance(TICK_MS);
    assert_eq!(model.expired, [(1, NOW + 1000 + TICK_MS)]);
}

#[test]
fn deadlines_years_away_are_met_and_seldom_looked_at() {
    let mut model = Model::new();
    const LOOKS: usize = 12;
    let far = [4 * DAY, 40 * DAY, YEAR, 10 * YEAR, 100 * YEAR, 1000 * YEAR];
    (0..).zip(far).for_each(|(reference, away)| model.set(reference, NOW + away));
    for (reference, away) in (0..).zip(far) {
        let due = NOW + away;
        model.advance(due - 1 - model.now);
        assert!(model.deadlines.contains_key(&reference), "{reference} expired early");
        model.advance(TICK_MS);
        assert!(!model.deadlines.contains_key(&reference), "{reference} is late");
    }
    assert_eq!(model.looks, LOOKS, "looks at six entries");
}

#[test]
fn the_largest_deadline_is_no_trouble() {
    let mut model = Model::new();
    model.set(1, u64::MAX);
    model.set(2, NOW + 100);
    model.advance(1000 * YEAR);
    assert_eq!((model.deadlines.len(), model.wheel.len(), model.looks), (1, 1, 1));
}

#[test]
fn time_that_jumps_ahead_or_back_loses_nothing() {
    let mut model = Model::new();
    (0..1000).for_each(|at| model.set(at, NOW + u64::from(at) * u64::from(at) * 1000));
    model.advance(500_000_000);
    model.now -= 400_000_000;
    assert!(!model.step(1));
    assert_eq!(model.expired.len(), 708);
    model.now += 100 * YEAR;
    while model.step(100) {}
    assert_eq!((model.expired.len(), model.wheel.len()), (1000, 0));
}

#[test]
fn work_in_one_call_is_bounded_and_older_deadlines_go_first() {
    let mut model = Model::new();
    (0..100_000_u64).for_each(|at| model.set(at as u32, NOW + 10_000 + at / 100));
    model.now += 20_000;
    let mut calls = 0;
    loop {
        let (looks, items) = (model.looks, model.wheel.len());
        let more = model.step(256);
        calls += 1;
        assert!(model.looks - looks <= 256 && items - model.wheel.len() <= 256);
        if !more {
            break;
        }
    }
    assert!((391..500).contains(&calls), "{calls} calls");
    let ticks: Vec<u32> =
        model.expired.iter().map(|(reference, _)| (reference / 100 + 10_000 + 11) / 16).collect();
    assert!(ticks.len() == 100_000 && ticks.is_sorted());
}

#[test]
fn memory_is_little_over_five_bytes_an_item_and_goes_back_down() {
    let mut model = Model::new();
    let fixed = 3 * SLOTS * size_of::<Slot>();
    (0..200_000_u64).for_each(|at| model.set(at as u32, NOW + at * 18));
    let each = (model.wheel.bytes() - fixed) as f64 / 200_000.0;
    assert!(each <= 6.0, "{each:.1} bytes an item");
    (0..40).for_each(|_| model.advance(100_000));
    assert_eq!((model.wheel.len(), model.wheel.bytes()), (0, fixed));
    (0..70_000).for_each(|at| model.set(at, model.now + 3_600_000));
    let each = (model.wheel.bytes() - fixed) as f64 / 70_000.0;
    assert!(each <= 5.3, "{each:.1} bytes an item, all in one slot");
}

#[test]
fn the_same_ttl_set_again_and_again_leaves_one_item() {
    let mut model = Model::new();
    for round in 0..100_000 {
        model.now = NOW + round;
        model.set(1, model.now + 60_000);
    }
    assert_eq!(model.wheel.len(), 1);
    model.advance(60_000 + TICK_MS);
    assert_eq!((model.expired.len(), model.wheel.len()), (1, 0));
}

#[test]
fn deadlines_taken_away_and_given_back_do_not_grow_the_wheel() {
    let mut model = Model::new();
    // These stand in an earlier slot and are no reason to look at it again and again.
    (1000..1010).for_each(|reference| model.set(reference, NOW + 2_000_000));
    for round in 0..200_000_u64 {
        let reference = (round % 100) as u32;
        model.deadlines.remove(&reference);
        model.set(reference, model.now + 3_600_000);
        if round % 10 == 0 {
            model.advance(20);
        }
        assert!(model.wheel.len() < 2000, "{} items for 110 entries in round {round}", model.wheel.len());
    }
    model.advance(3_600_000 + TICK_MS);
    assert_eq!((model.deadlines.len(), model.wheel.len()), (0, 0));
}

#[test]
fn shorter_and_longer_in_turn_do_not_grow_the_wheel() {
    let mut model = Model::new();
    for round in 0..200_000_u64 {
        model.set((round % 50) as u32, model.now + if round / 50 % 2 == 0 { 3_600_000 } else { 60_000 });
        assert!(model.wheel.len() < 2000, "{} items for 50 entries in round {round}", model.wheel.len());
    }
    model.advance(3_600_000 + TICK_MS);
    assert_eq!((model.deadlines.len(), model.wheel.len()), (0, 0));
}

#[test]
fn an_answer_in_the_past_is_asked_for_again_with_the_next_tick() {
    let mut wheel = Wheel::new(NOW);
    wheel.insert(1, NOW);
    for tick in 1..5 {
        let mut looks = 0;
        let more = wheel.advance(NOW + tick * TICK_MS, 10, |_, _| {
            looks += 1;
            Some(NOW)
        });
        assert_eq!((more, looks), (false, 1));
    }
}

#[test]
fn the_wheel_tells_when_to_wake() {
    let mut model = Model::new();
    assert_eq!(model.wheel.wake_ms(), None);
    for away in [1000, 1, 10, 100_000, 10_000_000, YEAR] {
        model.set(1, model.now + away);
        let mut wakes = 0;
        while let Some(wake) = model.wheel.wake_ms() {
            assert!(wake <= model.deadlines[&1] + TICK_MS && wake >= model.now, "woken late or for the past");
            model.advance((wake - model.now).max(1));
            wakes += 1;
        }
        assert!(wakes <= 8 && model.deadlines.is_empty(), "{away}: {wakes} wakes");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(u32, u64),
    Persist(u32),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let away = prop_oneof![0..300_u64, 0..20_000_u64, 0..2_000_000_u64, 0..10 * DAY, 0..20 * YEAR];
    prop_oneof![
        6 => (0..200_u32, away.clone()).prop_map(|(reference, away)| Step::Set(reference, away)),
        2 => (0..200_u32).prop_map(Step::Persist),
        3 => (0..100_u64).prop_map(Step::Advance),
        2 => away.prop_map(Step::Advance),
    ]
}

proptest! {
    /// At any time exactly those entries are gone whose deadline has passed, give or take one tick.
    #[test]
    fn exactly_what_is_due_expires(steps in prop::collection::vec(step(), 1..400)) {
        let mut model = Model::new();
        let mut expected: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Set(reference, away) => {
                    model.set(reference, model.now + away);
                    expected.insert(reference, (model.now + away, model.now));
                }
                Step::Persist(reference) => {
                    model.deadlines.remove(&reference);
                    expected.remove(&reference);
                }
                Step::Advance(by) => model.advance(by),
            }
            let (now, deadlines) = (model.now, &model.deadlines);
            for (reference, (deadline, set_at)) in &expected {
                if deadlines.contains_key(reference) {
                    prop_assert!((*deadline).max(*set_at) + TICK_MS > now, "{} is late", reference);
                } else {
                    prop_assert!(*deadline <= now, "{} expired early", reference);
                }
            }
            expected.retain(|reference, _| deadlines.contains_key(reference));
            prop_assert_eq!(expected.len(), deadlines.len());
            prop_assert!(model.wheel.len() >= deadlines.len());
        }
    }
}
