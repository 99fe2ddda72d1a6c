//! manifest.yaml: what a bundle is, and the digests of the members that say what
//! is in it. It is all that is signed, and short whatever the tree.
//!
//! The text ends with a checksum of itself, so that damage to an unsigned
//! bundle is noticed too; a signature covers the whole text.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::bundle::codec::Codec;
use crate::cpu::CpuLevel;
use crate::sha::Sha;
use crate::yaml;

/// The newest manifest format this program reads and the one it writes.
pub const FORMAT: u32 = 2;
/// The largest manifest: what PKCS#11 tokens and signing services take whole.
pub const MAX_MANIFEST_BYTES: u64 = 1500;
/// The member that says which chunk is where.
pub const INDEX: &str = "index.json";
/// The largest index accepted.
const MAX_INDEX_BYTES: u64 = 16 << 20;
/// The largest other index member accepted.
const MAX_MEMBER_BYTES: u64 = 256 << 20;
/// More index members than a bundle has.
const MAX_INDEX_MEMBERS: usize = 8;
/// The last second a plain tar header can hold.
pub const MAX_CREATED: u64 = (1 << 33) - 1;
const CHECKSUM_KEY: &str = "checksum: ";

/// The content of manifest.yaml.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of manifest and payload.
    pub format: u32,
    /// The product the bundle is for.
    pub product: String,
    /// The version in the bundle.
    pub version: String,
    /// The oldest version that may be upgraded with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<String>,
    /// The machine architecture, as `uname -m` prints it.
    pub architecture: String,
    /// What the system demands of the CPU.
    pub cpu_level: CpuLevel,
    /// When the bundle was made, in seconds since 1970.
    pub created: u64,
    /// Whether times in the tree that were later have become that.
    #[serde(default, skip_serializing_if = "is_false")]
    pub clamped: bool,
    /// What GRUB loads.
    pub boot: BootFiles,
    /// What the payload unpacks to.
    pub tree: TreeSummary,
    /// The payload as a whole.
    pub payload: Payload,
    /// The members that describe it piece by piece.
    pub index: Vec<IndexMember>,
}

/// The files of the tree that GRUB loads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFiles {
    /// The kernel's release, as in `/lib/modules/RELEASE`.
    pub kernel_release: String,
    /// The kernel's path in the tree, without a leading slash.
    pub kernel: String,
    /// The initramfs's path in the tree, without a leading slash.
    pub initramfs: String,
    /// The kernel's size.
    pub kernel_bytes: u64,
    /// The initramfs's size.
    pub initramfs_bytes: u64,
}

/// What a tree amounts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeSummary {
    /// Names in the tree, the root directory included.
    pub entries: u64,
    /// Inodes in the tree: entries without further names of a file.
    pub inodes: u64,
    /// File data without holes, each file rounded up to 4 KiB.
    pub data_bytes: u64,
    /// The digest that [`digest_tree`](crate::tree::digest::digest_tree) finds in the unpacked tree.
    pub digest: Sha,
}

/// The payload as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// The member of the bundle that holds it.
    pub member: String,
    /// How its chunks are packed.
    pub codec: Codec,
    /// Its size in the bundle.
    pub packed_bytes: u64,
    /// The size of the tar stream inside.
    pub size_bytes: u64,
}

/// A member that stands between the signatures and the payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexMember {
    /// Its name in the bundle.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The digest of its bytes.
    pub sha256: Sha,
}

impl Manifest {
    /// Renders the text that is signed, its own checksum in the last line.
    ///
    /// # Errors
    /// When the manifest breaks the rules [`Manifest::parse`] enforces.
    pub fn render(&self) -> Result<String> {
        self.check()?;
        let mut text = serde_yaml::to_string(self).context("rendering the manifest")?;
        let sum = Sha::of(text.as_bytes());
        text.push_str(&format!("{CHECKSUM_KEY}{sum}\n"));
        ensure!(
            text.len() as u64 <= MAX_MANIFEST_BYTES,
            "the manifest has {} bytes, more than {MAX_MANIFEST_BYTES}; use a shorter product or version",
            text.len()
        );
        Ok(text)
    }

