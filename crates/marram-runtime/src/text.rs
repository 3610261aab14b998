//! The program's own code in memory, most of which a node that rests does not need.
//!
//! A start runs once through code all over the program. The kernel maps sixteen pages around each page that is touched, and
//! goes on counting them as the process's, and as lately used. Given back, what is needed again is mapped again from the page
//! cache, a few microseconds for each of those pieces, and the kernel may drop the rest when memory is short (docs/adr/0023).

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Error, Result};

use rustix::mm::{Advice, madvise};

/// Unmaps the program's code. Returns how many bytes of address space that covers; 0 if it is not mapped as a file.
///
/// Reads `/proc/self/maps` as far as it has to: those of the guests' memories come later, thousands of them. An error means that
/// nothing was unmapped, and harms nothing.
pub fn unmap_text() -> Result<usize> {
    let program = fs::read_link("/proc/self/exe")?;
    let program = program.to_str().ok_or_else(|| Error::other("the program's path is not text"))?;
    for line in BufReader::new(File::open("/proc/self/maps")?).lines() {
        if let Some((begin, end)) = text_of(&line?, program) {
            unmap(begin, end - begin)?;
            return Ok(end - begin);
        }
    }
    Ok(0)
}

/// The addresses of a mapping (proc_pid_maps(5)) if it is code of the program: its file, private, never written.
fn text_of(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.splitn(6, ' ');
    let (begin, end) = fields.next()?.split_once('-')?;
    (fields.next()? == "r-xp" && fields.nth(3)?.trim_start() == program).then_some(())?;
    Some((usize::from_str_radix(begin, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[allow(unsafe_code, reason = "the mapping is of a file, and what is read from it again is what was there")]
fn unmap(begin: usize, length: usize) -> Result<()> {
    // SAFETY: the range is one mapping of the program's file, private, executable and not writable, so that no page of it
    // differs from the file: whatever is touched next is read from there again. A running program's file cannot be written
    // to (ETXTBSY), and one that is replaced by an upgrade stays until nobody has it mapped.
    unsafe { madvise(std::ptr::with_exposed_provenance_mut(begin), length, Advice::LinuxDontNeed) }?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_counts() {
        let line = |permissions: &str, path: &str| format!("1000-3000 {permissions} 00001000 fe:00 17         {path}");
        assert_eq!(text_of(&line("r-xp", "/bin/node"), "/bin/node"), Some((0x1000, 0x3000)));
        assert_eq!(text_of(&line("r--p", "/bin/node"), "/bin/node"), None);
        assert_eq!(text_of(&line("rwxp", "/bin/node"), "/bin/node"), None);
        assert_eq!(text_of(&line("r-xp", "/lib/libc.so"), "/bin/node"), None);
        assert_eq!(text_of(&line("r-xp", "/a folder/node"), "/a folder/node"), Some((0x1000, 0x3000)));
        assert_eq!(text_of("1000-3000 r-xp 00000000 00:00 0", "/bin/node"), None);
    }

    /// KiB of the program's code that are mapped.
    fn resident() -> usize {
        let program = fs::read_link("/proc/self/exe").unwrap();
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines().skip_while(|line| text_of(line, program.to_str().unwrap()).is_none());
        let rss = lines.find(|line| line.starts_with("Rss:")).unwrap();
        rss.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn the_program_goes_on_with_less_of_it_mapped() {
        let less = |_| {
            let before = resident();
            assert!(unmap_text().unwrap() > 0);
            resident() < before
        };
        // Other tests run beside this one, and may map as much meanwhile.
        assert!((0..100).any(less));
    }
}
