//! Merges of systems as they are in the field, as texts.

mod properties;

use super::*;

/// Makes the files of a system from lines, of which each names its file.
fn files(text: &str) -> AccountFiles {
    let of = |file: &str| -> Option<Vec<u8>> {
        let lines: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix(file)?.strip_prefix(' '))
            .collect();
        (!lines.is_empty()).then(|| (lines.join("\n") + "\n").into_bytes())
    };
    AccountFiles {
        passwd: of("passwd").unwrap(),
        shadow: of("shadow"),
        group: of("group"),
        gshadow: of("gshadow"),
        subuid: of("subuid"),
        subgid: of("subgid"),
        conventions: Conventions::default(),
    }
}

/// What every system has, and some more.
fn system(more: &str) -> AccountFiles {
    files(&format!(
        "passwd root:x:0:0:root:/root:/bin/bash
         passwd bin:x:1:1:bin:/bin:/sbin/nologin
         shadow root:*:19000:0:99999:7:::
         shadow bin:*:19000:0:99999:7:::
         group root:x:0:
         group bin:x:1:
         group wheel:x:10:
         gshadow root:::
         gshadow bin:::
         gshadow wheel:::
         {more}"
    ))
}

/// An account of a person, with a group of the same name.
fn person(name: &str, id: u32, hash: &str) -> String {
    format!(
        "passwd {name}:x:{id}:{id}::/home/{name}:/bin/bash
         shadow {name}:{hash}:19500:0:90:7:30::
         group {name}:x:{id}:
         gshadow {name}:!::
         "
    )
}

fn line<'t>(text: &'t [u8], name: &str) -> Option<&'t str> {
    let text = str::from_utf8(text).unwrap();
    text.lines()
        .find(|line| line.split(':').next() == Some(name))
}

fn passwd<'m>(merge: &'m Merge, name: &str) -> Option<&'m str> {
    line(&merge.files.passwd, name)
}

fn shadow<'m>(merge: &'m Merge, name: &str) -> Option<&'m str> {
    line(merge.files.shadow.as_ref().unwrap(), name)
}

fn group<'m>(merge: &'m Merge, name: &str) -> Option<&'m str> {
    line(merge.files.group.as_ref().unwrap(), name)
}

fn noted(merge: &Merge, reason: Reason) -> Vec<&str> {
    let notes = merge.notes.iter().filter(|note| note.reason == reason);
    notes.map(|note| note.name.as_str()).collect()
}

#[test]
fn an_account_with_another_id_keeps_the_images_and_its_files_follow() {
    let old = system(&person("admin", 1000, "$6$a$mine"));
    let image = system(&(person("app", 1000, "!") + &person("admin", 1001, "$6$a$theirs")));
    let merged = merge(None, &old, &image).unwrap();
    assert_eq!(
        passwd(&merged, "admin"),
        Some("admin:x:1001:1001::/home/admin:/bin/bash")
    );
    assert_eq!(
        shadow(&merged, "admin"),
        Some("admin:$6$a$mine:19500:0:90:7:30::")
    );
    assert_eq!(rewrite_owner(1000, 1000, &merged.ids), (1001, 1001));
    assert_eq!(noted(&merged, Reason::Renumbered), ["admin"]);
}

#[test]
fn an_id_that_another_name_has_is_not_shared() {
    let old = system(&(person("joe", 1000, "$6$a$b") + "group wheel:x:10:joe"));
    let image = system(&person("app", 1000, "!"));
    let old = AccountFiles {
        group: Some(b"root:x:0:\nwheel:x:10:joe\njoe:x:1000:\nops:x:1001:joe,gone\n".to_vec()),
        ..old
    };
    let merged = merge(None, &old, &image).unwrap();
    assert_eq!(
        passwd(&merged, "joe"),
        Some("joe:x:1001:1002::/home/joe:/bin/bash")
    );
    // 1001 is the gid of another group in the old system.
    assert_eq!(group(&merged, "joe"), Some("joe:x:1002:"));
    assert_eq!(group(&merged, "ops"), Some("ops:x:1001:joe"));
    assert_eq!(group(&merged, "wheel"), Some("wheel:x:10:joe"));
    let gshadow = merged.files.gshadow.as_ref().unwrap();
    assert_eq!(line(gshadow, "wheel"), Some("wheel:::joe"));
    assert_eq!(line(gshadow, "ops"), Some("ops:!::joe"));
    assert_eq!(rewrite_owner(1000, 1000, &merged.ids), (1001, 1002));
    assert_eq!(noted(&merged, Reason::Renumbered), ["joe", "joe"]);
    assert_eq!(noted(&merged, Reason::LeftOut), ["ops"]);
}