    /// Reads the text of a manifest and checks everything it claims about the payload.
    ///
    /// # Errors
    /// When it is damaged, of an unknown format or contradicts itself.
    pub fn parse(text: &[u8]) -> Result<Manifest> {
        let text = str::from_utf8(text).context("the manifest is not text")?;
        let body = check_sum(text)?;
        let manifest: Manifest = match yaml::parse(body) {
            Ok(manifest) => manifest,
            Err(error) => {
                // A later format may have other fields.
                if let Ok(Probe { format }) = yaml::parse(body) {
                    check_format(format)?;
                }
                return Err(error.context("the manifest is unreadable"));
            }
        };
        check_format(manifest.format)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        check_product(&self.product)?;
        check_version("version", &self.version)?;
        if let Some(version) = &self.min_version {
            check_version("min_version", version)?;
        }
        check_version("architecture", &self.architecture)?;
        check_version("kernel_release", &self.boot.kernel_release)?;
        check_path("kernel", &self.boot.kernel)?;
        check_path("initramfs", &self.boot.initramfs)?;
        ensure!(
            self.created <= MAX_CREATED,
            "created is {}, after the year 2242",
            self.created
        );
        ensure!(
            self.payload.member == self.payload.codec.member(),
            "payload member {:.80?} does not belong to its codec",
            self.payload.member
        );
        self.check_index()
    }

    fn check_index(&self) -> Result<()> {
        let names: Vec<&str> = self.index.iter().map(|member| &*member.name).collect();
        ensure!(
            names.first() == Some(&INDEX) && names.len() <= MAX_INDEX_MEMBERS,
            "the index members are {names:.100?}, not up to {MAX_INDEX_MEMBERS} with {INDEX} first"
        );
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        for member in &self.index {
            let limit = match member.name.as_str() {
                INDEX => MAX_INDEX_BYTES,
                _ => MAX_MEMBER_BYTES,
            };
            ensure!(
                (1..=64).contains(&member.name.len()) && member.name.chars().all(legal),
                "index member {:.80?} has a strange name",
                member.name
            );
            ensure!(
                member.bytes <= limit,
                "index member {} has {} bytes, more than {limit}",
                member.name,
                member.bytes
            );
        }
        Ok(())
    }

    /// Returns the index member called `name`.
    pub fn index_member(&self, name: &str) -> Option<&IndexMember> {
        self.index.iter().find(|member| member.name == name)
    }
}

#[derive(Deserialize)]
struct Probe {
    format: u32,
}

fn check_format(format: u32) -> Result<()> {
    ensure!(
        format == FORMAT,
        "the bundle has format {format}, this va-upgrade reads format {FORMAT}; use a newer one"
    );
    Ok(())
}

/// Checks the last line against the rest and returns the rest.
fn check_sum(text: &str) -> Result<&str> {
    let start = text
        .trim_end_matches('\n')
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let (body, last) = text.split_at(start);
    let sum = last
        .strip_prefix(CHECKSUM_KEY)
        .and_then(|rest| rest.strip_suffix('\n'));
    match sum {
        Some(sum) if sum == Sha::of(body.as_bytes()).to_string() => Ok(body),
        Some(_) => bail!("the manifest is damaged: it does not match its own checksum"),
        None => bail!("the manifest is damaged: it does not end with its checksum"),
    }
}

/// Refuses product names that could not stand on one line of a message.
pub fn check_product(product: &str) -> Result<()> {
    let legal = |c: char| c == ' ' || c.is_ascii_graphic();
    ensure!(
        (1..=128).contains(&product.len())
            && product.chars().all(legal)
            && product.trim() == product,
        "product {product:.130?} is not 1 to 128 printable ASCII characters"
    );
    Ok(())
}

/// Refuses versions that could not be compared or be part of a file name.
pub fn check_version(field: &str, version: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._+~:-".contains(c);
    ensure!(
        (1..=128).contains(&version.len()) && version.chars().all(legal),
        "{field} {version:.130?} is not 1 to 128 letters, digits and ._+~:- characters"
    );
    Ok(())
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference over"
)]
fn is_false(value: &bool) -> bool {
    !value
}

