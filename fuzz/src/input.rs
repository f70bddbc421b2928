//! Choices made of the fuzzer's bytes, from the front to the back. Where the bytes have ended every choice is
//! 0.

/// Bytes not yet used.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// The next `len` bytes, or as many as there are.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A number below `bound`, of two bytes; of one if `bound` is 256 at most.
    pub fn below(&mut self, bound: usize) -> usize {
        match bound {
            0 => 0,
            1..=256 => usize::from(self.u8()) % bound,
            _ => usize::from(self.u16()) % bound,
        }
    }

    /// A place in something of `len` bytes, of two bytes, or of three if `len` is beyond them.
    pub fn place(&mut self, len: usize) -> usize {
        let [low, middle] = self.array();
        let high = if len > 1 << 16 { self.u8() } else { 0 };
        u32::from_le_bytes([low, middle, high, 0]) as usize % len.max(1)
    }
}

/// Writes what [`Input`] reads, for seeds.
#[derive(Debug, Clone, Default)]
pub struct Output(pub Vec<u8>);

impl Output {
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}
