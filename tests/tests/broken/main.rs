//! What is broken on purpose: runs that are killed, disks that are full, files that are damaged. Each test goes through rounds
//! that their numbers alone decide: a few here, as many as fit into EGOREASONER_BREAK_SECONDS in `cargo xtask break`. Those
//! that start programs are left out without it; `cargo xtask test` names the programs that it has built.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../../../node/tests/common/mod.rs"]
mod common;
mod damage;
mod damaged_chains;
mod damaged_files;
mod disk;
mod files;
mod full_disks;
mod kills;
mod programs;
mod rounds;