fn check_path(field: &str, path: &str) -> Result<()> {
    const MAX_BYTES: usize = 255;
    let sane = |name: &str| !name.is_empty() && name != "." && name != "..";
    ensure!(
        path.len() <= MAX_BYTES && path.split('/').all(sane) && !path.contains(char::is_control),
        "{field} is {path:.100?}, not a path inside the tree"
    );
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn sample() -> Manifest {
        Manifest {
            format: FORMAT,
            product: "ACME Gateway".into(),
            version: "9.4.1".into(),
            min_version: None,
            architecture: "x86_64".into(),
            cpu_level: CpuLevel::V2,
            created: 1_700_000_000,
            clamped: false,
            boot: BootFiles {
                kernel_release: "6.1.0-28-amd64".into(),
                kernel: "boot/vmlinuz-6.1.0-28-amd64".into(),
                initramfs: "boot/initrd.img-6.1.0-28-amd64".into(),
                kernel_bytes: 8_000_000,
                initramfs_bytes: 40_000_000,
            },
            tree: TreeSummary {
                entries: 3,
                inodes: 2,
                data_bytes: 4096,
                digest: Sha::of(b"tree"),
            },
            payload: Payload {
                member: "rootfs.tar.xz".into(),
                codec: Codec::Xz,
                packed_bytes: 30,
                size_bytes: 3072,
            },
            index: vec![IndexMember {
                name: INDEX.into(),
                bytes: 300,
                sha256: Sha::of(b"index"),
            }],
        }
    }

    #[test]
    fn a_manifest_is_read_back_and_unknown_fields_are_ignored() {
        let text = sample().render().unwrap();
        assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), sample());
        let body = format!("{}later: 1\n", check_sum(&text).unwrap());
        let newer = format!("{body}checksum: {}\n", Sha::of(body.as_bytes()));
        assert_eq!(Manifest::parse(newer.as_bytes()).unwrap(), sample());
    }

    #[test]
    fn any_flipped_bit_of_a_manifest_is_noticed() {
        let text = sample().render().unwrap().into_bytes();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::parse(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn manifests_that_lie_are_refused_by_name() {
        type Lie = fn(&mut Manifest);
        let lies: [(Lie, &str); 11] = [
            (|m| m.index.clear(), "index members are []"),
            (|m| m.index[0].name = "else.json".into(), "index.json first"),
            (|m| m.index[0].bytes = u64::MAX, "index.json has"),
            (|m| m.index.resize(9, m.index[0].clone()), "not up to 8"),
            (|m| m.payload.member = "../x".into(), "payload member"),
            (|m| m.boot.kernel = "/boot/k".into(), "kernel is"),
            (|m| m.boot.kernel = "boot/../../k".into(), "kernel is"),
            (|m| m.boot.kernel = "k".repeat(256), "kernel is"),
            (|m| m.boot.kernel_release = "6.1\n".into(), "kernel_release"),
            (|m| m.version = String::new(), "version"),
            (|m| m.created = u64::MAX, "created"),
        ];
        for (lie, word) in lies {
            let mut manifest = sample();
            lie(&mut manifest);
            let body = serde_yaml::to_string(&manifest).unwrap();
            let text = format!("{body}checksum: {}\n", Sha::of(body.as_bytes()));
            let error = format!("{:#}", Manifest::parse(text.as_bytes()).unwrap_err());
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn a_later_format_is_refused_before_its_fields_are_looked_at() {
        let body = "format: 3\nsomething: else\n";
        let text = format!("{body}checksum: {}\n", Sha::of(body.as_bytes()));
        let error = Manifest::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("format 3"), "{error}");
    }

    #[test]
    fn a_manifest_is_short_whatever_it_says() {
        let mut manifest = sample();
        manifest.product = "P".repeat(128);
        for version in [&mut manifest.version, &mut manifest.boot.kernel_release] {
            *version = "9".repeat(64);
        }
        manifest.min_version = Some("8".repeat(64));
        manifest.boot.kernel = format!("boot/vmlinuz-{}", "9".repeat(64));
        manifest.boot.initramfs = format!("boot/initrd.img-{}", "9".repeat(64));
        (manifest.created, manifest.payload.packed_bytes) = (MAX_CREATED, 1 << 50);
        manifest.index.push(IndexMember {
            name: "files.jsonl.xz".into(),
            bytes: MAX_MEMBER_BYTES,
            sha256: Sha::of(b"files"),
        });
        let text = manifest.render().unwrap();
        assert!(text.len() as u64 <= MAX_MANIFEST_BYTES, "{text}");
        manifest.boot.kernel = "k".repeat(255);
        manifest.boot.initramfs = "i".repeat(255);
        manifest.boot.kernel_release = "9".repeat(128);
        let error = manifest.render().unwrap_err().to_string();
        assert!(error.contains("use a shorter product"), "{error}");
    }
}
