//! `qemu-img`: turns any disk image into plain bytes, once it finds no fault in it.
//!
//! What it reads was made to be parsed by it, so it has no rights and no more than the
//! files it is [lent](super::lent).

mod map;

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lent::{self, Lent};
use super::raw::RawImage;
use super::vmdk::Split;
use super::words::last_words;
use crate::failure::{Class, with_class};
use crate::progress::{Progress, Step};
use crate::signals;
use crate::system::{Cmd, Exited, System, User};
use map::DataMap;

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

/// Looked for in these places where the caller names none.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A disk image in one of qemu's formats.
pub struct Image {
    /// qemu's name of the format.
    pub driver: &'static str,
    /// A short name, for messages.
    pub name: String,
    /// The full name, for messages.
    pub shown: String,
    /// The files it is in.
    pub bytes: Bytes,
}

/// The open files of an image.
pub enum Bytes {
    /// One file, or the offset and length of the part of it.
    File(File, Option<(u64, u64)>),
    /// Those that a VMDK's descriptor names.
    Split(Split),
}

/// An image as `qemu-img` gets it.
struct Access {
    /// qemu's name of the format.
    driver: &'static str,
    /// The offset and length of the part of the file it is, if not all of it.
    part: Option<(u64, u64)>,
    /// Who reads it.
    user: Option<User>,
    /// The files that it takes, of which the first is opened.
    lent: Vec<Lent>,
}

impl Bytes {
    fn files(&self) -> &[File] {
        match self {
            Bytes::File(file, _) => std::slice::from_ref(file),
            Bytes::Split(split) => split.files(),
        }
    }

    /// Returns how long they are.
    fn size_bytes(&self) -> Result<u64> {
        if let Bytes::File(_, Some((_, size_bytes))) = self {
            return Ok(*size_bytes);
        }
        let sizes = self.files().iter().map(|file| Ok(file.metadata()?.len()));
        sizes.sum()
    }

    fn lend(&self) -> Result<Vec<Lent>> {
        match self {
            Bytes::File(file, _) => Ok(vec![Lent::new(file)?]),
            Bytes::Split(split) => split.lend(),
        }
    }
}

