//! The index and the list of files: what is accepted is written and read again
//! as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use va_upgrade::bundle::{Codec, FilesReader, Index, Payload};
use va_upgrade_fuzz::held::bounded;

fuzz_target!(|body: &[u8]| bounded(body.len(), || feed(body)));

fn feed(body: &[u8]) {
    if let Ok(mut reader) = FilesReader::new(body) {
        while let Ok(Some(_)) = reader.next_line() {}
    }
    let Ok(index) = serde_json::from_slice::<Index>(body) else {
        return;
    };
    let sum = |of: fn(&va_upgrade::bundle::Chunk) -> u64| {
        let mut numbers = index.chunks.iter().map(of);
        numbers.try_fold(0, u64::checked_add)
    };
    let (Some(packed_bytes), Some(size_bytes)) = (sum(|c| c.packed), sum(|c| c.size)) else {
        return;
    };
    let payload = Payload {
        member: Codec::Xz.member().into(),
        codec: Codec::Xz,
        packed_bytes,
        size_bytes,
    };
    let Ok(index) = Index::parse(body, &payload) else {
        return;
    };
    let text = index.render().expect("what was accepted is legal");
    let again = Index::parse(&text, &payload).expect("what is written is read");
    assert_eq!(again, index);
}
