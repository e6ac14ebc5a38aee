//! Whether a JPEG holds all of its picture.
//!
//! Decoders make up what is missing: where the data of a scan end early, where a part of them was lost on the way or came as zeros, the rest
//! is grey or shifted, and nothing is said. Here every code of every scan is walked through (ITU-T T.81, annexes F.2 and G.2; no
//! coefficient is kept), which shows whether each scan holds exactly its blocks, with its restart markers in their order, and
//! whether the scans together are a whole picture. Damage that leaves as many codes as there were is not seen.

use std::borrow::Cow;

use super::DecodeError;

mod bits;
mod tables;

use bits::{Bits, Fault};
use tables::{Huffman, STANDARD};

/// Bytes that may stand between a picture's last code and its end: some encoders fill up words. Real damage leaves more.
const MOST_PADDING: usize = 16;
/// The furthest that the mean of a block lies from middle grey, in the units of a DC coefficient: 8 * 128. A quantized one may be two
/// steps further.
const FURTHEST_MEAN: i64 = 1024;
/// A block of so many bits that are all zero is none: it stands for data that came as zeros. (Where zeros are the codes of flat
/// blocks, a block has few of them.)
const MOST_ZEROS: usize = 128;

/// Refuses a JPEG that does not hold all of its picture. What is no baseline or progressive JPEG of eight bits is left to its decoder.
pub(super) fn check(data: &[u8]) -> Result<(), DecodeError> {
    let mut picture = Picture::default();
    let mut at = 2; // after the start-of-image marker
    loop {
        let Some(Segment { passed, marker, bytes: segment, next }) = Segment::at(data, at) else {
            return Err(picture.damaged(Fault::Ended));
        };
        if passed > MOST_PADDING {
            return Err(picture.damaged(Fault::Surplus));
        }
        let read = match marker {
            0xc0..=0xc2 => picture.frame(marker == 0xc2, segment),
            // Other processes, which no decoder of ours reads.
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcf => return Ok(()),
            0xc4 => tables::define(segment, &mut picture.huffman),
            0xdb => picture.quantization(segment),
            0xdd => segment.try_into().ok().map(|interval| picture.interval = u16::from_be_bytes(interval).into()),
            0xda => {
                let Some(scan) = picture.scan(segment) else { return Err(picture.damaged(Fault::Header)) };
                picture.scans += 1;
                at = next + picture.walk(&scan, &data[next..]).map_err(|fault| picture.damaged(fault))?;
                continue;
            }
            0xd9 => {
                return if picture.is_whole() { Ok(()) } else { Err(picture.damaged(Fault::Incomplete)) };
            }
            _ => Some(()),
        };
        if read.is_none() {
            return Err(picture.damaged(Fault::Header));
        }
        at = next;
    }
}

/// The JPEG with the standard Huffman tables in front, where it has none: motion JPEG leaves them out, and so do many USB cameras.
pub(super) fn with_standard_tables(data: &[u8]) -> Cow<'_, [u8]> {
    let mut at = 2; // after the start-of-image marker
    while let Some(Segment { marker, next, .. }) = Segment::at(data, at) {
        match marker {
            0xc4 => break,
            0xda => {
                let length = (STANDARD.len() as u16 + 2).to_be_bytes();
                return Cow::Owned([&data[..2], &[0xff, 0xc4], &length, &STANDARD, &data[2..]].concat());
            }
            _ => at = next,
        }
    }
    Cow::Borrowed(data)
}

/// What a marker begins.
struct Segment<'a> {
    /// Bytes before the marker, which belong to none.
    passed: usize,
    marker: u8,
    /// Those that its length counts.
    bytes: &'a [u8],
    /// Where they end.
    next: usize,
}

