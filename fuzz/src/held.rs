//! How much memory a reader holds at a time, next to what it reads.

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a reader may hold however little it reads, in bytes.
const BASE_BYTES: usize = 4 << 20;

/// What it may hold besides for each byte that it reads.
const FACTOR: usize = 64;

/// Does `work` with an input of so many bytes, and panics where it held more at a time
/// than memory linear in that.
pub fn bounded<T>(input_bytes: usize, work: impl FnOnce() -> T) -> T {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let outcome = work();
    let held = MEMORY.peak_usage().saturating_sub(before);
    let limit = BASE_BYTES + FACTOR * input_bytes;
    assert!(
        held <= limit,
        "{held} bytes were held for an input of {input_bytes}; {limit} may be"
    );
    outcome
}
