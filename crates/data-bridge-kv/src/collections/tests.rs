//! Collections against naive models: a vector that is searched from the front.

use data_bridge_kv_model::identity::same_identity;
use data_bridge_kv_model::{Kind, Value, ValueRef};
use proptest::prelude::*;

use super::*;

fn cases() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 192 })
    }
}

/// Members of many kinds; few enough that they meet again, some of one identity in several forms.
fn member() -> impl Strategy<Value = Value> {
    const DECIMALS: [&str; 7] = ["1.0", "1.00", "-0", "0", "12.5", "1E+3", "1000"];
    prop_oneof![
        4 => (0i64..60).prop_map(Value::Int),
        4 => (0u32..60).prop_map(|number| Value::Text(format!("member number {number}").into())),
        2 => (0u32..60).prop_map(|number| Value::Bytes(format!("member number {number}").into_bytes().into())),
        1 => (0usize..4).prop_map(|len| Value::Text("x".repeat(len * 60).into())),
        1 => prop::sample::select(&DECIMALS[..]).prop_map(|text| Value::Decimal(text.parse().expect("valid"))),
        1 => prop::sample::select(&[0.0, -0.0, 1.5, f64::NAN, -f64::NAN][..]).prop_map(Value::Float),
        1 => (0i64..3).prop_map(|number| Value::Tuple(vec![Value::Int(number), Value::Text("t".into())])),
    ]
}

fn packed(value: &Value) -> Packed {
    Packed::new(&value.encode())
}

fn same(one: &Packed, other: &Packed) -> bool {
    same_identity(one.value(), other.value())
}

fn bytes_of<'a>(elements: impl IntoIterator<Item = &'a Packed>) -> Vec<Vec<u8>> {
    elements.into_iter().map(|element| element.as_bytes().to_vec()).collect()
}

/// What is true of every collection: its codec bytes are valid, as long as it says, and lead back to it; its
/// memory is that of its elements and a bounded rest.
fn check(collection: &Collection, elements: &[&Packed]) {
    let mut encoded = Vec::new();
    collection.encode_into(&mut encoded);
    assert_eq!(encoded.len(), collection.encoded_len());
    let value = ValueRef::decode(&encoded).expect("a collection encodes to a valid value");
    assert_eq!(value.kind(), collection.kind());
    let again = Collection::decode(value).expect("it is a collection");
    let mut second = Vec::new();
    again.encode_into(&mut second);
    assert_eq!(second, encoded);
    assert_eq!(again.len(), collection.len());

    let heap: usize = elements.iter().map(|element| element.heap_bytes()).sum();
    let memory = collection.memory_bytes();
    let least = heap + elements.len() * size_of::<Packed>();
    assert!(memory >= least && memory <= heap + elements.len() * 160 + 2048, "{memory} {least}");
}

#[derive(Clone, Debug)]
enum ListOp {
    Push(Value, bool),
    Pop(bool),
    Set(usize, Value),
    Insert(usize, Value),
    Remove(usize),
    RemoveWhere(usize, bool, i64),
    Trim(usize, usize),
}

fn list_op() -> impl Strategy<Value = ListOp> {
    prop_oneof![
        12 => (member(), any::<bool>()).prop_map(|(value, front)| ListOp::Push(value, front)),
        4 => any::<bool>().prop_map(ListOp::Pop),
        2 => (0usize..40, member()).prop_map(|(index, value)| ListOp::Set(index, value)),
        2 => (0usize..40, member()).prop_map(|(index, value)| ListOp::Insert(index, value)),
        2 => (0usize..40).prop_map(ListOp::Remove),
        1 => (0usize..4, any::<bool>(), 0i64..60).prop_map(|(limit, back, n)| ListOp::RemoveWhere(limit, back, n)),
        1 => (0usize..30, 0usize..90).prop_map(|(start, end)| ListOp::Trim(start, end)),
    ]
}

