//! What is told of the steps: a short line each, for the console and the log area.

use std::cell::RefCell;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::step::Step;
use crate::disk::log_area::LogArea;
use crate::progress::Progress;
use crate::system::System;

/// Tells everybody. What was told before the log area could be opened is written
/// there then.
pub struct Reporter<'a> {
    sys: &'a dyn System,
    progress: &'a dyn Progress,
    /// All lines, with their times.
    lines: RefCell<Vec<(u64, String)>>,
    area: RefCell<Option<LogArea>>,
}

impl<'a> Reporter<'a> {
    /// Tells `progress`, with the times of `sys`.
    pub fn new(sys: &'a dyn System, progress: &'a dyn Progress) -> Reporter<'a> {
        Reporter {
            sys,
            progress,
            lines: RefCell::default(),
            area: RefCell::default(),
        }
    }

    /// Tells something about a step.
    pub fn say(&self, step: Step, text: &str) {
        let line = format!("{step}: {text}");
        self.progress.note(&line);
        let time = now(self.sys);
        self.write(time, &line);
        self.lines.borrow_mut().push((time, line));
    }

    /// Opens the log area of `disk` for the run of this number, and writes all that
    /// was told so far: the area may have been cleared.
    pub fn open_log(&self, disk: &Path, run: u64) {
        match LogArea::open(disk, run) {
            Ok(area) => {
                self.area.replace(Some(area));
            }
            Err(error) => self.warn(&error),
        }
        for (time, line) in self.lines.borrow().iter() {
            self.write(*time, line);
        }
    }

    /// Writes no more into the area: the disk is the old system's again.
    pub fn close_log(&self) {
        self.area.replace(None);
    }

    fn write(&self, time: u64, line: &str) {
        let mut area = self.area.borrow_mut();
        if let Some(log) = area.as_mut()
            && let Err(error) = log.add(time, line)
        {
            *area = None;
            self.warn(&error);
        }
    }

    fn warn(&self, error: &anyhow::Error) {
        let text = format!("the log on the disk is not written: {error:#}");
        self.progress.warn(&text);
    }
}

/// Returns the seconds since 1970.
pub fn now(sys: &dyn System) -> u64 {
    let now = sys.now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
