//! Lines of a pipe, bounded. Envoy writes its log on its main thread: it must never wait for who reads it here.

use std::io::{BufRead, BufReader, Read};

use tokio::sync::mpsc;

/// Longer lines lose their end.
const LONGEST: usize = 8 * 1024;

/// Sends each line, without its end, until the pipe ends. What the receiver is too slow for is lost.
pub(super) fn forward(pipe: impl Read, lines: &mpsc::Sender<String>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut pipe).take(LONGEST as u64);
        match bounded.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') && skip_rest(&mut pipe).is_err() {
            return;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            let _ = lines.try_send(text.to_owned());
        }
    }
}

fn skip_rest(pipe: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let rest = pipe.fill_buf()?;
        if rest.is_empty() {
            return Ok(());
        }
        let end = rest.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(rest.len(), |at| at + 1);
        pipe.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_a_slow_reader_holds_nobody_up() {
        let long = "x".repeat(3 * LONGEST);
        let text = format!("one\n\n{long}\ntwo\nthree\nlast");
        let (sender, mut lines) = mpsc::channel(3);
        forward(text.as_bytes(), &sender);
        assert_eq!(lines.try_recv().unwrap(), "one");
        assert_eq!(lines.try_recv().unwrap().len(), LONGEST);
        assert_eq!(lines.try_recv().unwrap(), "two");
        assert!(lines.try_recv().is_err(), "the channel held three");
    }
}
