//! A place to run the program in: a directory, and an `/etc` and a `/run` that
//! only the program sees.

#![expect(
    clippy::disallowed_methods,
    reason = "the program under test is run as its callers run it"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use va_upgrade::boot::record::SlotRecord;
use va_upgrade::boot::state::State;
use va_upgrade::slot::Slot;
use va_upgrade::system::Lock;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_va-upgrade");

/// Packs `tree` as `x.vab`, unsigned.
pub const BUILD: [&str; 7] = [
    "build",
    "tree",
    "-o",
    "x.vab",
    "--release",
    "release.yaml",
    "--unsigned",
];

/// Needs a mount namespace, where the mounts of this script end with it. The
/// desk of an appliance also has a `/boot`, a `/sys` and a `/proc`, which mount(8)
/// needs until the end.
const SETTING: &str = r#"cd "$1" && shift && for dir in run etc boot sys proc
    do [ ! -d $dir ] || mount --bind $dir /$dir || exit; done && exec "$@""#;

/// What a run of the program came to.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

pub struct Desk {
    dir: TempDir,
}

impl Desk {
    /// Makes a desk with a signing key, its public half trusted nowhere, and a
    /// release.yaml.
    pub fn new() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let desk = Desk { dir };
        // mount(8) keeps a directory of its own in /run.
        for name in ["run/mount", "etc/va-upgrade/trusted.d", "keys", "empty"] {
            fs::create_dir_all(desk.at(name)).unwrap();
        }
        desk.write("release.yaml", "product: gateway\nversion: 9.4.1\n");
        desk.make_key("key.pem", "keys/release.pem");
        desk
    }

    /// The same, with a bundle that the appliance trusts.
    pub fn with_bundle() -> Desk {
        let desk = Desk::new();
        desk.make_tree("tree");
        let build = [
            "build",
            "tree",
            "-o",
            "good.vab",
            "--release",
            "release.yaml",
        ];
        desk.does(&[&build[..], &["--key", "key.pem"]].concat());
        fs::copy(
            desk.at("keys/release.pem"),
            desk.at("etc/va-upgrade/trusted.d/release.pem"),
        )
        .unwrap();
        desk
    }

    /// Makes the program see an appliance that runs 7.9 from `root`, tries
    /// `version` in `back` next, and whose LVM is broken.
    pub fn be_an_appliance(&self, version: &str) {
        let put = |name: &str, content: &str| {
            fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
            self.write(name, content);
        };
        put(
            "proc/self/mountinfo",
            "1 0 253:0 / / rw - ext4 /dev/mapper/VA-root rw\n\
             2 1 252:2 / /boot rw - ext4 /dev/vda2 rw\n",
        );
        put("proc/cmdline", "root=/dev/mapper/VA-root ro\n");
        put("sys/dev/block/253:0/dm/name", "VA-root\n");
        put("etc/os-release", "ID=debian\nVERSION_ID=\"7.9\"\n");
        for (slot, version) in [("root", "7.9"), ("back", version)] {
            let record = SlotRecord {
                version: version.to_owned(),
                kernel: format!("{version}-amd64"),
                files: Vec::new(),
                args: Vec::new(),
                source: None,
            };
            let dir = self.at("boot/va").join(slot);
            fs::create_dir_all(&dir).unwrap();
            record.save(&dir).unwrap();
        }
        let mut state = State::adopt(Slot::Root);
        state.start_writing(Slot::Back).unwrap();
        state.finish_writing(Slot::Back).unwrap();
        state.start_trial(Slot::Back, 3).unwrap();
        let lock = Lock::take(&self.at("lock")).unwrap();
        state
            .save(&self.at("boot/va"), &lock)
            .unwrap()
            .rest
            .unwrap();
        for tool in ["lvs", "pvs", "vgs"] {
            let name = format!("tools/{tool}");
            put(
                &name,
                "#!/bin/sh\nprintf 'a \\033[2J broken disk' >&2\nexit 5\n",
            );
            fs::set_permissions(self.at(&name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.at(name), content).unwrap();
    }

    pub fn make_key(&self, private: &str, public: &str) {
        let (private, public) = (self.at(private), self.at(public));
        let openssl = |args: &[&str], file: &Path, out: &Path| {
            let status = Command::new("openssl")
                .args(args)
                .arg(file)
                .arg("-out")
                .arg(out)
                .status();
            assert!(status.unwrap().success());
        };
        openssl(
            &["genpkey", "-algorithm", "ed25519", "-outform"],
            Path::new("PEM"),
            &private,
        );
        openssl(&["pkey", "-pubout", "-in"], &private, &public);
    }

    /// Makes the least that counts as a bootable root file system.
    pub fn make_tree(&self, name: &str) {
        let root = self.at(name);
        let touch = |path: &str, content: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let kernel = "6.1.0-10-amd64";
        touch("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian 12\"\n");
        touch(&format!("boot/vmlinuz-{kernel}"), "kernel");
        touch(&format!("boot/initrd.img-{kernel}"), "initramfs");
        touch(&format!("usr/lib/modules/{kernel}/modules.dep"), "");
        for program in [
            "sbin/grub-install",
            "bin/grub-script-check",
            "bin/grub-mkimage",
        ] {
            touch(&format!("usr/{program}"), "");
        }
        let grub = "boot.img diskboot.img kernel.img moddep.lst biosdisk.mod part_gpt.mod \
            part_msdos.mod ext2.mod xfs.mod search.mod search_fs_uuid.mod loadenv.mod test.mod \
            linux.mod normal.mod configfile.mod echo.mod reboot.mod sleep.mod gzio.mod";
        for file in grub.split_whitespace() {
            touch(&format!("usr/lib/grub/i386-pc/{file}"), "");
        }
        fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
        fs::copy("/bin/true", root.join("usr/lib/systemd/systemd")).unwrap();
        fs::create_dir_all(root.join("sbin")).unwrap();
        symlink("/usr/lib/systemd/systemd", root.join("sbin/init")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
    }

    /// Runs the program in this directory.
    pub fn run(&self, args: &[&str]) -> Run {
        self.run_by(&[], args)
    }

    /// Runs it through another one, which gets its command line.
    pub fn run_by(&self, through: &[&str], args: &[&str]) -> Run {
        let output = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                SETTING,
                "sh",
            ])
            .arg(self.dir.path())
            .args(through)
            .arg(PROGRAM)
            .args(args)
            .env("COLUMNS", "100")
            .output()
            .unwrap();
        Run {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs it as the user `uid`, who has no rights and no groups.
    pub fn run_as(&self, uid: u32, args: &[&str]) -> Run {
        // The program under test may lie where nobody else gets.
        let program = self.at("va-upgrade");
        if !program.exists() {
            fs::copy(PROGRAM, &program).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let uid = format!("--reuid={uid}");
        let through = [
            "setpriv",
            &uid,
            "--clear-groups",
            "sh",
            "-c",
            // The copy's own name comes before the one that is added here.
            r#"p=$0; shift; exec "$p" "$@""#,
            program.to_str().unwrap(),
        ];
        self.run_by(&through, args)
    }

    /// Runs the program, which must succeed; returns its stdout.
    pub fn does(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.status, 0, "{args:?}: {run:?}");
        run.stdout
    }

    /// Sees the program refuse: this status, one sentence with all these words,
    /// and no trace of the attempt.
    pub fn refuses(&self, status: i32, words: &[&str], args: &[&str]) {
        self.refuses_by(&[], status, words, args);
    }

    /// The same, run through another program.
    pub fn refuses_by(&self, through: &[&str], status: i32, words: &[&str], args: &[&str]) {
        let before = self.traces();
        let run = self.run_by(through, &[args, &["-q"]].concat());
        assert_eq!(run.status, status, "{args:?}: {run:?}");
        assert_eq!(run.stdout, "", "{args:?}");
        assert!(run.stderr.starts_with("error: "), "{args:?}: {run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{args:?}: {run:?}");
        for word in words {
            assert!(run.stderr.contains(word), "{args:?}: {word:?} in {run:?}");
        }
        let mut after = self.traces();
        let unchanged = after == before;
        after.retain(|line| !before.contains(line));
        assert!(unchanged, "{args:?}: gone, new or changed: {after:?}");
    }

    /// Runs a script in bash, which must succeed; returns its stdout.
    pub fn shell(&self, script: &str) -> String {
        let output = Command::new("bash").args(["-c", script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Lists everything here, files with their times; a lock may come and stay.
    fn traces(&self) -> Vec<String> {
        let output = Command::new("find")
            .arg(self.dir.path())
            .args(["-path", "*/run/va-upgrade.lock", "-o"])
            // A file that comes and goes changes the times of its directory.
            .args(["-type", "d", "-printf", "%P %y %m\n", "-o"])
            .args(["-printf", "%P %y %m %s %T@ %C@\n"])
            .output()
            .unwrap();
        assert!(output.status.success());
        let lines = String::from_utf8(output.stdout).unwrap();
        let mut lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}
