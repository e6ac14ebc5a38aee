//! The bits of a scan, up to the next marker.

/// What is wrong with a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the data end before the picture does")]
    Ended,
    #[error("data are left where the picture has ended")]
    Surplus,
    #[error("a restart marker is missing or out of order")]
    Restart,
    #[error("a code that its table does not have")]
    Code,
    #[error("a block brighter or darker than any")]
    Range,
    #[error("zeros in place of a block's data")]
    Zeros,
    #[error("a header that says what cannot be")]
    Header,
    #[error("coefficients that were there already, or come before their high bits")]
    Order,
    #[error("components or bits of coefficients never came")]
    Incomplete,
    #[error("no Huffman table {table} of {}", if *is_ac { "AC" } else { "DC" })]
    NoTable { is_ac: bool, table: usize },
}

pub struct Bits<'a> {
    data: &'a [u8],
    /// Of the next byte.
    at: usize,
    /// The next bits, from the highest.
    held: u64,
    /// How many are held.
    count: u32,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, held: 0, count: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.data.get(self.at) {
                Some(0xff) if self.data.get(self.at + 1) == Some(&0) => {
                    self.at += 2;
                    0xff
                }
                Some(0xff) | None => return, // a marker
                Some(&byte) => {
                    self.at += 1;
                    byte
                }
            };
            self.held |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Bits of the data before the next one, those that were put in behind a 0xff among them.
    pub fn position(&self) -> usize {
        self.at * 8 - self.count as usize
    }

    /// Whether the whole bytes between a position and the present one are zero.
    pub fn are_zero_since(&self, position: usize) -> bool {
        self.data[position.div_ceil(8)..self.position() / 8].iter().all(|&byte| byte == 0)
    }

    /// The next sixteen, zeros behind the last.
    pub fn peek(&mut self) -> u16 {
        if self.count < 16 {
            self.fill();
        }
        (self.held >> 48) as u16
    }

    /// At most sixteen.
    pub fn skip(&mut self, count: u32) -> Result<(), Fault> {
        if self.count < count {
            self.fill();
        }
        if self.count < count {
            return Err(Fault::Ended);
        }
        self.held <<= count;
        self.count -= count;
        Ok(())
    }

    /// At most fifteen, as a number.
    pub fn take(&mut self, count: u32) -> Result<u32, Fault> {
        let value = u32::from(self.peek()) >> (16 - count);
        self.skip(count)?;
        Ok(value)
    }

    /// A difference of so many bits (T.81, F.2.2.1, EXTEND).
    pub fn signed(&mut self, size: u32) -> Result<i64, Fault> {
        let value = i64::from(self.take(size)?);
        Ok(if size > 0 && value < 1 << (size - 1) { value + 1 - (1 << size) } else { value })
    }

    /// Goes on behind the restart marker of a number, which comes next.
    pub fn restart(&mut self, number: usize) -> Result<(), Fault> {
        let at = self.end(0)?;
        if self.data.get(at + 1) != Some(&(0xd0 + number as u8)) {
            return Err(Fault::Restart);
        }
        *self = Self { at: at + 2, held: 0, count: 0, data: self.data };
        Ok(())
    }

    /// Where the next marker is: before it may be as many bytes that are not asked for, and what fills the last byte.
    pub fn end(&mut self, padding: usize) -> Result<usize, Fault> {
        self.fill();
        let rest = &self.data[self.at..];
        let is_marker = |pair: &[u8]| pair[0] == 0xff && pair[1] != 0 && pair[1] != 0xff;
        let passed = rest.windows(2).position(is_marker).ok_or(Fault::Ended)?;
        // Any number of 0xff may stand before a marker.
        let fill = rest[..passed].iter().rev().take_while(|&&byte| byte == 0xff).count();
        if self.count as usize / 8 + passed - fill > padding {
            return Err(Fault::Surplus);
        }
        Ok(self.at + passed)
    }
}
