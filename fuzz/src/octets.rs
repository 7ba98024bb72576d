//! An input as a stream of small decisions.

/// Reads an input from its front. When it is used up it gives zeros, so that every input means something.
#[derive(Clone, Debug)]
pub struct Octets<'d> {
    rest: &'d [u8],
}

impl<'d> Octets<'d> {
    /// The stream of an input.
    pub fn new(data: &'d [u8]) -> Self {
        Self { rest: data }
    }

    /// Whether the input is used up.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next octet.
    pub fn octet(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// The next two octets as a number.
    pub fn number(&mut self) -> usize {
        usize::from(self.octet()) << 8 | usize::from(self.octet())
    }

    /// Up to `count` octets, as many as there are.
    pub fn take(&mut self, count: usize) -> &'d [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// All the rest.
    pub fn rest(self) -> &'d [u8] {
        self.rest
    }
}