#[test]
fn what_was_revoked_stays_revoked() {
    let delivered = person("admin", 1000, "$6$a$default") + &person("demo", 1001, "$6$a$demo");
    let support = "passwd support:x:900:900::/:/bin/sh\nshadow support:$6$a$s:1::::::\n\
                   group support:x:900:\ngroup wheel2:x:11:admin,demo\n";
    let pristine = system(&(delivered.clone() + support));
    let old = system(&(person("admin", 1000, "!$6$a$default") + "group wheel2:x:11:"));
    let merged = merge(Some(&pristine), &old, &pristine).unwrap();
    assert_eq!(
        shadow(&merged, "admin"),
        Some("admin:!$6$a$default:19500:0:90:7:30::")
    );
    assert_eq!(passwd(&merged, "demo"), None);
    assert_eq!(shadow(&merged, "demo"), None);
    assert_eq!(group(&merged, "demo"), None);
    assert_eq!(group(&merged, "wheel2"), Some("wheel2:x:11:"));
    assert_eq!(shadow(&merged, "support"), Some("support:!$6$a$s:1::::::"));
    assert_eq!(
        noted(&merged, Reason::Revoked),
        ["demo", "support", "admin"]
    );
}

#[test]
fn a_deleted_account_cannot_be_told_from_a_new_one_without_the_old_release() {
    let image = system(&person("demo", 1001, "$6$a$demo"));
    let merged = merge(None, &system(""), &image).unwrap();
    assert!(passwd(&merged, "demo").is_some());
    assert_eq!(noted(&merged, Reason::New), ["demo"]);
}

#[test]
fn only_what_the_customer_changed_is_the_customers() {
    let pristine = system(&person("admin", 1000, "$6$a$default"));
    let mut image = system(&person("admin", 1001, "$6$a$new"));
    image.passwd = String::from_utf8(image.passwd)
        .unwrap()
        .replace("/home/admin:/bin/bash", "/var/admin:/bin/new")
        .into_bytes();
    let same = merge(Some(&pristine), &pristine, &image).unwrap();
    assert_eq!(same.files, image);
    let mut old = pristine.clone();
    old.passwd = String::from_utf8(old.passwd)
        .unwrap()
        .replace("/home/admin:/bin/bash", "/home/admin:/bin/zsh")
        .into_bytes();
    let changed = merge(Some(&pristine), &old, &image).unwrap();
    assert_eq!(
        passwd(&changed, "admin"),
        Some("admin:x:1001:1001::/var/admin:/bin/zsh")
    );
    assert_eq!(changed.files.shadow, image.shadow);
    let blind = merge(None, &old, &image).unwrap();
    assert_eq!(noted(&blind, Reason::Differs), ["admin"]);
}

#[test]
fn a_system_account_of_the_old_release_comes_over_if_it_is_the_customers() {
    let service = |shell: &str| {
        format!(
            "passwd ntp:x:38:38::/etc/ntp:{shell}\nshadow ntp:!!:1::::::\ngroup ntp:x:38:\n\
             passwd zabbix:x:997:997::/:/sbin/nologin\ngroup zabbix:x:997:\n"
        )
    };
    let pristine = system("passwd ntp:x:38:38::/etc/ntp:/sbin/nologin\ngroup ntp:x:38:");
    let old = system(&service("/sbin/nologin"));
    let image = system("passwd chrony:x:997:997::/:/sbin/nologin\ngroup chrony:x:997:");
    let merged = merge(Some(&pristine), &old, &image).unwrap();
    assert_eq!(passwd(&merged, "ntp"), None);
    assert_eq!(group(&merged, "ntp"), None);
    assert_eq!(
        passwd(&merged, "zabbix"),
        Some("zabbix:x:999:999::/:/sbin/nologin")
    );
    assert_eq!(shadow(&merged, "zabbix"), Some("zabbix:!:::::::"));
    let changed = merge(Some(&pristine), &system(&service("/bin/sh")), &image).unwrap();
    assert!(passwd(&changed, "ntp").is_some());
    let blind = merge(None, &old, &image).unwrap();
    assert_eq!(passwd(&blind, "zabbix"), None);
    // 997 means chrony now: what zabbix left must not become chrony's.
    assert_eq!(rewrite_owner(997, 997, &blind.ids), (60578, 60578));
    assert_eq!(rewrite_owner(38, 38, &blind.ids), (38, 38));
    assert!(
        passwd(
            &merge(None, &system(&service("/bin/sh")), &image).unwrap(),
            "ntp"
        )
        .is_some()
    );
}