impl Image {
    /// Lends the image to `qemu-img`.
    fn lend(&self) -> Result<Access> {
        let part = match self.bytes {
            Bytes::File(_, part) => part,
            Bytes::Split(_) => None,
        };
        Ok(Access {
            driver: self.driver,
            part,
            user: lent::reader_of(self.bytes.files())?,
            lent: self.bytes.lend()?,
        })
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
        } else if is_missing(error) {
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
    let access = image.lend()?;
    let refused = |error: Error| with_class(Class::Refused, image.failure(&error));
    let size_bytes = virtual_size(sys, &access).map_err(refused)?;
    check(sys, image, &access)?;
    let map = data_map(sys, &access).map_err(refused)?;
    if image.driver == QCOW2 && map.end_in_file > image.bytes.size_bytes()? {
        return Err(with_class(Class::Refused, image.damage("it was cut off")));
    }
    let data_bytes = map.data_bytes;
    let raw = RawImage::temporary(size_bytes, data_bytes)?;
    let out = Lent::new(raw.file())?;
    let cmd = access.convert_cmd(&out);
    lent::let_write(raw.file())?;
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
    lent::keep(raw.file())?;
    Ok(raw)
}

/// Refuses an image in which `qemu-img check` finds more than wasted room.
fn check(sys: &dyn System, image: &Image, access: &Access) -> Result<()> {
    const UNREADABLE: Option<i32> = Some(1);
    const DAMAGED: Option<i32> = Some(2);
    const LEAKS_ONLY: Option<i32> = Some(3);
    const NO_CHECKS: Option<i32> = Some(63);
    let cmd = access.look_cmd("check").limit(CONVERT_LIMIT);
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

/// Tells whether a program could not even be started, also by setpriv(1).
fn is_missing(error: &Error) -> bool {
    const NOT_EXECUTED: [i32; 2] = [126, 127];
    let code = error
        .downcast_ref::<Exited>()
        .and_then(|exited| exited.status.code());
    code.is_some_and(|code| NOT_EXECUTED.contains(&code))
        || format!("{error:#}").starts_with("starting ")
}

impl Access {
    /// Returns what `qemu-img` opens. Every layer is named, so that it guesses none.
    fn spec(&self) -> String {
        let file = json!({ "driver": "file", "filename": self.lent[0].path() });
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
        format!("json:{image}")
    }

    fn convert_cmd(&self, out: &Lent) -> Cmd {
        let args = ["convert", "-n", "-O", "raw", &self.spec(), &out.path()];
        self.cmd().args(args).limit(CONVERT_LIMIT)
    }

    fn look_cmd(&self, verb: &str) -> Cmd {
        let args = [verb, "--output=json", &self.spec()];
        self.cmd().args(args).limit(LOOK_LIMIT)
    }

    fn cmd(&self) -> Cmd {
        let path = env::var_os("PATH").unwrap_or_else(|| OsString::from(PATH));
        let cmd = Cmd::new("qemu-img")
            .without_environment()
            .env("PATH", path)
            .interruptible()
            .dies_with_us();
        match self.user {
            Some(user) => cmd.confined(user),
            None => cmd,
        }
    }
}

/// Asks for the size of the disk as its machine sees it.
fn virtual_size(sys: &dyn System, access: &Access) -> Result<u64> {
    parse_info(&sys.run(&access.look_cmd("info"))?)
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

/// Asks which parts of the disk hold data.
fn data_map(sys: &dyn System, access: &Access) -> Result<DataMap> {
    let cmd = access.look_cmd("map").limit(CONVERT_LIMIT);
    let mut map = DataMap::default();
    sys.run_reading(&cmd, &mut |answer| {
        map = map::read(answer)?;
        Ok(())
    })?;
    Ok(map)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn commands_name_every_layer_of_an_image_and_its_open_file() {
        let image = |part| Image {
            driver: "vmdk",
            name: "d.vmdk".into(),
            shown: "d.vmdk in /tmp/a, b.ova".into(),
            bytes: Bytes::File(tempfile::tempfile().unwrap(), part),
        };
        let part = image(Some((1536, 1000)));
        let access = part.lend().unwrap();
        let (file, out) = (access.lent[0].path(), Lent::new(&part.bytes.files()[0]));
        let out = out.unwrap();
        assert_eq!(
            access.convert_cmd(&out).to_string(),
            format!(
                r#"qemu-img convert -n -O raw 'json:{{"driver":"vmdk","file":{{"driver":"raw","file":{{"driver":"file","filename":"{file}"}},"offset":1536,"size":1000}}}}' {}"#,
                out.path()
            )
        );
        let whole = image(None);
        let access = whole.lend().unwrap();
        let cmd = access.look_cmd("info");
        assert_eq!(
            cmd.to_string(),
            format!(
                r#"qemu-img info --output=json 'json:{{"driver":"vmdk","file":{{"driver":"file","filename":"{}"}}}}'"#,
                access.lent[0].path()
            )
        );
        assert!(cmd.has_own_environment() && cmd.is_to_die_with_us());
        assert_eq!(cmd.user(), access.user);
    }

    #[test]
    fn a_qemu_img_that_is_not_there_is_told_from_one_that_fails() {
        let image = Image {
            driver: QCOW2,
            name: "d".into(),
            shown: "d".into(),
            bytes: Bytes::File(tempfile::tempfile().unwrap(), None),
        };
        for (status, word) in [(127, "install it"), (1, "copy it again")] {
            let status = ExitStatus::from_raw(status << 8);
            let words = "no such file".to_owned();
            let error = Error::new(Exited { status, words }).context("`qemu-img info`");
            let told = image.failure(&error).to_string();
            assert!(told.contains(word), "{told}");
        }
    }

    #[test]
    fn the_size_that_qemu_img_7_tells_is_read() {
        let info = r#"{ "virtual-size": 83886080, "filename": "a.vmdk", "cluster-size": 65536,
            "format": "vmdk", "actual-size": 102400, "dirty-flag": false }"#;
        assert_eq!(parse_info(info).unwrap(), 83_886_080);
        assert!(parse_info("{}").is_err());
    }
}
