//! What whoever watches a long run is told, on stderr and past libtest's
//! capture. Tests that run side by side tell what they begin; the demo shows
//! each step on one line, which ends with the time it took.

use std::env;
use std::fmt::Arguments;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;

static SHOWS_STEPS: AtomicBool = AtomicBool::new(false);

/// From now on, shows steps with their times. Only one thing may happen at a
/// time then, or their lines would mix.
pub fn show_steps() {
    SHOWS_STEPS.store(true, Ordering::Relaxed);
}

/// Tells one thing, on a line of its own.
pub fn say(text: &str) {
    static START: OnceLock<Instant> = OnceLock::new();
    let seconds = START.get_or_init(Instant::now).elapsed().as_secs();
    if SHOWS_STEPS.load(Ordering::Relaxed) {
        write(format_args!("{text}\n"));
    } else {
        write(format_args!("[{seconds:5} s] {text}\n"));
    }
}

/// Does `work`, which may take long, and tells beforehand what it is.
pub fn step<T>(text: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if !SHOWS_STEPS.load(Ordering::Relaxed) {
        say(text);
        return work();
    }
    write(format_args!("{} ", dotted(text)));
    let started = Instant::now();
    let result = work();
    write_time(started, &result);
    result
}

/// Does `work`, which itself shows what it does, and tells afterwards how long
/// it took.
pub fn timed<T>(text: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let result = work();
    write(format_args!("{} ", dotted(text)));
    write_time(started, &result);
    result
}

/// Returns `text` filled up with dots, so that times stand below each other.
fn dotted(text: &str) -> String {
    format!("{:.<70}", format!("{text} "))
}

fn write_time<T>(started: Instant, result: &Result<T>) {
    let seconds = started.elapsed().as_secs_f64();
    match result {
        Ok(_) => write(format_args!("{seconds:4.0} s\n")),
        Err(_) => write(format_args!("failed after {seconds:.0} s\n")),
    }
}

/// Writes to stderr as it is.
pub fn write(text: Arguments) {
    // A closed stderr is no reason to fail a test.
    let _ = std::io::stderr().write_fmt(text);
}

/// Names a path as a person would: from the top of the checkout, or from home.
pub fn short(path: &Path) -> String {
    if let Ok(inside) = path.strip_prefix(env!("CARGO_MANIFEST_DIR")) {
        return inside.display().to_string();
    }
    let home = env::var_os("HOME").unwrap_or_default();
    match path.strip_prefix(&home) {
        Ok(inside) if !home.is_empty() => format!("~/{}", inside.display()),
        _ => path.display().to_string(),
    }
}
