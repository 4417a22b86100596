//! The model of a namespace's transition graph: every write of a value is compared with what was there.

use data_bridge_kv_model::Value;

use super::Space;
use super::matching::content;

/// Which states may follow which, in one field of every hash.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The field.
    pub field: String,
    /// From (`None` = no state yet) and to.
    pub edges: Vec<(Option<String>, String)>,
}

impl Graph {
    fn state<'v>(&self, value: Option<&'v Value>) -> Option<&'v Value> {
        let Some(Value::Hash(fields)) = value else { return None };
        let state = fields.iter().find(|(field, _)| content(field) == Some(self.field.as_bytes()));
        state.map(|(_, state)| state)
    }

    fn allows(&self, from: Option<&Value>, to: &Value) -> bool {
        let Some(to) = content(to) else { return false };
        let from = from.map(|from| content(from).unwrap_or_default());
        let is_step = |(start, end): &(Option<String>, String)| {
            start.as_deref().map(str::as_bytes) == from && end.as_bytes() == to
        };
        from == Some(to) || self.edges.iter().any(is_step)
    }
}

impl Space {
    /// Whether the graph lets a key get this value (`None` = its hash lost its last field). A key may be deleted as a
    /// whole, but a hash loses its state neither by its fields nor to another value.
    pub(super) fn allows_step(&self, key: &str, next: Option<&Value>) -> bool {
        let Some(graph) = &self.graph else { return true };
        let from = graph.state(self.get(key).map(|entry| &entry.value));
        match graph.state(next) {
            Some(to) => graph.allows(from, to),
            None => from.is_none(),
        }
    }
}