#[test]
fn people_of_a_system_whose_ids_began_at_500_come_over() {
    let mut old = system(&person("joe", 500, "$1$a$b"));
    old.conventions.uid_min = 500;
    old.conventions.gid_min = 500;
    let merged = merge(None, &old, &system("")).unwrap();
    assert!(
        passwd(&merged, "joe")
            .unwrap()
            .starts_with("joe:x:500:500:")
    );
    let image = system("passwd tss:x:500:500::/:/sbin/nologin\ngroup tss:x:500:");
    let merged = merge(None, &old, &image).unwrap();
    assert!(
        passwd(&merged, "joe")
            .unwrap()
            .starts_with("joe:x:1000:1000:")
    );
}

#[test]
fn a_hash_the_target_cannot_check_is_named_and_not_shown() {
    let old = system(&person("admin", 1000, "$y$j9T$salt$secret"));
    let mut image = system("");
    image.conventions.checker = Checker::glibc();
    let merged = merge(None, &old, &image).unwrap();
    assert_eq!(noted(&merged, Reason::Hash), ["admin"]);
    assert!(merged.notes.iter().all(|note| !note.text.contains("salt")));
    let named = unverifiable(&merged.files, &Checker::glibc()).unwrap();
    assert_eq!(named.len(), 1);
}

#[test]
fn ids_that_were_shared_before_are_shared_still() {
    let old = system("passwd toor:x:0:0::/root:/bin/sh\nshadow toor:$6$a$b:1::::::");
    let merged = merge(None, &old, &system("")).unwrap();
    assert_eq!(passwd(&merged, "toor"), Some("toor:x:0:0::/root:/bin/sh"));
    assert_eq!(noted(&merged, Reason::Shared), ["toor"]);
    let twins = "passwd a:x:1000:1::/:/bin/sh\npasswd b:x:1000:1::/:/bin/sh";
    let image = system("passwd a:x:1001:1::/:/bin/sh\npasswd c:x:1000:1::/:/bin/sh");
    let merged = merge(None, &system(twins), &image).unwrap();
    assert_eq!(passwd(&merged, "b"), Some("b:x:1001:1::/:/bin/sh"));
}

#[test]
fn subordinate_ids_follow_their_name_and_do_not_overlap() {
    let old = system(
        &(person("joe", 1000, "!")
            + &person("ann", 1001, "!")
            + "subuid joe:100000:65536\nsubuid 1001:300000:65536\nsubuid ann:0:65536\n\
               subgid joe:165536:65536"),
    );
    let image =
        system(&(person("app", 1000, "!") + "subuid app:100000:65536\nsubgid app:100000:65536"));
    let merged = merge(None, &old, &image).unwrap();
    let text = |table: &Option<Vec<u8>>| String::from_utf8(table.clone().unwrap()).unwrap();
    assert_eq!(
        text(&merged.files.subuid),
        "app:100000:65536\njoe:365536:65536\nann:300000:65536\nann:431072:65536\n"
    );
    assert_eq!(
        text(&merged.files.subgid),
        "app:100000:65536\njoe:165536:65536\n"
    );
}

#[test]
fn memberships_from_a_directory_and_orders_to_ask_nis_are_the_customers() {
    let more = "group ops:x:1005:DOMAIN\\joe,bin\npasswd +@admins::::::\npasswd -eve::::::";
    let mut old = system(more);
    let blind = merge(None, &old, &system("")).unwrap();
    assert_eq!(group(&blind, "ops"), Some("ops:x:1005:bin"));
    old.conventions.has_directory = true;
    let image = system(&person("eve", 1000, "!"));
    let merged = merge(None, &old, &image).unwrap();
    assert_eq!(group(&merged, "ops"), Some("ops:x:1005:DOMAIN\\joe,bin"));
    assert!(
        merged
            .files
            .passwd
            .ends_with(b"\n+@admins::::::\n-eve::::::\n")
    );
    let gone = merge(Some(&old), &system(""), &merged.files).unwrap();
    assert!(!gone.files.passwd.contains(&b'+'));
}