impl<'a> Segment<'a> {
    /// The first one at or behind a place.
    fn at(data: &'a [u8], at: usize) -> Option<Self> {
        let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff);
        let passed = data.get(at..)?.windows(2).position(is_marker)?;
        let at = at + passed;
        let marker = data[at + 1];
        if matches!(marker, 0x01 | 0xd0..=0xd9) {
            return Some(Self { passed, marker, bytes: &[], next: at + 2 }); // stands alone
        }
        let length = usize::from(u16::from_be_bytes(data.get(at + 2..at + 4)?.try_into().ok()?));
        let next = at + 2 + length;
        Some(Self { passed, marker, bytes: data.get(at + 4..next)?, next })
    }
}

/// What a picture's headers said so far, and which of its coefficients came.
#[derive(Default)]
struct Picture {
    is_progressive: bool,
    /// Columns and rows of units: what holds one block of each component, or as many as its sampling says.
    units: [usize; 2],
    components: Vec<Component>,
    /// Of DC and AC, four each.
    huffman: [[Option<Huffman>; 4]; 2],
    /// The steps of DC coefficients.
    steps: [Option<u16>; 4],
    /// Units between restart markers; 0 without them.
    interval: usize,
    scans: usize,
}

struct Component {
    id: u8,
    sampling: [usize; 2],
    /// Columns and rows of blocks that hold pixels; units may have more.
    blocks: [usize; 2],
    /// Index into [`Picture::steps`].
    steps: usize,
    /// Of each coefficient, how many low bits are still to come.
    missing: [Option<u8>; 64],
    /// Of a progressive picture's blocks, row by row of whole units: which coefficients are not zero.
    nonzero: Vec<u64>,
}

/// One scan: its components (index, table of DC, table of AC), its band of coefficients, and its bits.
struct Scan {
    components: Vec<(usize, usize, usize)>,
    band: [usize; 2],
    high: u8,
    low: u8,
}

impl Picture {
    fn damaged(&self, fault: Fault) -> DecodeError {
        DecodeError::Damaged { scan: self.scans, fault: fault.to_string() }
    }

    fn frame(&mut self, is_progressive: bool, segment: &[u8]) -> Option<()> {
        let (&[8, h0, h1, w0, w1, count], rest) = segment.split_first_chunk()? else { return None };
        let (width, height) = (usize::from(u16::from_be_bytes([w0, w1])), usize::from(u16::from_be_bytes([h0, h1])));
        let (components, []) = rest.as_chunks::<3>() else { return None };
        let sampling = |byte: u8| [usize::from(byte >> 4), usize::from(byte & 15)];
        let most = components.iter().map(|c| sampling(c[1])).fold([0; 2], |a, b| [a[0].max(b[0]), a[1].max(b[1])]);
        let is_plausible = components.iter().all(|c| sampling(c[1]).iter().all(|s| (1..=4).contains(s)) && c[2] < 4);
        if components.len() != usize::from(count) || !is_plausible || !self.components.is_empty() || width * height == 0
        {
            return None;
        }
        // zune-jpeg 0.5 has too little room to enlarge others than the first to, and panics.
        if sampling(components.first()?[1]) != most {
            return None;
        }
        self.is_progressive = is_progressive;
        self.units = [width.div_ceil(8 * most[0]), height.div_ceil(8 * most[1])];
        for &[id, factors, steps] in components {
            let sampling = sampling(factors);
            let blocks = [(width * sampling[0]).div_ceil(most[0] * 8), (height * sampling[1]).div_ceil(most[1] * 8)];
            let padded = self.units[0] * sampling[0] * self.units[1] * sampling[1];
            let nonzero = vec![0; if is_progressive { padded } else { 0 }];
            self.components.push(Component { id, sampling, blocks, steps: steps.into(), missing: [None; 64], nonzero });
        }
        Some(())
    }

    fn quantization(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = segment.split_first() {
            let (is_wide, table) = (head >> 4 != 0, usize::from(head & 15));
            let (first, width) = if is_wide {
                (u16::from_be_bytes([*rest.first()?, *rest.get(1)?]), 128)
            } else {
                ((*rest.first()?).into(), 64)
            };
            *self.steps.get_mut(table)? = Some(first);
            segment = rest.get(width..)?;
        }
        Some(())
    }

