//! Writes zip archives and pickles with the layout of `torch.save`, byte for byte except
//! timestamps.

/// One entry of an archive.
pub struct Entry<'a> {
    pub name: &'a str,
    pub data: &'a [u8],
}

/// CRC-32 (IEEE 802.3), bit by bit.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// An archive with the entries in the directory `stem`: stored, data aligned to 64 bytes with an
/// extra field "FB", sizes in a data descriptor, and a ZIP64 end record in addition to the regular
/// one.
pub fn zip(stem: &str, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let name = format!("{stem}/{}", entry.name);
        let (crc, size, start) = (crc32(entry.data), entry.data.len() as u32, out.len() as u32);
        // Version 0, flags: data descriptor and UTF-8, method: stored, no time.
        let fixed = [0, 0, 8, 8, 0, 0, 0, 0, 0, 0];
        let padding = (64 - (out.len() + 30 + name.len() + 4) % 64) % 64;

        out.extend(b"PK\x03\x04");
        out.extend(fixed);
        out.extend([0; 12]);
        out.extend((name.len() as u16).to_le_bytes());
        out.extend((padding as u16 + 4).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(b"FB");
        out.extend((padding as u16).to_le_bytes());
        out.extend(std::iter::repeat_n(b'Z', padding));
        assert_eq!(out.len() % 64, 0);
        out.extend(entry.data);
        out.extend(b"PK\x07\x08");
        out.extend(crc.to_le_bytes());
        out.extend(size.to_le_bytes());
        out.extend(size.to_le_bytes());

        directory.extend(b"PK\x01\x02\0\0");
        directory.extend(fixed);
        directory.extend(crc.to_le_bytes());
        directory.extend(size.to_le_bytes());
        directory.extend(size.to_le_bytes());
        directory.extend((name.len() as u16).to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, size, count) = (
        out.len() as u64,
        directory.len() as u64,
        entries.len() as u64,
    );
    out.extend(directory);
    let zip64 = out.len() as u64;
    out.extend(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x1e\x03\x2d\0\0\0\0\0\0\0\0\0");
    out.extend(
        [count, count, size, start]
            .iter()
            .flat_map(|n| n.to_le_bytes()),
    );
    out.extend(b"PK\x06\x07\0\0\0\0");
    out.extend(zip64.to_le_bytes());
    out.extend(b"\x01\0\0\0PK\x05\x06\0\0\0\0");
    out.extend(
        [count as u16, count as u16]
            .iter()
            .flat_map(|n| n.to_le_bytes()),
    );
    out.extend(
        [size as u32, start as u32]
            .iter()
            .flat_map(|n| n.to_le_bytes()),
    );
    out.extend(b"\0\0");
    out
}

/// An archive as written by `torch.save`.
pub fn checkpoint(stem: &str, pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    checkpoint_in(stem, pickle, storages, "little")
}

/// The same with another `byteorder`.
pub fn checkpoint_in(stem: &str, pickle: &[u8], storages: &[&[u8]], order: &str) -> Vec<u8> {
    let keys: Vec<String> = (0..storages.len()).map(|i| format!("data/{i}")).collect();
    let mut entries = vec![
        Entry {
            name: "data.pkl",
            data: pickle,
        },
        Entry {
            name: ".format_version",
            data: b"1",
        },
        Entry {
            name: "byteorder",
            data: order.as_bytes(),
        },
    ];
    entries.extend(
        keys.iter()
            .zip(storages)
            .map(|(name, data)| Entry { name, data }),
    );
    entries.push(Entry {
        name: "version",
        data: b"3\n",
    });
    zip(stem, &entries)
}

/// A pickled tensor of a state_dict.
pub struct Stored<'a> {
    pub name: &'a str,
    pub class: &'a str,
    pub key: usize,
    pub len: i64,
    pub offset: i64,
    pub shape: &'a [i64],
    pub stride: &'a [i64],
}

/// A state_dict with these tensors, in protocol 2.
pub fn state_dict(tensors: &[Stored]) -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for t in tensors {
        text(&mut out, t.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{}\n", t.class).as_bytes());
        text(&mut out, &t.key.to_string());
        text(&mut out, "cpu");
        int(&mut out, t.len);
        out.extend(b"tQ");
        int(&mut out, t.offset);
        for list in [t.shape, t.stride] {
            out.push(b'(');
            list.iter().for_each(|n| int(&mut out, *n));
            out.push(b't');
        }
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn int(out: &mut Vec<u8>, n: i64) {
    out.extend(b"\x8a\x08");
    out.extend(n.to_le_bytes());
}
