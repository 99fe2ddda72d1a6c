//! `apply` of what can be read only once.

use std::fs;

use anyhow::Result;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::slot::Slot;
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
