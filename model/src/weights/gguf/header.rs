//! How many values the header of a GGUF has, before it is read: candle makes 32 bytes of each, be it one byte in the file.

/// Most values in the lists of the metadata. A published model has 460,000, most of them its vocabulary.
pub(super) const VALUES: u64 = 2 << 20;

/// Whether the lists of a header have more than [`VALUES`]. What is broken in it, the reader says.
pub(super) fn has_too_many_values(header: &[u8]) -> bool {
    let mut walk = Walk { rest: header, is_wide: true, values: 0 };
    let _ = walk.metadata();
    walk.values > VALUES
}

/// What is left of a header; a step is none where that is too short.
struct Walk<'a> {
    rest: &'a [u8],
    /// Lengths have eight bytes, in the first version four.
    is_wide: bool,
    values: u64,
}

impl<'a> Walk<'a> {
    fn take(&mut self, bytes: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(bytes).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn length(&mut self) -> Option<u64> {
        if !self.is_wide {
            return self.number().map(u64::from);
        }
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<()> {
        let length = self.length()?;
        self.take(length).map(drop)
    }

    fn metadata(&mut self) -> Option<()> {
        self.take(4)?;
        self.is_wide = self.number()? > 1;
        let _tensors = self.length()?;
        for _ in 0..self.length()? {
            self.text()?;
            let kind = self.number()?;
            self.value(kind, DEPTH)?;
        }
        Some(())
    }

    /// Ends early where there are too many values. `depth` lists may lie in each other.
    fn value(&mut self, kind: u32, depth: usize) -> Option<()> {
        match kind {
            TEXT => self.text(),
            LIST => {
                let (kind, length) = (self.number()?, self.length()?);
                self.values = self.values.saturating_add(length);
                match bytes(kind) {
                    _ if self.values > VALUES || depth == 0 => None,
                    Some(bytes) => self.take(bytes * length).map(drop),
                    None => (0..length).try_for_each(|_| self.value(kind, depth - 1)),
                }
            }
            kind => self.take(bytes(kind)?).map(drop),
        }
    }
}

/// Lists in lists that the reader reads.
const DEPTH: usize = 64;

const TEXT: u32 = 8;
const LIST: u32 = 9;

/// Bytes of a number.
fn bytes(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of one list, whose elements are `each`, and a tensor count of 0.
    fn header(version: u32, kind: u32, length: u64, each: &[u8]) -> Vec<u8> {
        let long = |number: u64| match version {
            1 => (number as u32).to_le_bytes().to_vec(),
            _ => number.to_le_bytes().to_vec(),
        };
        let mut bytes = [b"GGUF".to_vec(), version.to_le_bytes().to_vec(), long(0), long(2)].concat();
        // A number before it, whose value looks like a length.
        for (key, kind) in [("a.number", 10u32), ("a.list", LIST)] {
            bytes.extend([long(key.len() as u64), key.as_bytes().to_vec(), kind.to_le_bytes().to_vec()].concat());
            if kind == 10 {
                bytes.extend(u64::MAX.to_le_bytes());
            }
        }
        bytes.extend([kind.to_le_bytes().to_vec(), long(length), each.repeat(length as usize)].concat());
        bytes
    }

    #[test]
    fn values_are_counted_before_they_are_read() {
        for version in [1, 3] {
            // An empty text has a length alone.
            let empty = &[0u8; 8][..if version == 1 { 4 } else { 8 }];
            let list = [&[0, 0, 0, 0][..], empty].concat();
            for (kind, each) in [(0, &[7][..]), (7, &[1][..]), (2, &[7, 7][..]), (TEXT, empty), (LIST, &list[..])] {
                assert!(!has_too_many_values(&header(version, kind, VALUES, each)), "{version} {kind}");
                assert!(has_too_many_values(&header(version, kind, VALUES + 1, each)), "{version} {kind}");
            }
        }
        let whole = header(3, 0, VALUES + 1, &[7]);
        // Lists in lists count too.
        let bytes = [7].repeat(1 << 20);
        let inner = [&0u32.to_le_bytes()[..], &(1u64 << 20).to_le_bytes()[..], &bytes[..]].concat();
        assert!(has_too_many_values(&header(3, LIST, 3, &inner)));
        // What is cut off before is for the reader to refuse.
        for length in [0, 3, 8, 20, 40] {
            assert!(!has_too_many_values(&whole[..length]), "{length}");
        }
    }
}
