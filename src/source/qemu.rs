//! `qemu-img`: turns any disk image into plain bytes, once it finds no fault in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use serde::Deserialize;
use serde_json::{Value, json};

use super::raw::RawImage;
use super::words::last_words;
use crate::failure::{Class, with_class};
use crate::progress::{Progress, Step};
use crate::system::{Cmd, Exited, System};
use crate::{refuse, signals};

/// qemu's name of its own format.
pub const QCOW2: &str = "qcow2";
/// qemu's name of VMware's format.
pub const VMDK: &str = "vmdk";
/// qemu's name of plain bytes.
pub const RAW: &str = "raw";

/// Looking at an image takes a moment, however large it is.
const LOOK_LIMIT: Duration = Duration::from_secs(120);
/// Reading a terabyte from a slow disk takes this long.
const CONVERT_LIMIT: Duration = Duration::from_secs(6 * 60 * 60);

/// A disk image in one of qemu's formats.
#[derive(Clone, Debug)]
pub struct Image {
    /// qemu's name of the format.
    pub driver: &'static str,
    /// A short name, for messages.
    pub name: String,
    /// The full name, for messages.
    pub shown: String,
    /// The file it is in.
    pub path: PathBuf,
    /// The offset and length of the part of the file it is, if not all of it.
    pub part: Option<(u64, u64)>,
}

impl Image {
    /// Returns what `qemu-img` opens. Every layer is named, so that it guesses
    /// none and takes no part of a path for a protocol.
    fn spec(&self) -> Result<String> {
        let Some(path) = self.path.to_str() else {
            refuse!(
                "{} has a name that qemu-img cannot be given; rename it",
                self.shown
            );
        };
        let file = json!({ "driver": "file", "filename": path });
        let file = match self.part {
            None => file,
            Some((offset, size)) => json!({
                "driver": "raw",
                "offset": offset,
                "size": size,
                "file": file,
            }),
        };
        let image: Value = json!({ "driver": self.driver, "file": file });
        Ok(format!("json:{image}"))
    }

    /// Returns the size of the image itself.
    fn size_bytes(&self) -> Result<u64> {
        match self.part {
            Some((_, size_bytes)) => Ok(size_bytes),
            None => {
                let meta = fs::metadata(&self.path);
                let meta = meta.with_context(|| format!("looking at {}", self.shown))?;
                Ok(meta.len())
            }
        }
    }

    /// Says that the image is not what it should be.
    fn damage(&self, what: &str) -> Error {
        anyhow!("opening {}: {what}; copy it again", self.shown)
    }

    /// Says what can be done about a failure of `qemu-img`, in the tool's own
    /// words but without the paths that only this process knows.
    fn failure(&self, error: &Error) -> Error {
        let text = format!("{error:#}");
        let way_out = if text.contains("No space left") {
            "the directory for temporary files is full; set TMPDIR to a larger one"
        } else if is_missing(&text) {
            "qemu-img is needed; install it (package qemu-utils or qemu-img)"
        } else {
            "qemu-img cannot read it; copy it again, or export the VM again"
        };
        let words = last_words(error);
        anyhow!("opening {}: {way_out}: {words}", self.shown)
    }
}

