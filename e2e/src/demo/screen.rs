//! Where the demo writes: a terminal, on which each table replaces the one before, or anything
//! else, to which all go one after the other. Called by `demo`; the text is its caller's.

use std::io::{self, IsTerminal as _, Write};

/// The standard output.
#[derive(Debug)]
pub(super) struct Screen<W> {
    out: W,
    redraws: bool,
    /// Lines that the next frame replaces.
    drawn: usize,
}

impl Screen<io::Stdout> {
    /// Redraws on a terminal, unless `plain`.
    pub(super) fn stdout(plain: bool) -> Self {
        let out = io::stdout();
        let redraws = !plain && out.is_terminal();
        Self::new(out, redraws)
    }
}

impl<W: Write> Screen<W> {
    fn new(out: W, redraws: bool) -> Self {
        Self {
            out,
            redraws,
            drawn: 0,
        }
    }

    /// Writes text that stays. Like all lines here, its own end with a newline.
    pub(super) fn print(&mut self, text: &str) -> io::Result<()> {
        self.drawn = 0;
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Writes a frame in place of the last one.
    pub(super) fn draw(&mut self, text: &str) -> io::Result<()> {
        if !self.redraws {
            return self.print(text);
        }
        if self.drawn > 0 {
            // Up to the first line of the last frame, and clear from there.
            write!(self.out, "\x1b[{}F\x1b[J", self.drawn)?;
        }
        // Long lines are cut rather than wrapped, for a line is what is counted.
        write!(self.out, "\x1b[?7l{text}\x1b[?7h")?;
        self.out.flush()?;
        self.drawn = text.lines().count();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(redraws: bool) -> String {
        let mut screen = Screen::new(Vec::new(), redraws);
        screen.print("title\n").unwrap();
        screen.draw("a\nb\n").unwrap();
        screen.draw("c\n").unwrap();
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn a_terminal_shows_the_last_frame() {
        assert_eq!(
            written(true),
            "title\n\x1b[?7la\nb\n\x1b[?7h\x1b[2F\x1b[J\x1b[?7lc\n\x1b[?7h"
        );
    }

    #[test]
    fn a_file_has_all_frames() {
        assert_eq!(written(false), "title\na\nb\nc\n");
    }
}
