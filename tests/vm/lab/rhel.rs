//! What the disks of the RHEL family's shape have of their own, made of Debian's
//! packages: XFS that an old GRUB reads, labels, a menu with `linux16`.

use std::path::Path;

use anyhow::Result;
use va_upgrade::system::{Cmd, Mount, Mounted, System};

/// The file systems, as an installer of that family writes them.
pub const FSTAB: &str = "\
/dev/mapper/VA-root / xfs defaults 0 0
UUID=@BOOT@ /boot xfs defaults 0 0
/dev/VA/data /data ext4 defaults 0 0
/dev/VA/image /image xfs defaults 0 0
";

/// The menu of an installed system.
pub const MENU: &str = include_str!("../guest/rhel-grub.cfg");

/// Returns the command that makes an XFS of CentOS 7's kind with the label `name`;
/// the device comes behind it.
pub fn mkfs(name: &str, uuid: Option<&str>) -> Cmd {
    let uuid = uuid.map(|uuid| format!(",uuid={uuid}")).unwrap_or_default();
    let metadata = format!("crc=1,finobt=1,rmapbt=0,reflink=0,bigtime=0,inobtcount=0{uuid}");
    Cmd::new("mkfs.xfs")
        .args(["-q", "-f", "-L", name, "-m", &metadata])
        .args(["-i", "size=512,sparse=0,nrext64=0"])
}

/// Gives the files of the mounted tree `root`, in each file system of `places`, the
/// labels its own policy wants.
pub fn label(sys: &dyn System, root: &Path, places: &[&str]) -> Result<()> {
    let proc = Mount::bind(Path::new("/proc"), &root.join("proc"));
    let proc = Mounted::new(sys, &proc)?;
    for place in places {
        // This kernel has no policy, and shows no file system as one with labels.
        let setfiles = Cmd::new("setfiles")
            .args(["-m", "-F", "-e", "/proc"])
            .args(["/etc/selinux/default/contexts/files/file_contexts", place])
            .chroot(root);
        sys.run(&setfiles)?;
    }
    proc.unmount()
}
