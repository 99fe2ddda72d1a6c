//! Archives that other programs made, unpacked as the payload of a bundle.

use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

use va_upgrade::bundle::{Manifest, Sealed, Trust, UnpackOptions, unpack};
use va_upgrade::progress::Silent;
use xz2::read::XzDecoder;

use crate::forge::{Cut, forge};
use crate::kit::{pack_tree, temp_dir};

/// The largest chunk; none begins with a member, as far as the index says.
const CHUNK_BYTES: usize = 1 << 20;
/// That of an archive which would be one chunk otherwise.
const SMALL_CHUNK_BYTES: usize = 700;

/// Unpacks a tar as a bundle's payload; the manifest's words about the tree are
/// not compared with what comes out.
pub fn unpack_tar(archive: &[u8], target: &Path, options: &UnpackOptions) -> anyhow::Result<()> {
    let dir = temp_dir();
    let path = dir.path().join("foreign.vab");
    let size = match archive.len() {
        0..CHUNK_BYTES => SMALL_CHUNK_BYTES,
        _ => CHUNK_BYTES,
    };
    let cuts: Vec<Cut> = vec![(size, None); archive.len().div_ceil(size)];
    forge(any_manifest(), archive, &cuts, &path);
    let (bundle, _) = Sealed::open(&path)?.authenticate(Trust::Anyone)?;
    unpack(bundle, target, options, &Silent)
}

/// The same for what xz has packed.
pub fn unpack_tar_xz(
    packed: impl Read,
    target: &Path,
    options: &UnpackOptions,
) -> anyhow::Result<()> {
    let mut archive = Vec::new();
    XzDecoder::new_multi_decoder(packed).read_to_end(&mut archive)?;
    unpack_tar(&archive, target, options)
}

fn any_manifest() -> &'static Manifest {
    static MANIFEST: OnceLock<Manifest> = OnceLock::new();
    MANIFEST.get_or_init(|| {
        let dir = temp_dir();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        pack_tree(&tree, &dir.path().join("empty.vab"), 1)
    })
}