    fn scan(&self, segment: &[u8]) -> Option<Scan> {
        let (&count, rest) = segment.split_first()?;
        let (components, &[start, end, bits]) = rest.split_at_checked(2 * usize::from(count))? else { return None };
        let components = components.as_chunks::<2>().0.iter().map(|&[id, tables]| {
            let index = self.components.iter().position(|c| c.id == id)?;
            Some((index, usize::from(tables >> 4), usize::from(tables & 15)))
        });
        let components = components.collect::<Option<Vec<_>>>()?;
        let (band, high, low) = ([usize::from(start), usize::from(end)], bits >> 4, bits & 15);
        let is_plausible = if self.is_progressive {
            let is_band = if start == 0 { end == 0 } else { (start..64).contains(&end) && count == 1 };
            is_band && low < 14 && (high == 0 || high == low + 1)
        } else {
            band == [0, 63] && bits == 0
        };
        let blocks: usize =
            components.iter().map(|&(i, ..)| self.components[i].sampling.iter().product::<usize>()).sum();
        ((1..=4).contains(&count) && is_plausible && (count == 1 || blocks <= 10)).then_some(Scan {
            components,
            band,
            high,
            low,
        })
    }

    /// Goes through a scan, which begins where the data do. Returns where it ends.
    fn walk(&mut self, scan: &Scan, data: &[u8]) -> Result<usize, Fault> {
        self.begin(scan)?;
        let mut bits = Bits::new(data);
        // A lone component has its blocks in rows of its own.
        let lone = if let [(index, ..)] = scan.components[..] { Some(index) } else { None };
        let [columns, rows] = lone.map_or(self.units, |index| self.components[index].blocks);
        let (mut means, mut run) = ([0i64; 4], 0u32);
        for unit in 0..columns * rows {
            if self.interval > 0 && unit > 0 && unit % self.interval == 0 {
                bits.restart((unit / self.interval - 1) % 8)?;
                (means, run) = ([0; 4], if run == 0 { 0 } else { return Err(Fault::Surplus) });
            }
            let (column, row) = (unit % columns, unit / columns);
            for (mean, &(index, dc, ac)) in means.iter_mut().zip(&scan.components) {
                let sampling = if lone.is_some() { [1; 2] } else { self.components[index].sampling };
                for block in 0..sampling[0] * sampling[1] {
                    let at = [column * sampling[0] + block % sampling[0], row * sampling[1] + block / sampling[0]];
                    let begin = bits.position();
                    self.block(scan, (index, dc, ac), at, &mut bits, mean, &mut run)?;
                    if bits.position() - begin >= MOST_ZEROS && bits.are_zero_since(begin) {
                        return Err(Fault::Zeros);
                    }
                }
            }
        }
        if run > 0 { Err(Fault::Surplus) } else { bits.end(MOST_PADDING) }
    }

    /// Notes which coefficients the scan brings, and refuses what was there already or cannot come yet.
    fn begin(&mut self, scan: &Scan) -> Result<(), Fault> {
        for &(index, ..) in &scan.components {
            for missing in &mut self.components[index].missing[scan.band[0]..=scan.band[1]] {
                if *missing != (scan.high > 0).then_some(scan.high) {
                    return Err(Fault::Order);
                }
                *missing = Some(scan.low);
            }
        }
        Ok(())
    }

