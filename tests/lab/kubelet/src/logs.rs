//! Container logs, as a CRI runtime writes them: `<time> stdout F <line>`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::Mutex;

/// Bytes after which a log is begun anew; the one before is kept.
const LIMIT: u64 = 8 << 20;
/// Longest line before it is cut into parts, as CRI does.
const LINE: usize = 16 << 10;

/// Where the logs of a pod are.
pub fn directory(state: &Path, namespace: &str, pod: &str, uid: &str) -> PathBuf {
    state.join("logs").join(format!("{namespace}_{pod}_{uid}"))
}

/// The log of one run of a container.
pub fn file(directory: &Path, container: &str, attempt: u32) -> PathBuf {
    directory.join(container).join(format!("{attempt}.log"))
}

fn rotated(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

struct Sink {
    path: PathBuf,
    file: fs::File,
    size: u64,
}

impl Sink {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            size: file.metadata()?.len(),
            file,
        })
    }

    fn line(&mut self, stream: &str, tag: char, text: &[u8]) -> io::Result<()> {
        use io::Write as _;
        if self.size > LIMIT {
            fs::rename(&self.path, rotated(&self.path))?;
            *self = Self::open(&self.path)?;
        }
        let mut line = format!("{:.9} {stream} {tag} ", jiff::Timestamp::now()).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        self.size += line.len() as u64;
        self.file.write_all(&line)
    }
}

/// Copies both outputs of a container into its log until both have ended.
///
/// # Errors
/// When the log cannot be written.
pub async fn copy(
    path: &Path,
    stdout: impl AsyncRead + Unpin + Send,
    stderr: impl AsyncRead + Unpin + Send,
) -> io::Result<()> {
    let sink = Arc::new(Mutex::new(Sink::open(path)?));
    tokio::try_join!(pump(&sink, "stdout", stdout), pump(&sink, "stderr", stderr)).map(|_| ())
}

async fn pump(sink: &Mutex<Sink>, stream: &str, mut from: impl AsyncRead + Unpin + Send) -> io::Result<()> {
    let mut pending = Vec::new();
    let mut buffer = vec![0; LINE];
    loop {
        let count = from.read(&mut buffer).await?;
        pending.extend_from_slice(&buffer[..count]);
        let mut sink = sink.lock().await;
        let mut start = 0;
        while let Some(length) = pending[start..].iter().position(|byte| *byte == b'\n') {
            sink.line(stream, 'F', &pending[start..start + length])?;
            start += length + 1;
        }
        pending.drain(..start);
        if pending.len() >= LINE {
            sink.line(stream, 'P', &pending)?;
            pending.clear();
        }
        if count == 0 {
            return if pending.is_empty() {
                Ok(())
            } else {
                sink.line(stream, 'F', &pending)
            };
        }
    }
}

/// What the container wrote: the lines without the runtime's prefix, the parts of each stream's long lines joined.
pub fn plain(log: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(log.len());
    let mut parts: BTreeMap<&[u8], Vec<u8>> = BTreeMap::new();
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let mut fields = line.splitn(4, |byte| *byte == b' ').skip(1);
        let (Some(stream), Some(tag), Some(text)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let part = parts.entry(stream).or_default();
        part.extend_from_slice(text);
        if tag == b"F" {
            part.push(b'\n');
            out.append(part);
        }
    }
    for mut part in parts.into_values() {
        out.append(&mut part);
    }
    out
}

/// The last `count` lines of a plain text.
pub fn tail(text: &[u8], count: usize) -> &[u8] {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    if count == 0 {
        return &[];
    }
    let breaks = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    breaks
        .skip(count - 1)
        .map(|(at, _)| &text[at + 1..])
        .next()
        .unwrap_or(text)
}

/// Reads a log and what follows it.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Option<fs::File>,
    carry: Vec<u8>,
}

impl Reader {
    /// A reader of the log at `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            carry: Vec::new(),
        }
    }

    /// Everything so far, with what was rotated away.
    ///
    /// # Errors
    /// What the file system says.
    pub fn all(&mut self) -> io::Result<Vec<u8>> {
        let mut text = match fs::read(rotated(&self.path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => plain(&other?),
        };
        text.extend(self.more()?);
        Ok(text)
    }

    /// Whole lines since the last call.
    ///
    /// # Errors
    /// What the file system says.
    pub fn more(&mut self) -> io::Result<Vec<u8>> {
        use std::os::unix::fs::MetadataExt as _;
        let mut new = std::mem::take(&mut self.carry);
        if let Some(file) = &mut self.file {
            io::Read::read_to_end(file, &mut new)?;
        }
        let same = match (fs::metadata(&self.path), &self.file) {
            (Ok(named), Some(open)) => open.metadata()?.ino() == named.ino(),
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => true,
            (Err(error), _) => return Err(error),
            (Ok(_), None) => false,
        };
        if !same {
            let mut file = fs::File::open(&self.path)?;
            io::Read::read_to_end(&mut file, &mut new)?;
            self.file = Some(file);
        }
        let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.carry = new.split_off(whole);
        Ok(plain(&new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test]
    async fn both_streams_are_kept_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "c", 0);
        let long = "x".repeat(LINE + 5);
        let out = format!("one\n{long}\nlast");
        copy(&path, out.as_bytes(), &b"err\n"[..]).await.unwrap();
        let raw = fs::read_to_string(&path).unwrap();
        let first: Vec<&str> = raw.lines().next().unwrap().splitn(4, ' ').collect();
        assert_eq!(first[1..], ["stdout", "F", "one"]);
        assert!(
            first[0].len() == 30 && first[0].parse::<jiff::Timestamp>().is_ok(),
            "{}",
            first[0]
        );
        let mut reader = Reader::new(path);
        let text = String::from_utf8(reader.all().unwrap()).unwrap();
        assert!(text.contains("err\n") && text.contains(&format!("{long}\n")) && text.contains("\nlast\n"));
        assert!(reader.more().unwrap().is_empty());
    }

    #[test]
    fn tails() {
        assert_eq!(tail(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(tail(b"a\nb\nc", 1), b"c");
        assert_eq!(
            (tail(b"a\n", 5), tail(b"a\n", 0), tail(b"", 3)),
            (&b"a\n"[..], &b""[..], &b""[..])
        );
    }

    #[tokio::test]
    async fn size_is_bounded_and_a_follower_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut sink = Sink::open(&path).unwrap();
        let mut reader = Reader::new(path.clone());
        sink.line("stdout", 'F', b"first").unwrap();
        assert_eq!(reader.all().unwrap(), b"first\n");
        sink.line("stdout", 'F', b"second").unwrap();
        sink.size = LIMIT + 1;
        sink.line("stdout", 'F', b"third").unwrap();
        assert_eq!(reader.more().unwrap(), b"second\nthird\n");
        assert!(fs::metadata(&path).unwrap().len() < 100 && rotated(&path).exists());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0usize..5) {
            let text = plain(&bytes);
            prop_assert!(text.ends_with(tail(&text, count)));
        }
    }
}
