//! Reading files of lines with bounded memory, whatever they contain.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

use crate::chain::MAX_LINE;

/// One line with its line break into `buffer`, or one byte more than a line may have.
pub(crate) fn next_bounded(reader: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.clear();
    reader.take(MAX_LINE as u64 + 1).read_until(b'\n', buffer)
}

/// A reader of lines.
pub(crate) fn buffered(file: File) -> BufReader<File> {
    BufReader::with_capacity(4 * MAX_LINE, file)
}
