//! The data-bridge KV server: RESP2, RESP3 and the native protocol on one port, an admin port, and the binary data-bridge-kv.
