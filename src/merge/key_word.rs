//! `key value`, with keywords in any case: sshd_config(5), chrony.conf(5), ntp.conf(5).

use super::units::{Cutter, Doc, Kind, is_comment, squeezed};

const COMMENTS: [char; 4] = ['#', ';', '!', '%'];

/// Keywords whose settings add up, so that each of them stands for itself.
const ADDITIVE: [&str; 5] = ["acceptenv", "confdir", "hostkey", "include", "sourcedir"];

/// Keywords whose first word names what is set.
const NAMED: [&str; 2] = ["subsystem", "keyfile"];

/// Clocks are one list: a customer who named clocks wants no others.
const CLOCKS: [&str; 3] = ["server", "pool", "peer"];

/// What begins a block that ends at the next one.
const BLOCKS: [&str; 2] = ["match", "host"];

/// Cuts a text into settings and blocks.
pub fn parse(text: &str) -> Doc<'_> {
    let mut cutter = Cutter::new(text);
    while let Some(line) = cutter.line() {
        if is_comment(line, &COMMENTS) {
            cutter.skip(line);
            continue;
        }
        let (keyword, value) = split(line);
        if BLOCKS.contains(&keyword.as_str()) {
            let block = cutter.ahead(block_length(&cutter, line));
            let key = vec![keyword, value];
            cutter.take(block, Kind::Entry, key, 0, body(block));
        } else {
            let (key, value) = name(keyword, value);
            cutter.take(line, Kind::Entry, vec![key], 0, value);
        }
    }
    cutter.finish()
}

/// Puts a name in a rule as [`parse`] has it.
pub fn canonical(name: &str) -> String {
    let end = name.find(['/', ' ']).unwrap_or(name.len());
    let keyword = name[..end].to_ascii_lowercase();
    let clocks = CLOCKS.contains(&keyword.as_str());
    if clocks {
        CLOCKS[0].to_owned()
    } else {
        keyword + &name[end..]
    }
}

