//! How one RESP request that is a plain engine command is carried out: as a read, write or sum of one value where it is no more
//! than that and nothing stands in the way, otherwise as a command that is built and executed.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use data_bridge_kv::table::Stored;
use data_bridge_kv::{Progress, Turn};
use data_bridge_kv_model::command::Direct;
use data_bridge_kv_model::command::table::Spec;
use data_bridge_kv_model::{Arg, Load};

use super::{Dialogue, KEPT_BYTES, Memory, ROOM_BYTES};
use crate::pending::Pending;
use crate::requests::Request;
use crate::resp::encode::{content, form_of, integer, put_error};
use crate::session::Session;

impl Dialogue {
    /// Carries out one engine command and encodes its reply.
    #[inline]
    pub(super) fn execute(
        &mut self,
        turn: Turn<'_>,
        request: &Request,
        spec: &'static Spec,
        args: &[Arg<'_>],
    ) -> Progress {
        if let Some(direct) = request.direct(spec, args)
            && self.execute_directly(turn, direct)
        {
            return Progress::Done;
        }
        self.execute_built(turn, request, spec, args)
    }

    /// Reads, writes or counts up one value where no more is to be done than that; answers whether that was so.
    #[inline]
    fn execute_directly(&mut self, turn: Turn<'_>, direct: Direct<'_>) -> bool {
        let Session { shared, caller, skin, .. } = &self.session;
        let out = &mut self.out;
        match direct {
            Direct::Read(key) => {
                let show = |stored: Option<Stored<'_>>| content(stored, *skin, out);
                shared.engine.read_ahead(caller, key, turn, show).is_some()
            }
            Direct::Write(key, value) => {
                let is_done = shared.engine.write_ahead(caller, key, value, turn);
                if is_done {
                    out.extend_from_slice(b"+OK\r\n");
                }
                is_done
            }
            Direct::Add(key, by) => {
                let sum = shared.engine.add_ahead(caller, key, by, turn);
                sum.map(|sum| integer(sum, out)).is_some()
            }
        }
    }

    /// Builds a command and executes it.
    fn execute_built(
        &mut self,
        turn: Turn<'_>,
        request: &Request,
        spec: &'static Spec,
        args: &[Arg<'_>],
    ) -> Progress {
        let Memory { replies, encoder, .. } = &mut self.memory;
        let Session { shared, caller, skin, .. } = &self.session;
        match &request.build(spec, args) {
            Ok(command) => {
                let load = Load::of(request.args(args));
                let progress = shared.engine.execute_ahead(caller, (spec, load), command, turn, replies);
                if progress != Progress::Blocked {
                    if replies.len() > ROOM_BYTES {
                        let items = std::mem::take(replies).into_bytes();
                        self.pending = Some(Pending::begin(items, *skin, form_of(command), &mut self.out));
                        return progress;
                    }
                    encoder.reply(replies.as_bytes(), *skin, form_of(command), &mut self.out);
                }
                replies.reset(KEPT_BYTES);
                progress
            }
            Err(error) => {
                put_error(error, &mut self.out);
                Progress::Done
            }
        }
    }
}
