#!/bin/sh
# rustc for the workspace's own crates, as cargo calls it (RUSTC_WORKSPACE_WRAPPER): with the counters by which libFuzzer
# sees what an input reaches. cargo-fuzz passes the same flags; no nightly compiler is needed for them.
case " $* " in
*" build_script_build "*) exec "$@" ;;
esac
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