#[test]
fn a_line_that_lies_is_left_out_and_nothing_else() {
    let pristine = system(&person("admin", 1000, "$6$a$b"));
    let mut old = system("");
    old.passwd
        .extend(b"admin:x:1000:1000::/home/admin:/bin/bash\r\n");
    old.passwd
        .extend(b"eve:x:1002:0::/:/bin/sh:x:0:0\n\xff\xfe:x:1003:1::\xff:/bin/sh\n");
    old.passwd
        .extend([b"big:x:1004:1::".as_slice(), &[b'a'; 9000], b":/bin/sh\n"].concat());
    let shadow = old.shadow.as_mut().unwrap();
    shadow.extend(b"admin:$6$a$b:1::::::\nroot::1::::::\n");
    let merged = merge(Some(&pristine), &old, &pristine).unwrap();
    // A damaged line is no deletion.
    assert!(passwd_bytes(
        &merged,
        b"admin:x:1000:1000::/home/admin:/bin/bash\n"
    ));
    assert!(passwd_bytes(&merged, b"\xff\xfe:x:1003:1::\xff:/bin/sh\n"));
    for name in ["eve", "big"] {
        assert!(!passwd_bytes(&merged, format!("{name}:").as_bytes()));
    }
    assert_eq!(
        noted(&merged, Reason::Unreadable),
        ["/etc/passwd", "/etc/passwd", "/etc/passwd", "/etc/shadow"]
    );
}

fn passwd_bytes(merge: &Merge, wanted: &[u8]) -> bool {
    let text = &merge.files.passwd;
    text.windows(wanted.len()).any(|part| part == wanted)
}

#[test]
fn an_account_whose_group_has_no_name_gets_one() {
    let old = system("passwd bin2:x:1000:777::/:/bin/sh\npasswd wheel:x:1001:778::/:/bin/sh");
    let merged = merge(None, &old, &system("group other:x:777:")).unwrap();
    assert_eq!(group(&merged, "bin2"), Some("bin2:x:1000:"));
    // A group of that name has other rights.
    assert_eq!(group(&merged, "gid778"), Some("gid778:x:778:"));
    assert_eq!(
        passwd(&merged, "wheel"),
        Some("wheel:x:1001:778::/:/bin/sh")
    );
    assert_eq!(group(&merged, "wheel"), Some("wheel:x:10:"));
}

#[test]
fn an_account_new_with_the_image_gets_no_rights_of_a_forgotten_one() {
    let old = system("group ops:x:1005:app");
    let image = system(&person("app", 1000, "!"));
    let merged = merge(None, &old, &image).unwrap();
    assert_eq!(group(&merged, "ops"), Some("ops:x:1005:"));
}

#[test]
fn passwords_move_to_where_the_target_keeps_them() {
    let old = files(
        "passwd root:$6$a$b:0:0::/root:/bin/sh
         passwd joe::1000:1000::/:/bin/sh
         group joe:x:1000:",
    );
    let merged = merge(None, &old, &system("")).unwrap();
    assert!(passwd(&merged, "root").unwrap().starts_with("root:x:0:"));
    assert_eq!(shadow(&merged, "root"), Some("root:$6$a$b:::::::"));
    assert_eq!(shadow(&merged, "joe"), Some("joe::::::::"));
    let back = merge(None, &system(&person("joe", 1000, "$6$j$j")), &old).unwrap();
    assert!(
        passwd(&back, "joe")
            .unwrap()
            .starts_with("joe:$6$j$j:1000:")
    );
    assert!(passwd(&back, "root").unwrap().starts_with("root:*:0:"));
}

#[test]
fn a_system_without_root_is_refused() {
    let none = files("passwd joe:x:1000:1000::/:/bin/sh");
    for (old, image) in [(&none, &system("")), (&system(""), &none)] {
        let error = merge(None, old, image).unwrap_err();
        let class = crate::failure::class_of(&error);
        assert_eq!(class, crate::failure::Class::Refused);
    }
}
