//! The laws of the house as a test. Every rule is a row: a name, a check over the tree, and samples that must break it.
//!
//! Lives here: the list of rules and the two tests that run it. The rules stand in `tidy/`, one file per concern:
//! `layers` (who may import whom inside the engine), `laws` (what only one file may do), `shape` (names, sizes,
//! headers), `reach` (dead files), `hygiene` (what must not be committed).

#[path = "tidy/hygiene.rs"]
mod hygiene;
#[path = "tidy/laws.rs"]
mod laws;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/reach.rs"]
mod reach;
#[path = "tidy/rule.rs"]
mod rule;
#[path = "tidy/rust_source.rs"]
mod rust_source;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/tree.rs"]
mod tree;

use rule::Rule;
use tree::Tree;

fn rules() -> Vec<Rule> {
    [layers::rules(), laws::rules(), shape::rules(), reach::rules(), hygiene::rules()]
        .into_iter()
        .flatten()
        .collect()
}

/// The tree keeps every rule, and no rule looked at nothing.
#[test]
fn the_tree_keeps_every_rule() {
    let tree = Tree::of_workspace();
    let mut failures = Vec::new();
    for rule in rules() {
        let outcome = (rule.check)(&tree);
        let (checked, found, waived) = (outcome.checked, outcome.findings.len(), outcome.waived);
        println!("{checked:>5} items  {found:>2} findings  {waived:>2} waived  {}", rule.name);
        if outcome.checked == 0 {
            failures.push(format!("{}: checked nothing, so it proves nothing", rule.name));
        }
        failures.extend(outcome.findings.iter().map(|finding| format!("{}: {finding}", rule.name)));
    }
    assert!(failures.is_empty(), "{} findings\n{}\n", failures.len(), failures.join("\n"));
}

/// Every rule fires on each of its samples and stays silent on its clean ones.
#[test]
fn every_rule_fires_on_its_samples() {
    let mut samples = 0;
    for rule in rules() {
        assert!(!rule.breaking.is_empty(), "{} has no sample that breaks it", rule.name);
        for sample in &rule.breaking {
            let outcome = (rule.check)(&Tree::of_sample(sample));
            assert!(!outcome.findings.is_empty(), "{} did not fire on {sample:?}", rule.name);
            samples += 1;
        }
        for sample in &rule.clean {
            let outcome = (rule.check)(&Tree::of_sample(sample));
            assert!(outcome.checked > 0, "{} checked nothing in {sample:?}", rule.name);
            assert!(
                outcome.findings.is_empty(),
                "{} fired on {sample:?}: {}",
                rule.name,
                outcome.findings[0]
            );
            samples += 1;
        }
    }
    println!("{samples} samples");
}
