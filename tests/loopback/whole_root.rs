//! A whole Debian root: built, unpacked onto a new file system, and compared
//! by rsync in both directions.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use va_upgrade::build::{BuildOptions, build};
use va_upgrade::bundle::{Codec, PackMode, PackPlan, Sealed, Trust, UnpackOptions, unpack};
use va_upgrade::progress::Silent;
use va_upgrade::source::Reader;
use va_upgrade::system::Host;
use va_upgrade::tree::digest::digest_tree;

use super::disk::{FileSystem, run, text};

const ROOT_MIB: u64 = 3 << 10;

/// What Debian's root has none of outside of /dev.
const ODDITIES: &str = r#"
    mkdir -p "$1/srv/odd/inherits"
    cd "$1/srv/odd"
    mknod null c 1 3
    mknod disk b 4000 1000000
    mkfifo fifo
    echo odd >file
    ln file "$1/var/lib/another-name"
    setfacl -m u:1234:rw,g:5678:r file
    setfacl -m d:u:1234:rwx,u:99:x inherits
    setfattr -n user.note -v 'a=b%c' file
    setfattr -n trusted.on.link -v 1 -h "$1/bin"
    setfattr -n security.selinux -v system_u:object_r:etc_t:s0 file
    truncate -s 5G holes
    echo data | dd of=holes bs=1 seek=3G conv=notrunc status=none
    touch -d @-1.5 fifo
    chown 4000000000:3000000 file
    chmod 6751 file"#;

/// Compares two trees but for what is never packed, and prints what it would
/// take to make the second of them like the first.
fn differences(from: &Path, to: &Path) -> String {
    let (from, to) = (format!("{}/", text(from)), format!("{}/", text(to)));
    let mut args = vec!["-aHAXn", "--checksum", "--itemize-changes", "--delete"];
    args.extend(["--numeric-ids", "--modify-window=-1"]);
    let hollow = ["dev", "proc", "run", "sys", "tmp"].map(|dir| format!("--exclude=/{dir}/*"));
    args.extend(hollow.iter().map(String::as_str));
    args.extend(["--exclude=/lost+found", &from, &to]);
    run("rsync", &args)
}

/// Builds a bundle of the tree, in little time rather than small.
fn build_from(tree: &Path, dir: &Path) -> PathBuf {
    let release = dir.join("release.yaml");
    fs::write(&release, "{product: Gateway, version: '12'}").unwrap();
    let options = BuildOptions {
        environment: false,
        source: tree.to_owned(),
        output: dir.join("whole.vab"),
        release,
        key: None,
        result: None,
        root: None,
        data_volumes: Vec::new(),
        plan: PackPlan {
            level: 0,
            window_bytes: 256 << 10,
            ..PackPlan::new(Codec::Xz, PackMode::Default)
        },
        threads: 2,
        settings: Vec::new(),
        reader: Reader::Kernel,
        clamp: false,
    };
    build(&Host::new(false), &options, &Silent).unwrap_or_else(|e| panic!("{e:#}"));
    options.output
}

#[test]
#[ignore = "makes a Debian root, for which the first run needs the network"]
fn rsync_sees_no_difference_after_the_round_trip() {
    let made = run(
        concat!(env!("CARGO_MANIFEST_DIR"), "/benches/debian-root"),
        &[],
    );
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| dir.path().join(name);
    Host::new(false).enter_private_mounts().unwrap();
    let source = FileSystem::make(dir.path(), "ext4", "source", ROOT_MIB, &[]);
    source.while_mounted(&at("from"), |tree| {
        run("cp", &["-a", &format!("{}/.", made.trim()), text(tree)]);
        run("bash", &["-euc", ODDITIES, "bash", text(tree)]);
        // It is not packed: nobody could answer at its other end.
        drop(UnixListener::bind(tree.join("srv/odd/socket")).unwrap());
        let bundle = build_from(tree, dir.path());
        let target = FileSystem::make(dir.path(), "ext4", "target", ROOT_MIB, &[]);
        target.while_mounted(&at("to"), |slot| {
            let sealed = Sealed::open(&bundle).unwrap();
            let (bundle, _) = sealed.authenticate(Trust::Anyone).unwrap();
            let digest = bundle.manifest().tree.digest;
            unpack(bundle, slot, &UnpackOptions::new(2), &Silent)
                .unwrap_or_else(|e| panic!("{e:#}"));
            assert_eq!(differences(tree, slot), "cS+++++++++ srv/odd/socket\n");
            assert_eq!(differences(slot, tree), "*deleting   srv/odd/socket\n");
            assert_eq!(digest_tree(slot, 2, &Silent).unwrap(), digest);
        });
    });
}
