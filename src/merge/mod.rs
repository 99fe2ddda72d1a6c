//! Merges one configuration file three ways: what the old release brought, what
//! the customer made of it, what the new image brings. Pure: bytes in, bytes out.
//!
//! # What happens, in order
//!
//! 1. [`merge`] takes a side that nobody changed as it is.
//! 2. A format with keys goes to [`keyed`]: [`choice`] decides each key, the text
//!    is a merge by line if that says just what was decided, else the image's with
//!    keys of the customer put in. Whatever comes out is read again and compared with
//!    what was decided; a text that says anything else is never handed out.
//! 3. The rest goes to [`lines`].
//! 4. What cannot be merged is the customer's whole file, and a conflict.
//!
//! # The formats
//!
//! - [`key_value`], [`key_word`], [`ini`], [`yaml`], [`hosts`] cut a text into
//!   [`units`], which [`edit`] puts together again
//! - [`json`] has commas to look after and edits by itself
//! - [`sudoers`] is merged by line and never put in another order

mod choice;
mod edit;
mod format;
mod hosts;
mod ini;
mod json;
mod key_value;
mod key_word;
mod keyed;
mod lines;
mod sudoers;
mod units;
mod yaml;

#[cfg(test)]
mod tests;

use anyhow::{Result, bail};

pub use format::Format;

/// Larger files are not merged, only taken whole.
pub const LARGEST_BYTES: usize = 1 << 20;

/// The key of a [`Conflict`] about the whole file.
pub const WHOLE_FILE: &str = "*";

/// The versions of one file.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// The old release's own; `None` where nobody knows it, or it had none.
    pub pristine: Option<&'a [u8]>,
    /// What the old system has.
    pub customer: &'a [u8],
    /// What the new image brings.
    pub image: &'a [u8],
}

/// What came of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The file for the new system.
    pub content: Vec<u8>,
    /// Where the customer's setting won over the image's.
    pub conflicts: Vec<Conflict>,
}

/// A setting that both sides changed, each in its own way; the customer's won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Such as `section/key`, in lower case where the format does not care;
    /// [`WHOLE_FILE`] where the image's file was set aside as a whole.
    pub key: String,
    /// The customer's value, `None` where it was taken out or for a whole file.
    pub customer: Option<String>,
    /// The image's value, likewise.
    pub image: Option<String>,
}

/// Merges a file that is written as `format` says.
///
/// `only` names the keys that are carried over: `key`, `section/key`, or the beginning
/// of one with `*` behind it, such as `section/*`. Everything else is the image's then.
/// Without names, every key is carried.
///
/// Where the old release's own file is not known, the customer's value wins, and nothing
/// counts as taken out.
///
/// # Errors
///
/// Fails where `only` names keys and they cannot be put into the image's file.
pub fn merge(format: Format, sides: &Sides<'_>, only: &[String]) -> Result<Merged> {
    let Sides {
        pristine,
        customer,
        image,
    } = *sides;
    if customer == image || pristine == Some(customer) {
        return Ok(Merged::clean(image));
    }
    if only.is_empty() && pristine == Some(image) {
        return Ok(Merged::clean(customer));
    }
    let Some(texts) = Texts::of(sides) else {
        return whole(customer, only, "it is no text of at most 1 MiB");
    };
    match format {
        Format::Lines | Format::Sudoers if !only.is_empty() => {
            bail!("a file that is merged by line has no keys to pick")
        }
        Format::Lines => {
            Ok(lines::merge(&texts).map_or_else(|| set_aside(customer), Merged::clean))
        }
        Format::Sudoers => {
            Ok(sudoers::merge(&texts).map_or_else(|| set_aside(customer), Merged::clean))
        }
        _ => match keyed::merge(format, &texts, only) {
            Some(merged) => Ok(merged),
            None => whole(customer, only, "its settings cannot be told apart safely"),
        },
    }
}

/// The versions of one file as text.
struct Texts<'a> {
    pristine: Option<&'a str>,
    customer: &'a str,
    image: &'a str,
}

impl<'a> Texts<'a> {
    fn of(sides: &Sides<'a>) -> Option<Texts<'a>> {
        let pristine = match sides.pristine {
            Some(bytes) => Some(as_text(bytes)?),
            None => None,
        };
        Some(Texts {
            pristine,
            customer: as_text(sides.customer)?,
            image: as_text(sides.image)?,
        })
    }
}

fn as_text(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > LARGEST_BYTES || bytes.contains(&0) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

impl Merged {
    fn clean(content: impl Into<Vec<u8>>) -> Merged {
        Merged {
            content: content.into(),
            conflicts: Vec::new(),
        }
    }
}

fn whole(customer: &[u8], only: &[String], why: &str) -> Result<Merged> {
    if !only.is_empty() {
        bail!("the file cannot be merged by key, since {why}; carry it whole or not at all");
    }
    Ok(set_aside(customer))
}

/// Takes the customer's file instead of the image's.
fn set_aside(customer: &[u8]) -> Merged {
    Merged {
        content: customer.to_vec(),
        conflicts: vec![Conflict {
            key: WHOLE_FILE.to_owned(),
            customer: None,
            image: None,
        }],
    }
}
