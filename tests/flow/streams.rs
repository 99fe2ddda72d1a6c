//! `apply` of what can be read only once.

use std::fs;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;

use anyhow::Result;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::slot::Slot;
use va_upgrade::system::Lock;
use va_upgrade::upgrade::apply::{Applied, Input, Options, apply};

use crate::apply::{run, state};
use crate::machine::{Machine, scratch};
use crate::release::make_bundle;

/// Applies a bundle that begins with `bytes` and comes as a stream.
pub fn apply_stream(machine: &Machine, bytes: &[u8]) -> Result<Applied> {
    let options = Options {
        input: Input::Stream(Box::new(std::io::Cursor::new(bytes.to_vec()))),
        allow_unsigned: true,
        allow_downgrade: false,
        dry_run: false,
        stage: false,
        threads: 1,
    };
    machine.with_appliance(|appliance| apply(appliance, options))
}

#[test]
fn a_stream_is_as_good_as_a_file_and_a_broken_one_is_undone() {
    let dir = scratch();
    let bytes = fs::read(make_bundle(dir.path(), "9.4.1")).unwrap();
    for (length, whole) in [(bytes.len(), true), (bytes.len() * 2 / 3, false)] {
        let machine = Machine::fresh();
        let boot = machine.snapshot("/boot");
        let outcome = apply_stream(&machine, &bytes[..length]);
        assert_eq!(outcome.is_ok(), whole);
        if let Err(error) = outcome {
            assert!(
                matches!(class_of(&error), Class::Undone | Class::BadBundle),
                "{error:#}"
            );
            assert!(machine.snapshot("/boot") == boot);
        }
    }
}

/// A stream that sees, before its first byte, whether `lock` is free.
struct Slow {
    lock: PathBuf,
    bytes: Option<Cursor<Vec<u8>>>,
    rest: Vec<u8>,
}

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_none() {
            Lock::take(&self.lock).map_err(io::Error::other)?;
        }
        let rest = std::mem::take(&mut self.rest);
        self.bytes.get_or_insert(Cursor::new(rest)).read(buffer)
    }
}

#[test]
fn a_stream_that_does_not_begin_keeps_nobody_from_the_lock() {
    let dir = scratch();
    let machine = Machine::fresh();
    let slow = Slow {
        lock: machine.at("/run/va-upgrade.lock"),
        bytes: None,
        rest: fs::read(make_bundle(dir.path(), "9.4.1")).unwrap(),
    };
    let options = Options {
        input: Input::Stream(Box::new(slow)),
        allow_unsigned: true,
        allow_downgrade: false,
        dry_run: false,
        stage: false,
        threads: 1,
    };
    let outcome = machine.with_appliance(|appliance| apply(appliance, options));
    assert_eq!(outcome.unwrap().slot, Slot::Back);
}

#[test]
fn a_named_pipe_is_a_stream() {
    let dir = scratch();
    let bytes = fs::read(make_bundle(dir.path(), "9.4.1")).unwrap();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let machine = Machine::fresh();
    std::thread::scope(|scope| {
        scope.spawn(|| fs::write(&pipe, &bytes));
        run(&machine, &pipe).unwrap();
    });
    assert_eq!(state(&machine).unwrap().next(), Slot::Back);
}