fn apply_list(list: &mut List, model: &mut Vec<Packed>, op: &ListOp) {
    match op {
        ListOp::Push(value, true) => {
            list.push_front(packed(value));
            model.insert(0, packed(value));
        }
        ListOp::Push(value, false) => {
            list.push_back(packed(value));
            model.push(packed(value));
        }
        ListOp::Pop(front) => {
            let popped = if *front { list.pop_front() } else { list.pop_back() };
            let index = if *front { 0 } else { model.len().saturating_sub(1) };
            let expected = (!model.is_empty()).then(|| model.remove(index));
            assert_eq!(bytes_of(&popped), bytes_of(&expected));
        }
        ListOp::Set(index, value) => {
            let old = list.set(*index, packed(value));
            assert_eq!(old.is_some(), *index < model.len());
            if let Some(place) = model.get_mut(*index) {
                *place = packed(value);
            }
        }
        ListOp::Insert(index, value) => {
            list.insert(*index, packed(value));
            model.insert((*index).min(model.len()), packed(value));
        }
        ListOp::Remove(index) => {
            let removed = list.remove(*index);
            let expected = (*index < model.len()).then(|| model.remove(*index));
            assert_eq!(bytes_of(&removed), bytes_of(&expected));
        }
        ListOp::RemoveWhere(limit, from_back, number) => {
            let wanted = packed(&Value::Int(*number));
            let taken = list.remove_where(*limit, *from_back, |element| same(element, &wanted));
            let mut expected = 0;
            while expected < *limit {
                let mut places = (0..model.len()).filter(|place| same(&model[*place], &wanted));
                let Some(place) = (if *from_back { places.next_back() } else { places.next() }) else {
                    break;
                };
                model.remove(place);
                expected += 1;
            }
            assert_eq!(taken, expected);
        }
        ListOp::Trim(start, end) => {
            list.trim(*start, *end);
            *model = model.iter().take(*end).skip(*start).cloned().collect();
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn list_behaves_like_a_vector(ops in prop::collection::vec(list_op(), 1..150)) {
        let (mut list, mut model) = (List::default(), Vec::new());
        for op in &ops {
            apply_list(&mut list, &mut model, op);
            prop_assert_eq!(bytes_of(list.iter()), bytes_of(&model));
        }
        prop_assert_eq!(bytes_of(list.range(2, 9)), bytes_of(model.iter().take(9).skip(2)));
        prop_assert_eq!(list.get(3).map(Packed::as_bytes), model.get(3).map(Packed::as_bytes));
        check(&Collection::List(list), &model.iter().collect::<Vec<_>>());
    }

    #[test]
    fn hash_behaves_like_pairs_in_order(
        ops in prop::collection::vec((member(), proptest::option::weighted(0.6, member())), 1..300),
    ) {
        let mut hash = Fields::default();
        let mut model: Vec<(Packed, Packed)> = Vec::new();
        for (field, value) in &ops {
            let field = packed(field);
            let place = model.iter().position(|(other, _)| same(other, &field));
            prop_assert_eq!(hash.contains(field.value()), place.is_some());
            match (value, place) {
                (Some(value), Some(place)) => {
                    prop_assert!(!hash.insert(field.value(), packed(value).value()));
                    model[place].1 = packed(value);
                }
                (Some(value), None) => {
                    prop_assert!(hash.insert(field.value(), packed(value).value()));
                    model.push((field, packed(value)));
                }
                (None, place) => {
                    let removed = hash.remove(field.value());
                    let expected = place.map(|place| model.remove(place));
                    prop_assert_eq!(
                        removed.map(|(field, value)| bytes_of([&field, &value])),
                        expected.map(|(field, value)| bytes_of([&field, &value]))
                    );
                }
            }
            prop_assert_eq!(bytes_of(hash.iter().map(|(field, _)| field)), bytes_of(model.iter().map(|(field, _)| field)));
        }
        for (field, value) in &model {
            prop_assert_eq!(hash.get(field.value()).map(Packed::as_bytes), Some(value.as_bytes()));
        }
        let elements: Vec<&Packed> = model.iter().flat_map(|(field, value)| [field, value]).collect();
        check(&Collection::Hash(hash), &elements);
    }

    #[test]
    fn a_scan_of_a_set_meets_what_stays(
        stay in 0i64..400,
        churn in prop::collection::vec((400i64..800, any::<bool>()), 0..1500),
        count in 1usize..20,
    ) {
        let mut set = Set::default();
        let mut sorted = SortedSet::new(Kind::Float).expect("floats are scores");
        // Those that come and go stand between those that stay.
        for number in 0..stay {
            for member in [number, 400 + number] {
                let member = packed(&Value::Int(member));
                set.insert(member.value());
                sorted.insert(Score::Float(-(number as f64)), member.value());
            }
        }
        let (mut seen, mut seen_sorted) = (Vec::new(), Vec::new());
        let (mut cursor, mut cursor_sorted, mut churn) = (0, 0, churn.iter());
        let (mut open, mut open_sorted) = (true, true);
        while open || open_sorted {
            if open {
                cursor = set.scan(cursor, count, |member| seen.extend(member.value().as_int()));
                open = cursor != 0;
            }
            if open_sorted {
                cursor_sorted =
                    sorted.scan(cursor_sorted, count, |member, _| seen_sorted.extend(member.value().as_int()));
                open_sorted = cursor_sorted != 0;
            }
            for (number, put) in churn.by_ref().take(30) {
                let member = packed(&Value::Int(*number));
                if *put {
                    set.insert(member.value());
                    sorted.insert(Score::Float(*number as f64), member.value());
                } else {
                    set.remove(member.value());
                    sorted.remove(member.value());
                }
            }
        }
        for number in 0..stay {
            prop_assert!(seen.contains(&number) && seen_sorted.contains(&number), "{}", number);
        }
    }

    #[test]
    fn sorted_set_behaves_like_a_sorted_vector(
        ops in prop::collection::vec((member(), proptest::option::weighted(0.7, -5i32..5)), 1..300),
        decimal: bool,
    ) {
        let score = |number: i32| match decimal {
            true => Score::Decimal(i64::from(number).into()),
            false => Score::Float(f64::from(number)),
        };
        let mut set = SortedSet::new(score(0).kind()).expect("both kinds are scores");
        let mut model: Vec<(i32, Packed)> = Vec::new();
        for (member, number) in &ops {
            let member = packed(member);
            let place = model.iter().position(|(_, other)| same(other, &member));
            let old = place.map(|place| model.remove(place));
            match number {
                Some(number) => {
                    let expected = match &old {
                        None => Inserted::Added,
                        Some((old, _)) if old == number => Inserted::Unchanged,
                        Some((old, _)) => Inserted::Changed(score(*old)),
                    };
                    prop_assert_eq!(set.insert(score(*number), member.value()), expected);
                    model.push((*number, old.map_or(member, |(_, member)| member)));
                    model.sort_by(|one, other| one.0.cmp(&other.0).then_with(|| naive_order(&one.1, &other.1)));
                }
                None => {
                    let removed = set.remove(member.value());
                    prop_assert_eq!(
                        removed.map(|(member, score)| (member.as_bytes().to_vec(), score)),
                        old.map(|(number, member)| (member.as_bytes().to_vec(), score(number)))
                    );
                }
            }
            prop_assert_eq!(bytes_of(set.iter().map(|(member, _)| member)), bytes_of(model.iter().map(|(_, member)| member)));
        }
        for (rank, (number, member)) in model.iter().enumerate() {
            prop_assert_eq!(set.rank(member.value()), Some(rank));
            prop_assert_eq!(set.score(member.value()), Some(score(*number)));
        }
        for bound in -6..6 {
            let below = model.iter().filter(|(number, _)| *number < bound).count();
            let upto = model.iter().filter(|(number, _)| *number <= bound).count();
            prop_assert_eq!(set.rank_of_score(score(bound), false), Some(below));
            prop_assert_eq!(set.rank_of_score(score(bound), true), Some(upto));
        }
        let elements: Vec<&Packed> = model.iter().map(|(_, member)| member).collect();
        check(&Collection::SortedSet(set), &elements);
    }
}

proptest! {
    #![proptest_config(cases())]

    /// What is neither Text nor Bytes is before no bytes at all.
    #[test]
    fn a_sorted_set_of_one_score_counts_members_before_bytes(
        members in prop::collection::vec(member(), 0..400),
        bounds in prop::collection::vec(prop_oneof![member(), "[a-z]{0,2}".prop_map(|text| Value::Text(text.into()))], 1..20),
    ) {
        let mut set = SortedSet::new(Kind::Float).expect("floats are scores");
        for member in &members {
            set.insert(Score::Float(1.0), packed(member).value());
        }
        let mut counted = 0;
        for bound in bounds.iter().map(packed) {
            let Some(bound) = bound.value().content() else { continue };
            let count = |is_before: &dyn Fn(&[u8]) -> bool| {
                set.iter().filter(|(member, _)| member.value().content().is_some_and(is_before)).count()
            };
            prop_assert_eq!(set.rank_of_content(bound, false), count(&|content| content < bound));
            prop_assert_eq!(set.rank_of_content(bound, true), count(&|content| content <= bound));
            counted += 1;
        }
        prop_assume!(counted > 0);
    }
}

/// Contents first and bytewise, then everything else by codec bytes.
fn naive_order(one: &Packed, other: &Packed) -> std::cmp::Ordering {
    let key = |member: &Packed| match member.value().content() {
        Some(content) => (0, content.to_vec()),
        None => (1, member.as_bytes().to_vec()),
    };
    key(one).cmp(&key(other))
}

#[test]
fn a_large_sorted_set_keeps_ranks_through_splits_and_joins() {
    let count: u64 = if cfg!(miri) { 600 } else { 20_000 };
    let mut set = SortedSet::new(Kind::Float).expect("floats are scores");
    // A multiplicative walk over a prime's residues: distinct scores in no order.
    let scores: Vec<f64> = (1..=count).map(|number| (number * 7_919 % 1_000_003) as f64).collect();
    let member = |score: f64| packed(&Value::Text(format!("m{score}").into()));
    for score in &scores {
        assert_eq!(set.insert(Score::Float(*score), member(*score).value()), Inserted::Added);
    }
    let mut sorted = scores.clone();
    sorted.sort_by(f64::total_cmp);
    for remaining in [sorted.len(), sorted.len() / 3, 40, 0] {
        while set.len() > remaining {
            let rank = (set.len() * 7) % set.len().max(1) / 2;
            let removed = set.remove_rank(rank).expect("the rank is below the length");
            assert_eq!(removed.1, Score::Float(sorted.remove(rank)));
        }
        let ranged: Vec<Score> = set.iter().map(|(_, score)| score).collect();
        assert_eq!(ranged, sorted.iter().map(|score| Score::Float(*score)).collect::<Vec<_>>());
        let (from, to) = (remaining / 4, remaining / 2 + 1);
        let backwards: Vec<Score> = set.range(from, to).rev().map(|(_, score)| score).collect();
        let expected: Vec<Score> =
            sorted.iter().take(to).skip(from).rev().map(|score| Score::Float(*score)).collect();
        assert_eq!(backwards, expected);
    }
    assert!(set.memory_bytes() < 1024, "{}", set.memory_bytes());
}

#[test]
fn scores_of_the_other_kind_are_refused() {
    let mut set = SortedSet::new(Kind::Decimal).expect("decimals are scores");
    let member = packed(&Value::Int(1));
    assert_eq!(set.insert(Score::Float(1.0), member.value()), Inserted::Refused);
    assert_eq!(set.rank_of_score(Score::Float(1.0), true), None);
    let mut floats = SortedSet::new(Kind::Float).expect("floats are scores");
    assert_eq!(floats.insert(Score::Float(f64::NAN), member.value()), Inserted::Refused);
    assert!(set.is_empty() && floats.is_empty());
    assert!(SortedSet::new(Kind::Int).is_none());
}

#[test]
fn draws_reach_every_member_and_nothing_else() {
    for (members, removed) in [(5i64, 2), (300, 150)] {
        let (mut set, mut sorted) = (Set::default(), SortedSet::new(Kind::Float).expect("floats are scores"));
        for number in 0..members {
            let member = packed(&Value::Int(number));
            set.insert(member.value());
            sorted.insert(Score::Float(0.0), member.value());
        }
        for number in 0..removed {
            let member = packed(&Value::Int(number * 2));
            assert!(set.remove(member.value()).is_some() && sorted.remove(member.value()).is_some());
        }
        let mut state = 1u64;
        let mut below = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        let mut drawn = std::collections::BTreeSet::new();
        let mut drawn_sorted = std::collections::BTreeSet::new();
        for _ in 0..members * 40 {
            drawn.extend(set.random(&mut below).and_then(|member| member.value().as_int()));
            drawn_sorted.extend(sorted.random(&mut below).and_then(|(member, _)| member.value().as_int()));
        }
        assert_eq!(drawn.len() as i64, members - removed);
        assert_eq!(drawn, drawn_sorted);
        let mut popped = 0;
        while set.pop(&mut below).is_some() {
            popped += 1;
        }
        assert_eq!((popped, set.len()), (members - removed, 0));
        assert!(set.memory_bytes() < 1024, "{}", set.memory_bytes());
        assert!(set.random(&mut below).is_none());
    }
}

#[test]
fn a_member_whose_coming_closes_the_holes_hides_no_other() {
    let text = |number: usize| format!("member {number}");
    let mut set = Set::default();
    (0..20).for_each(|number| assert!(set.insert(ValueRef::text(&text(number)))));
    (0..10).for_each(|number| assert!(set.remove(ValueRef::text(&text(number))).is_some()));
    assert!(set.insert(ValueRef::text(&text(20))));
    for number in 10..=20 {
        assert!(set.contains(ValueRef::text(&text(number))), "{number}");
    }
    assert_eq!(set.len(), 11);
}

#[test]
fn a_score_moves_its_member_within_a_block_and_across() {
    let text = |number: usize| format!("member {number}");
    let mut checked = 0;
    for count in [1, 2, 100, 3000] {
        let mut set = SortedSet::new(Kind::Float).expect("a kind of scores");
        let mut scores: Vec<f64> = (0..count).map(|number| number as f64).collect();
        for (number, score) in scores.iter().enumerate() {
            set.insert(Score::Float(*score), ValueRef::text(&text(number)));
        }
        for round in 0..2 * count {
            let number = round * 37 % count;
            // Far and near, up and down, and onto scores of others.
            let score =
                [scores[number] + 1.5, scores[number] - 1.0, (round * 101 % count) as f64, -0.0][round % 4];
            set.insert(Score::Float(score), ValueRef::text(&text(number)));
            scores[number] = score;
            if count <= 100 || round % 500 == 0 {
                let mut expected: Vec<(f64, String)> =
                    scores.iter().enumerate().map(|(number, score)| (*score, text(number))).collect();
                expected.sort_by(|one, other| one.partial_cmp(other).expect("no NaN"));
                let expected: Vec<_> = expected.into_iter().map(|(_, name)| name).collect();
                let found: Vec<_> = set.iter().map(|(member, _)| Value::from_ref(member.value())).collect();
                assert_eq!(
                    found,
                    expected.into_iter().map(|name| Value::Text(name.into())).collect::<Vec<_>>()
                );
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 218);
}
