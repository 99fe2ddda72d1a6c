use super::*;
use crate::failure::class_of;

/// Written by lvm2 2.03.16 after `lvextend`: root lies in two pieces of one
/// physical volume, two of which touch, and one piece of another.
const TWO_PVS: &str = include_str!("two-pvs.txt");

const PV0: &str = "wUERAJF7Mrj6dREhemelZc8tB1mP0U5I";
const PV1: &str = "2INIrPZI7iqQSYAjsM0YqkNb3bbt6zxG";
const SIZE: u64 = 60 << 20;

/// A physical volume as lvm2 lays it out, with `text` in its ring at `at`.
fn disk(uuid: &str, text: &str, at: usize) -> Vec<u8> {
    const AREA: usize = 4096;
    const AREA_SIZE: usize = 8192 - AREA;
    let mut disk = vec![0; 64 * 1024];
    let label = &mut disk[512..1024];
    label[..8].copy_from_slice(b"LABELONE");
    label[20] = 32;
    label[24..32].copy_from_slice(b"LVM2 001");
    label[32..64].copy_from_slice(uuid.as_bytes());
    let lists: [u64; 7] = [SIZE, 1 << 20, 0, 0, 0, AREA as u64, AREA_SIZE as u64];
    for (i, word) in lists.iter().enumerate() {
        label[64 + 8 * i..][..8].copy_from_slice(&word.to_le_bytes());
    }
    let sum = label::checksum(&label[20..]);
    label[16..20].copy_from_slice(&sum.to_le_bytes());

    let area = &mut disk[AREA..AREA + AREA_SIZE];
    let bytes = text.as_bytes();
    if !text.is_empty() {
        for (i, word) in [at as u64, bytes.len() as u64].iter().enumerate() {
            area[40 + 8 * i..][..8].copy_from_slice(&word.to_le_bytes());
        }
        area[56..60].copy_from_slice(&label::checksum(bytes).to_le_bytes());
        let first = bytes.len().min(AREA_SIZE - at);
        area[at..at + first].copy_from_slice(&bytes[..first]);
        area[512..512 + bytes.len() - first].copy_from_slice(&bytes[first..]);
    }
    area[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    area[20] = 1;
    let sum = label::checksum(&area[4..512]);
    area[..4].copy_from_slice(&sum.to_le_bytes());
    disk
}

fn read_disk(disk: &[u8]) -> Result<PhysicalVolume> {
    let read = |buffer: &mut [u8], offset: u64| {
        let at = usize::try_from(offset).unwrap();
        let bytes = disk.get(at..at + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    PhysicalVolume::read(&read, SIZE, "partition 3".into())
}

fn pv(uuid: &str, text: &str) -> PhysicalVolume {
    read_disk(&disk(uuid, text, 512)).unwrap()
}

fn refusal(pvs: &[PhysicalVolume]) -> String {
    let error = logical_volumes(pvs).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    format!("{error:#}")
}

fn stretch(pv: usize, first: u64, count: u64) -> Stretch {
    Stretch {
        pv,
        offset: (1 << 20) + first * (4 << 20),
        size_bytes: count * (4 << 20),
    }
}

#[test]
fn volumes_are_found_by_their_extents_also_over_two_disks() {
    // The second disk's copy is older and does not count.
    let older = TWO_PVS
        .replace("seqno = 7", "seqno = 6")
        .replace("back {", "old {");
    let volumes = logical_volumes(&[pv(PV1, &older), pv(PV0, TWO_PVS)]).unwrap();
    let root = LogicalVolume {
        group: "VA".into(),
        name: "root".into(),
        uuid: volumes[0].uuid.clone(),
        layout: Ok(vec![stretch(1, 0, 4), stretch(1, 6, 8), stretch(0, 0, 4)]),
    };
    let back = LogicalVolume {
        group: "VA".into(),
        name: "back".into(),
        uuid: volumes[1].uuid.clone(),
        layout: Ok(vec![stretch(1, 4, 2)]),
    };
    assert_eq!(volumes[0].uuid.len(), 64);
    assert_ne!(volumes[0].uuid, volumes[1].uuid);
    assert_eq!(volumes, [root, back]);
}

#[test]
fn pieces_that_touch_are_one() {
    let text = TWO_PVS
        .replace("\"pv0\", 4", "\"pv0\", 12")
        .replace("\"pv0\", 6", "\"pv0\", 4");
    let volumes = logical_volumes(&[pv(PV0, &text), pv(PV1, "")]).unwrap();
    let touching = Ok(vec![stretch(0, 0, 12), stretch(1, 0, 4)]);
    assert_eq!(volumes[0].layout, touching);
}

#[test]
fn a_text_that_goes_round_its_ring_is_read_whole() {
    let disk = disk(PV0, TWO_PVS, 3000);
    let pv = read_disk(&disk).unwrap();
    assert_eq!(pv.metadata.as_deref(), Some(TWO_PVS));
}

#[test]
fn volumes_that_are_not_linear_or_not_all_there_are_closed_with_the_reason() {
    let thin = TWO_PVS.replacen("type = \"striped\"", "type = \"thin\"", 1);
    let striped = TWO_PVS.replacen("stripe_count = 1", "stripe_count = 2", 1);
    for (text, word) in [
        (thin.as_str(), "of type thin"),
        (&striped, "of type striped"),
        (TWO_PVS, "not in this image"),
    ] {
        let volumes = logical_volumes(&[pv(PV0, text)]).unwrap();
        let reason = volumes[0].layout.as_ref().unwrap_err();
        assert!(reason.contains(word), "{reason}");
    }
}

#[test]
fn two_groups_of_one_name_are_refused_with_both_uuids() {
    let other = "OTHERa-wRnU-Tg5o-86od-j9Z9-PA4b-dqXWf5";
    let twin = TWO_PVS.replacen("l2z1Ja-wRnU-Tg5o-86od-j9Z9-PA4b-dqXWf5", other, 1);
    let text = refusal(&[pv(PV0, TWO_PVS), pv(PV1, &twin)]);
    assert!(
        text.contains("l2z1Ja-wRnU-Tg5o-86od-j9Z9-PA4b-dqXWf5"),
        "{text}"
    );
    assert!(text.contains(other), "{text}");
    let text = refusal(&[pv(PV0, TWO_PVS), pv(PV0, TWO_PVS)]);
    assert!(text.contains("same UUID"), "{text}");
}

#[test]
fn impossible_metadata_are_refused() {
    for (from, to) in [
        ("\"pv0\", 6", "\"pv0\", 600"),
        ("\"pv0\", 6", "\"pv0\", -6"),
        ("extent_count = 8", "extent_count = 9223372036854775807"),
        ("extent_size = 8192", "extent_size = 9223372036854775807"),
        ("extent_size = 8192", "extent_size = 0"),
        ("segment_count = 3", "segment_count = 4"),
        ("segment_count = 3", "segment_count = 2000000000"),
        ("start_extent = 4", "start_extent = 5"),
        ("pe_start = 2048", "pe_start = \"x\""),
        ("VA {", "VA { { {"),
        ("VA {", "V\u{1b}[2JA {"),
        ("VA {", "VA = [[[[[[[[[[[[[[[[[[[[["),
    ] {
        let text = TWO_PVS.replacen(from, to, 1);
        assert_ne!(text, TWO_PVS, "{from}");
        refusal(&[pv(PV0, &text), pv(PV1, "")]);
    }
}

#[test]
fn one_flipped_byte_never_goes_unnoticed_nor_panics() {
    let good = disk(PV0, TWO_PVS, 512);
    let used = (512..1024).chain(4096..8192);
    for at in used.step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        if let Ok(pv) = read_disk(&bad) {
            let text = pv.metadata.as_deref();
            assert_eq!(text, Some(TWO_PVS), "byte {at}");
        }
    }
}

#[test]
fn bytes_that_are_in_two_volumes_or_twice_in_one_are_refused() {
    for (of, to) in [("\"pv0\", 4", "\"pv0\", 7"), ("\"pv0\", 6", "\"pv0\", 1")] {
        let text = TWO_PVS.replace(of, to);
        let refusal = refusal(&[pv(PV0, &text), pv(PV1, "")]);
        assert!(refusal.contains("the same bytes"), "{refusal}");
    }
}

#[test]
fn a_volume_of_many_segments_is_looked_up_segment_by_segment() {
    const COUNT: i64 = 30_000;
    let segments: String = (0..COUNT)
        .map(|i| {
            format!(
                "segment{} {{ start_extent = {i} extent_count = 1 type = \"striped\" \
                 stripe_count = 1 stripes = [ \"pv0\", {i} ] }}\n",
                i + 1
            )
        })
        .collect();
    let text = format!(
        "VA {{ id = \"g\" seqno = 1 extent_size = 1 \
         physical_volumes {{ pv0 {{ id = \"{PV0}\" pe_start = 2048 }} }} \
         logical_volumes {{ root {{ id = \"v\" status = [\"VISIBLE\"] \
         segment_count = {COUNT}\n{segments} }} }} }}"
    );
    let held = PhysicalVolume {
        metadata: Some(text),
        ..pv(PV0, "")
    };
    let volumes = logical_volumes(&[held]).unwrap();
    assert_eq!(volumes[0].layout.as_ref().unwrap().len(), 1);
}
