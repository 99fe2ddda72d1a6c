//! What is told of the steps: a short line each, for the console and the log area.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::{Instant, UNIX_EPOCH};

use super::step::Step;
use crate::disk::log_area::LogArea;
use crate::migrate::outcome::StepTime;
use crate::progress::Progress;
use crate::system::System;

/// Tells everybody. What was told before the log area could be opened is written
/// there then.
pub struct Reporter<'a> {
    sys: &'a dyn System,
    progress: &'a dyn Progress,
    step: Cell<Option<Step>>,
    began: Cell<Option<Instant>>,
    /// All lines, with their times.
    lines: RefCell<Vec<(u64, String)>>,
    times: RefCell<Vec<StepTime>>,
    area: RefCell<Option<LogArea>>,
}

impl<'a> Reporter<'a> {
    /// Tells `progress`, with the times of `sys`.
    pub fn new(sys: &'a dyn System, progress: &'a dyn Progress) -> Reporter<'a> {
        Reporter {
            sys,
            progress,
            step: Cell::default(),
            began: Cell::default(),
            lines: RefCell::default(),
            times: RefCell::default(),
            area: RefCell::default(),
        }
    }

    /// Begins a step, which ends the one before.
    pub fn begin(&self, step: Step) {
        self.end();
        self.step.set(Some(step));
        self.began.set(Some(Instant::now()));
    }

    /// Ends the step.
    pub fn end(&self) {
        if let (Some(step), Some(began)) = (self.step.get(), self.began.take()) {
            let time = StepTime::new(step.code(), step.id(), began.elapsed());
            self.times.borrow_mut().push(time);
        }
    }

    /// Returns the step that is being taken, or was last; `None` before the first.
    pub fn step(&self) -> Option<Step> {
        self.step.get()
    }

    /// Returns all that was told.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.borrow();
        lines.iter().map(|(_, line)| line.clone()).collect()
    }

    /// Returns how long each step took that has ended.
    pub fn times(&self) -> Vec<StepTime> {
        self.times.borrow().clone()
    }

    /// Tells something about a step.
    pub fn say(&self, step: Step, text: &str) {
        let line = format!("{step}: {text}");
        self.progress.note(&format!("va-upgrade {line}"));
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