/// Writes the bytes of `image` to a temporary file without a name.
///
/// # Errors
/// Class `Refused` when `qemu-img` rejects the image, finds a fault in it, or
/// there is no room.
pub fn convert(sys: &dyn System, image: &Image, progress: &dyn Progress) -> Result<RawImage> {
    let spec = image.spec()?;
    let refused = |error: Error| with_class(Class::Refused, image.failure(&error));
    let size_bytes = virtual_size(sys, &spec).map_err(refused)?;
    check(sys, image, &spec)?;
    let map = data_map(sys, &spec).map_err(refused)?;
    if image.driver == QCOW2 && map.end_in_file > image.size_bytes()? {
        return Err(with_class(Class::Refused, image.damage("it was cut off")));
    }
    let data_bytes = map.data_bytes;
    let raw = RawImage::temporary(size_bytes, data_bytes)?;
    let cmd = convert_cmd(&spec, &raw.path());
    progress.start(Step::Convert(image.name.clone()), Some(data_bytes));
    let result = thread::scope(|scope| {
        let tool = scope.spawn(|| sys.run(&cmd));
        let mut done = 0;
        while !tool.is_finished() {
            thread::sleep(Duration::from_millis(50));
            let now = raw.allocated_bytes()?.min(data_bytes);
            progress.advance(now.saturating_sub(done));
            done = done.max(now);
        }
        match tool.join() {
            Ok(result) => result.map(drop),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    // A terminal's Ctrl-C ends the tool as well; that is no fault of the image.
    signals::check()?;
    result.map_err(refused)?;
    progress.finish();
    Ok(raw)
}

/// Refuses an image in which `qemu-img check` finds more than wasted room.
fn check(sys: &dyn System, image: &Image, spec: &str) -> Result<()> {
    const UNREADABLE: Option<i32> = Some(1);
    const DAMAGED: Option<i32> = Some(2);
    const LEAKS_ONLY: Option<i32> = Some(3);
    const NO_CHECKS: Option<i32> = Some(63);
    let cmd = look_cmd("check", spec).limit(CONVERT_LIMIT);
    let Err(error) = sys.run(&cmd) else {
        return Ok(());
    };
    signals::check()?;
    let exited = error.downcast_ref::<Exited>();
    let refusal = match exited.map(|exited| (exited.status.code(), &exited.words)) {
        Some((LEAKS_ONLY | NO_CHECKS, _)) => return Ok(()),
        Some((UNREADABLE | DAMAGED, words)) => {
            image.damage(&format!("qemu-img finds it damaged or cut off ({words})"))
        }
        _ => image.failure(&error),
    };
    Err(with_class(Class::Refused, refusal))
}

/// Tells whether a program could not even be started.
fn is_missing(text: &str) -> bool {
    text.starts_with("starting ")
}

fn convert_cmd(spec: &str, out: &Path) -> Cmd {
    Cmd::new("qemu-img")
        .args(["convert", "-n", "-O", "raw", spec])
        .arg(out)
        .limit(CONVERT_LIMIT)
        .interruptible()
        .dies_with_us()
}

fn look_cmd(verb: &str, spec: &str) -> Cmd {
    Cmd::new("qemu-img")
        .args([verb, "--output=json", spec])
        .limit(LOOK_LIMIT)
        .interruptible()
        .dies_with_us()
}

/// Asks for the size of the disk as its machine sees it.
fn virtual_size(sys: &dyn System, spec: &str) -> Result<u64> {
    parse_info(&sys.run(&look_cmd("info", spec))?)
}

fn parse_info(text: &str) -> Result<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Info {
        virtual_size: u64,
    }
    let info: Info = serde_json::from_str(text).context("reading qemu-img's answer")?;
    Ok(info.virtual_size)
}

/// Where the data of a disk are.
#[derive(Debug, PartialEq, Eq)]
struct DataMap {
    /// How many bytes of the disk hold data.
    data_bytes: u64,
    /// Where in the file the last cluster ends that is not compressed.
    end_in_file: u64,
}

/// Asks which parts of the disk hold data.
fn data_map(sys: &dyn System, spec: &str) -> Result<DataMap> {
    parse_map(&sys.run(&look_cmd("map", spec))?)
}

fn parse_map(text: &str) -> Result<DataMap> {
    #[derive(Deserialize)]
    struct Stretch {
        length: u64,
        data: bool,
        zero: bool,
        offset: Option<u64>,
    }
    let map: Vec<Stretch> = serde_json::from_str(text).context("reading qemu-img's answer")?;
    let data = || map.iter().filter(|stretch| stretch.data && !stretch.zero);
    let end = |stretch: &Stretch| Some(stretch.offset?.saturating_add(stretch.length));
    Ok(DataMap {
        data_bytes: data().map(|stretch| stretch.length).sum(),
        // Also what `qemu-img` takes for zeros because the file ends before it.
        end_in_file: map.iter().filter_map(end).max().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_every_layer_of_an_image() {
        let image = Image {
            driver: "vmdk",
            name: "d.vmdk".into(),
            shown: "d.vmdk in /tmp/a, b.ova".into(),
            path: "/tmp/a, b.ova".into(),
            part: Some((1536, 1000)),
        };
        assert_eq!(
            convert_cmd(&image.spec().unwrap(), Path::new("/proc/7/fd/9")).to_string(),
            r#"qemu-img convert -n -O raw 'json:{"driver":"vmdk","file":{"driver":"raw","file":{"driver":"file","filename":"/tmp/a, b.ova"},"offset":1536,"size":1000}}' /proc/7/fd/9"#
        );
        let whole = Image {
            driver: "qcow2",
            part: None,
            ..image
        };
        assert_eq!(
            look_cmd("info", &whole.spec().unwrap()).to_string(),
            r#"qemu-img info --output=json 'json:{"driver":"qcow2","file":{"driver":"file","filename":"/tmp/a, b.ova"}}'"#
        );
    }

    #[test]
    fn answers_of_qemu_img_7_are_read() {
        let info = r#"{ "virtual-size": 83886080, "filename": "a.vmdk", "cluster-size": 65536,
            "format": "vmdk", "actual-size": 102400, "dirty-flag": false }"#;
        assert_eq!(parse_info(info).unwrap(), 83_886_080);
        let map = r#"[{ "start": 0, "length": 327680, "depth": 0, "present": true, "zero": false, "data": true, "offset": 65536},
            { "start": 327680, "length": 5177344, "depth": 0, "present": false, "zero": true, "data": false},
            { "start": 5505024, "length": 65536, "depth": 0, "present": true, "zero": true, "data": true}]"#;
        let map = parse_map(map).unwrap();
        assert_eq!((map.data_bytes, map.end_in_file), (327_680, 393_216));
        assert!(parse_info("{}").is_err());
    }
}