    fn block(
        &mut self,
        scan: &Scan,
        (index, dc, ac): (usize, usize, usize),
        [column, row]: [usize; 2],
        bits: &mut Bits<'_>,
        mean: &mut i64,
        run: &mut u32,
    ) -> Result<(), Fault> {
        let component = &mut self.components[index];
        let table = |kind: usize, table: usize| {
            self.huffman[kind].get(table).and_then(Option::as_ref).ok_or(Fault::NoTable { is_ac: kind == 1, table })
        };
        if scan.band[0] == 0 {
            if scan.high > 0 {
                return bits.skip(1);
            }
            let size = table(0, dc)?.decode(bits)?;
            if size > 11 {
                return Err(Fault::Code);
            }
            *mean += bits.signed(size)?;
            let step = i64::from(self.steps[component.steps].ok_or(Fault::Header)?);
            if ((*mean << scan.low) * step).abs() > FURTHEST_MEAN + 2 * step {
                return Err(Fault::Range);
            }
        }
        if !self.is_progressive {
            return sequential(table(1, ac)?, bits);
        }
        if scan.band[0] == 0 {
            return Ok(());
        }
        let width = self.units[0] * component.sampling[0];
        let nonzero = &mut component.nonzero[row * width + column];
        if scan.high == 0 {
            first(table(1, ac)?, scan.band, bits, nonzero, run)
        } else {
            refined(table(1, ac)?, scan.band, bits, nonzero, run)
        }
    }

    /// Whether every component came, and whatever was begun came to its last bit.
    fn is_whole(&self) -> bool {
        let came = |c: &Component| c.missing[0].is_some() && c.missing.iter().flatten().all(|&missing| missing == 0);
        !self.components.is_empty() && self.components.iter().all(came)
    }
}

/// The AC coefficients of a block in one piece (F.2.2.2).
fn sequential(table: &Huffman, bits: &mut Bits<'_>) -> Result<(), Fault> {
    let mut k = 1;
    while k < 64 {
        let (zeros, size) = table.pair(bits)?;
        if size == 0 {
            if zeros != 15 {
                return Ok(());
            }
            k += 16;
            continue;
        }
        k += zeros + 1;
        if k > 64 {
            return Err(Fault::Code);
        }
        bits.skip(size)?;
    }
    if k == 64 { Ok(()) } else { Err(Fault::Code) }
}

/// The high bits of a band of coefficients (G.1.2.2).
fn first(
    table: &Huffman,
    [start, end]: [usize; 2],
    bits: &mut Bits<'_>,
    nonzero: &mut u64,
    run: &mut u32,
) -> Result<(), Fault> {
    if *run > 0 {
        *run -= 1;
        return Ok(());
    }
    let mut k = start;
    while k <= end {
        let (zeros, size) = table.pair(bits)?;
        if size == 0 {
            if zeros < 15 {
                *run = (1 << zeros) - 1 + bits.take(zeros as u32)?;
                return Ok(());
            }
            k += 16;
            continue;
        }
        k += zeros;
        if k > end {
            return Err(Fault::Code);
        }
        *nonzero |= 1 << k;
        bits.skip(size)?;
        k += 1;
    }
    Ok(())
}

/// One more bit of a band of coefficients (G.1.2.3).
fn refined(
    table: &Huffman,
    [start, end]: [usize; 2],
    bits: &mut Bits<'_>,
    nonzero: &mut u64,
    run: &mut u32,
) -> Result<(), Fault> {
    let mut k = start;
    while *run == 0 && k <= end {
        let (mut zeros, size) = table.pair(bits)?;
        match size {
            0 if zeros < 15 => {
                *run = (1 << zeros) + bits.take(zeros as u32)?;
                break;
            }
            0 => {}
            1 => bits.skip(1)?,
            _ => return Err(Fault::Code),
        }
        // Past so many that are zero so far; of the others on the way, one bit each.
        while k <= end {
            if *nonzero >> k & 1 == 1 {
                bits.skip(1)?;
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            k += 1;
        }
        if size == 1 {
            if k > end {
                return Err(Fault::Code);
            }
            *nonzero |= 1 << k;
        }
        k += 1;
    }
    if *run > 0 {
        for k in k..=end {
            bits.skip((*nonzero >> k & 1) as u32)?;
        }
        *run -= 1;
    }
    Ok(())
}
