//! The RESP2 and RESP3 skin: bytes to arguments, reply items to bytes.
//!
//! `parse` reads requests, `inline` plain command lines, `scan` finds the end of a request that arrives in pieces,
//! `encode` writes replies. Nothing here executes anything.

pub mod encode;
pub mod inline;
pub mod parse;
pub mod scan;