fn split(line: &str) -> (String, String) {
    let line = line.trim();
    let end = line
        .find(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or(line.len());
    let value = line[end..].trim_start();
    let value = value.strip_prefix('=').unwrap_or(value);
    (line[..end].to_ascii_lowercase(), squeezed(value))
}

fn name(keyword: String, value: String) -> (String, String) {
    let word = keyword.as_str();
    if CLOCKS.contains(&word) {
        return (CLOCKS[0].to_owned(), format!("{word} {value}"));
    }
    if ADDITIVE.contains(&word) {
        return (format!("{word} {value}"), String::new());
    }
    if NAMED.contains(&word)
        && let Some((first, rest)) = value.split_once(' ')
    {
        return (format!("{word} {first}"), rest.to_owned());
    }
    (keyword, value)
}

/// Comments behind the last setting of a block are left to what follows.
fn block_length(cutter: &Cutter<'_>, first: &str) -> usize {
    let mut length = first.len();
    let mut at = length;
    for line in cutter.lines_after(first) {
        at += line.len();
        if is_comment(line, &COMMENTS) {
            continue;
        }
        if BLOCKS.contains(&split(line).0.as_str()) {
            break;
        }
        length = at;
    }
    length
}

fn body(block: &str) -> String {
    let lines = block
        .lines()
        .skip(1)
        .filter(|line| !is_comment(line, &COMMENTS));
    let settings = lines
        .map(split)
        .map(|(keyword, value)| format!("{keyword} {value}"));
    settings.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::{case, conflicts};

    const DEBIAN: &str = "\
# This is the sshd server system-wide configuration file.

Include /etc/ssh/sshd_config.d/*.conf

#Port 22
#AddressFamily any

#PermitRootLogin prohibit-password
KbdInteractiveAuthentication no
UsePAM yes
X11Forwarding yes
PrintMotd no

# Allow client to pass locale environment variables
AcceptEnv LANG LC_*

# override default of no subsystems
Subsystem\tsftp\t/usr/lib/openssh/sftp-server

# Example of overriding settings on a per-user basis
#Match User anoncvs
#\tX11Forwarding no
";

    const RHEL: &str = "\
# RHEL's own
HostKey /etc/ssh/ssh_host_rsa_key
HostKey /etc/ssh/ssh_host_ed25519_key
SyslogFacility AUTHPRIV
PermitRootLogin yes
PasswordAuthentication yes
AcceptEnv LANG LC_CTYPE
AcceptEnv XMODIFIERS
Subsystem sftp /usr/libexec/openssh/sftp-server
";

    #[test]
    fn settings_of_sshd_are_merged_where_lines_conflict() {
        let customer = DEBIAN.replace("#Port 22", "Port 2222").replace(
            "UsePAM yes\nX11Forwarding yes",
            "UsePAM yes\nX11Forwarding no",
        ) + "\n# the vendor's door\nMatch User support\n\tPasswordAuthentication no\n";
        let image = DEBIAN
            .replace(
                "#Port 22\n#AddressFamily any\n",
                "#Port 22\n#AddressFamily inet\n",
            )
            .replace("UsePAM yes\nX11", "UsePAM no\nX11");
        let merged = case(Format::KeyWord, DEBIAN, &customer, &image, &[]);
        assert!(
            merged.contains("UsePAM no\nX11Forwarding no\nPrint"),
            "{merged}"
        );
        assert!(merged.contains("#AddressFamily inet\n"), "{merged}");
        assert_eq!(merged.matches("\nPort 2222\n").count(), 1, "{merged}");
        let behind = "\n# the vendor's door\nMatch User support\n\tPasswordAuthentication no\n";
        assert!(merged.contains(behind), "{merged}");
    }

    #[test]
    fn a_new_setting_stays_out_of_the_images_blocks() {
        let pristine = "UsePAM yes\n";
        let customer = "UsePAM yes\nport=2222\n";
        let image = "UsePAM yes\nMatch User x\n  X11Forwarding no\n";
        let merged = case(Format::KeyWord, pristine, customer, image, &[]);
        assert_eq!(
            merged,
            "UsePAM yes\nport=2222\nMatch User x\n  X11Forwarding no\n"
        );
    }

    #[test]
    fn one_key_is_not_set_two_ways() {
        let customer = RHEL.replace("PermitRootLogin yes\n", "permitrootlogin no\n");
        let image = format!("{RHEL}PermitRootLogin prohibit-password\n");
        let (text, found) = conflicts(Format::KeyWord, RHEL, &customer, &image);
        assert_eq!(text, customer);
        assert_eq!(found, ["permitrootlogin: no | yes\nprohibit-password"]);
    }

    #[test]
    fn lists_that_add_up_are_merged_line_by_line() {
        let customer = RHEL.replace("XMODIFIERS\n", "XMODIFIERS\nAcceptEnv SITE_*\n");
        let image = RHEL
            .replace("AcceptEnv XMODIFIERS\n", "AcceptEnv COLORTERM\n")
            .replace("HostKey /etc/ssh/ssh_host_rsa_key\n", "");
        let merged = case(Format::KeyWord, RHEL, &customer, &image, &[]);
        let list = "AcceptEnv LANG LC_CTYPE\nAcceptEnv SITE_*\nAcceptEnv COLORTERM\n";
        assert!(
            merged.contains(list) || merged.contains("AcceptEnv SITE_*"),
            "{merged}"
        );
        assert!(
            !merged.contains("XMODIFIERS") && !merged.contains("rsa_key"),
            "{merged}"
        );
    }

    #[test]
    fn only_named_keywords_are_carried() {
        let customer = RHEL
            .replace("PermitRootLogin yes", "PermitRootLogin no")
            .replace("PasswordAuthentication yes", "PasswordAuthentication no");
        let merged = case(Format::KeyWord, RHEL, &customer, RHEL, &["PermitRootLogin"]);
        assert_eq!(
            merged,
            RHEL.replace("PermitRootLogin yes", "PermitRootLogin no")
        );
    }

    #[test]
    fn clocks_that_the_customer_named_are_the_only_ones() {
        let pristine = "# Use Debian vendor zone.\npool 2.debian.pool.ntp.org iburst\n\
                        driftfile /var/lib/chrony/chrony.drift\nrtcsync\nmakestep 1 3\n";
        let pool = "pool 2.debian.pool.ntp.org iburst\n";
        let customer = pristine.replace(pool, "server ntp1.site\nserver ntp2.site\n");
        let image = pristine
            .replace(pool, "pool 2.rhel.pool.ntp.org iburst\n")
            .replace("makestep 1 3", "makestep 1.0 3");
        let (text, found) = conflicts(Format::KeyWord, pristine, &customer, &image);
        assert_eq!(text, customer.replace("makestep 1 3", "makestep 1.0 3"));
        assert_eq!(found.len(), 1, "{found:?}");
        let image = pristine.replace("makestep 1 3", "makestep 1.0 3");
        let merged = case(Format::KeyWord, pristine, &customer, &image, &[]);
        assert_eq!(merged, text);
    }
}
