//! Which parts of a disk hold data, as `qemu-img map` lists them: one by one, however
//! many there are.

use std::fmt;
use std::io::{BufReader, Read};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

/// Where the data of a disk are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataMap {
    /// How many bytes of the disk hold data.
    pub data_bytes: u64,
    /// Where in the file the last cluster ends that is not compressed.
    pub end_in_file: u64,
}

#[derive(Deserialize)]
struct Stretch {
    length: u64,
    data: bool,
    zero: bool,
    offset: Option<u64>,
}

/// Reads a list of stretches to its end.
///
/// # Errors
/// When it is no such list.
pub fn read(answer: &mut dyn Read) -> Result<DataMap> {
    let mut reader = serde_json::Deserializer::from_reader(BufReader::new(answer));
    reader
        .deserialize_seq(Stretches)
        .and_then(|map| reader.end().map(|()| map))
        .context("reading qemu-img's answer")
}

struct Stretches;

impl<'de> Visitor<'de> for Stretches {
    type Value = DataMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of stretches")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut stretches: A) -> Result<DataMap, A::Error> {
        let mut map = DataMap::default();
        while let Some(stretch) = stretches.next_element::<Stretch>()? {
            if stretch.data && !stretch.zero {
                map.data_bytes = map.data_bytes.saturating_add(stretch.length);
            }
            // Also what `qemu-img` takes for zeros because the file ends before it.
            if let Some(offset) = stretch.offset {
                let end = offset.saturating_add(stretch.length);
                map.end_in_file = map.end_in_file.max(end);
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_qemu_img_7_are_read() {
        let map = r#"[{ "start": 0, "length": 327680, "depth": 0, "present": true, "zero": false, "data": true, "offset": 65536},
            { "start": 327680, "length": 5177344, "depth": 0, "present": false, "zero": true, "data": false},
            { "start": 5505024, "length": 65536, "depth": 0, "present": true, "zero": true, "data": true}]"#;
        let expected = DataMap {
            data_bytes: 327_680,
            end_in_file: 393_216,
        };
        assert_eq!(read(&mut map.as_bytes()).unwrap(), expected);
        assert!(read(&mut &map.as_bytes()[..map.len() - 1]).is_err());
        assert!(read(&mut &b"{}"[..]).is_err());
    }

    #[test]
    fn a_list_is_read_as_it_comes() {
        const COUNT: u64 = 1 << 16;
        let stretch = br#"{"start":0,"length":1,"depth":0,"present":true,"zero":false,"data":true,"offset":65536},"#;
        let list = (0..COUNT).flat_map(|_| stretch.iter().copied());
        let last = br#"{"length":1,"data":true,"zero":false}]"#.iter().copied();
        struct Bytes<I>(I);
        impl<I: Iterator<Item = u8>> Read for Bytes<I> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let mut count = 0;
                for (place, byte) in buffer.iter_mut().zip(&mut self.0) {
                    *place = byte;
                    count += 1;
                }
                Ok(count)
            }
        }
        let mut answer = Bytes(std::iter::once(b'[').chain(list).chain(last));
        assert_eq!(read(&mut answer).unwrap().data_bytes, COUNT + 1);
    }
}
