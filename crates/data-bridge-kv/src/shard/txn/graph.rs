//! Which steps the transition graph of a namespace allows: every write of a state comes through here.

use data_bridge_kv_model::{Error, ErrorKind, Result, ValueRef};

use super::{Place, Txn};
use crate::table::NewValue;

impl Txn<'_> {
    /// Refuses to write a whole value where the graph does not allow the step: the old or the new one is a hash with a
    /// state.
    #[inline]
    pub(super) fn check_put(&mut self, place: Place<'_>, value: &NewValue<'_>) -> Result<()> {
        if let Some(graph) = &self.space.settings().graph {
            let state = ValueRef::text(graph.field());
            return self.check_field(place, state, value.field(state));
        }
        Ok(())
    }

    /// Refuses to give a field this value (`None` = to remove it) where the field holds the state of the namespace's
    /// transition graph and the graph does not allow the step. Any other field is fine.
    pub fn check_field(
        &mut self,
        place: Place<'_>,
        field: ValueRef<'_>,
        next: Option<ValueRef<'_>>,
    ) -> Result<()> {
        let Some(graph) = &self.space.settings().graph else { return Ok(()) };
        if field.content() != Some(graph.field().as_bytes()) {
            return Ok(());
        }
        let current = self.peek(place).and_then(|entry| entry.value().field(field));
        let from = current.and_then(ValueRef::content);
        let allowed = match next.map(ValueRef::content) {
            Some(Some(to)) => from == Some(to) || graph.allows(from, to),
            Some(None) => false,
            None => current.is_none(),
        };
        let message = "the namespace's transition graph forbids this step";
        if allowed { Ok(()) } else { Err(Error::new(ErrorKind::State, message)) }
    }
}
