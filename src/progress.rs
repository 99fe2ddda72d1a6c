//! How long work tells how far it is; never prints by itself.

/// Receives the progress of one command. Calls may come from several threads.
pub trait Progress: Sync {
    /// Starts a step with a title such as "unpacking"; ends the one before it.
    fn start(&self, step: &str, total_bytes: Option<u64>);
    /// Adds bytes done in the current step.
    fn advance(&self, bytes: u64);
    /// Ends the last step.
    fn finish(&self);
    /// Tells the user something worth a line of its own.
    fn note(&self, text: &str);
}

/// Reports nothing.
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _step: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn finish(&self) {}
    fn note(&self, _text: &str) {}
}
