//! SPDY/3.1 frames: reading and writing, without any state but that of the header compression.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, DecompressError, FlushCompress, FlushDecompress, Status};
use tokio_util::codec::{Decoder, Encoder};

use super::dictionary::DICTIONARY;

/// Larger frames end the session; SPDY allows 16 MiB, nobody sends them.
const MOST_FRAME: usize = 1 << 20;
/// Larger header blocks (uncompressed) end the session.
const MOST_HEADERS: usize = 64 * 1024;

/// `FIN`: the sender sends no more on this stream.
pub(super) const FIN: u8 = 1;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Opens a stream.
    SynStream {
        stream: u32,
        fin: bool,
        headers: Vec<(String, String)>,
    },
    /// Accepts a stream.
    SynReply { stream: u32 },
    /// Ends a stream at once.
    Reset { stream: u32, status: u32 },
    /// Asked and answered with the same number.
    Ping(u32),
    /// No more streams.
    GoAway { last: u32 },
    /// More may be sent. Read, but not kept count of: see [`super::spdy`].
    WindowUpdate { stream: u32, delta: u32 },
    /// Bytes of a stream.
    Data { stream: u32, fin: bool, bytes: Bytes },
    /// Anything else, skipped.
    Other(u16),
}

/// Reads and writes frames; header blocks of a connection are one compressed stream in each direction.
pub(super) struct Codec {
    inflate: Decompress,
    deflate: Compress,
}

fn broken(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Codec {
    pub(super) fn new() -> io::Result<Self> {
        let mut deflate = Compress::new(Compression::default(), true);
        deflate.set_dictionary(&DICTIONARY).map_err(broken)?;
        Ok(Self {
            inflate: Decompress::new(true),
            deflate,
        })
    }

    fn inflate(&mut self, mut input: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(1024);
        loop {
            let before = (self.inflate.total_in(), self.inflate.total_out());
            let result = self
                .inflate
                .decompress_vec(input, &mut out, FlushDecompress::Sync);
            let read = usize::try_from(self.inflate.total_in() - before.0).map_err(broken)?;
            input = input.get(read..).unwrap_or_default();
            let moved = (self.inflate.total_in(), self.inflate.total_out()) != before;
            match result {
                Ok(Status::StreamEnd) => return Ok(out),
                Ok(_) if out.len() == out.capacity() => out.reserve(1024),
                Ok(_) if input.is_empty() => return Ok(out),
                Ok(_) if moved => {}
                Ok(_) => return Err(broken("headers do not decompress")),
                Err(error) => self.dictionary(&error)?,
            }
            if out.len() > MOST_HEADERS {
                return Err(broken("headers are too large"));
            }
        }
    }

    /// The first block asks for the dictionary.
    fn dictionary(&mut self, error: &DecompressError) -> io::Result<()> {
        if error.needs_dictionary().is_none() {
            return Err(broken(error.to_string()));
        }
        self.inflate.set_dictionary(&DICTIONARY).map(drop).map_err(broken)
    }
}

/// Reads a name-value block.
fn pairs(mut block: &[u8]) -> io::Result<Vec<(String, String)>> {
    let number = |block: &mut &[u8]| {
        block
            .try_get_u32()
            .map_err(|_| broken("header block is cut short"))
    };
    let count = number(&mut block)?;
    let word = |block: &mut &[u8]| -> io::Result<String> {
        let length = usize::try_from(number(block)?).map_err(broken)?;
        let text = block
            .split_off(..length)
            .ok_or_else(|| broken("header block is cut short"))?;
        Ok(String::from_utf8_lossy(text).into_owned())
    };
    let mut out = Vec::new();
    for _ in 0..count {
        let name = word(&mut block)?.to_ascii_lowercase();
        out.push((name, word(&mut block)?));
    }
    Ok(out)
}

impl Decoder for Codec {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, input: &mut BytesMut) -> io::Result<Option<Frame>> {
        let Some(mut head) = input.get(..8) else {
            return Ok(None);
        };
        let first = head.get_u32();
        let second = head.get_u32();
        let flags = u8::try_from(second >> 24).unwrap_or(0);
        let length = usize::try_from(second & 0x00ff_ffff).map_err(broken)?;
        if length > MOST_FRAME {
            return Err(broken("frame is too large"));
        }
        if input.len() < 8 + length {
            input.reserve(8 + length - input.len());
            return Ok(None);
        }
        input.advance(8);
        let body = input.split_to(length).freeze();
        let fin = flags & FIN != 0;
        if first >> 31 == 0 {
            return Ok(Some(Frame::Data {
                stream: first,
                fin,
                bytes: body,
            }));
        }
        if (first >> 16) & 0x7fff != 3 {
            return Err(broken("not SPDY/3"));
        }
        let kind = u16::try_from(first & 0xffff).unwrap_or(0);
        self.control(kind, fin, body).map(Some)
    }
}

impl Codec {
    fn control(&mut self, kind: u16, fin: bool, mut body: Bytes) -> io::Result<Frame> {
        let cut = |_| broken("frame is cut short");
        let mut number = || body.try_get_u32().map_err(cut);
        Ok(match kind {
            1 => {
                let stream = number()? & 0x7fff_ffff;
                number()?;
                // Priority and slot.
                body.try_get_u16().map_err(cut)?;
                let headers = pairs(&self.inflate(&body)?)?;
                Frame::SynStream { stream, fin, headers }
            }
            3 => Frame::Reset {
                stream: number()? & 0x7fff_ffff,
                status: number()?,
            },
            6 => Frame::Ping(number()?),
            7 => Frame::GoAway {
                last: number()? & 0x7fff_ffff,
            },
            8 => {
                // Headers are not used, but keep the decompression in step.
                number()?;
                self.inflate(&body)?;
                Frame::Other(kind)
            }
            9 => Frame::WindowUpdate {
                stream: number()? & 0x7fff_ffff,
                delta: number()? & 0x7fff_ffff,
            },
            2 => {
                let stream = number()? & 0x7fff_ffff;
                self.inflate(&body)?;
                Frame::SynReply { stream }
            }
            other => Frame::Other(other),
        })
    }

    /// A header block without any header.
    fn empty_block(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(64);
        self.deflate
            .compress_vec(&0_u32.to_be_bytes(), &mut out, FlushCompress::Sync)
            .map_err(broken)?;
        Ok(out)
    }
}

fn head(kind: u16, flags: u8, length: usize, out: &mut BytesMut) -> io::Result<()> {
    out.put_u16(0x8003);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | u32::try_from(length).map_err(broken)?);
    Ok(())
}

impl Encoder<Frame> for Codec {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> io::Result<()> {
        match frame {
            Frame::SynReply { stream } => {
                let block = self.empty_block()?;
                head(2, 0, 4 + block.len(), out)?;
                out.put_u32(stream);
                out.put_slice(&block);
            }
            Frame::Reset { stream, status } => {
                head(3, 0, 8, out)?;
                out.put_u32(stream);
                out.put_u32(status);
            }
            Frame::Ping(number) => {
                head(6, 0, 4, out)?;
                out.put_u32(number);
            }
            Frame::GoAway { last } => {
                head(7, 0, 8, out)?;
                out.put_u32(last);
                out.put_u32(0);
            }
            Frame::WindowUpdate { stream, delta } => {
                head(9, 0, 8, out)?;
                out.put_u32(stream);
                out.put_u32(delta);
            }
            Frame::Data { stream, fin, bytes } => {
                out.put_u32(stream);
                out.put_u32(
                    u32::from(if fin { FIN } else { 0 }) << 24
                        | u32::try_from(bytes.len()).map_err(broken)?,
                );
                out.put_slice(&bytes);
            }
            Frame::SynStream { stream, fin, headers } => {
                let mut plain = Vec::new();
                plain.put_u32(u32::try_from(headers.len()).map_err(broken)?);
                for word in headers.iter().flat_map(|(name, value)| [name, value]) {
                    plain.put_u32(u32::try_from(word.len()).map_err(broken)?);
                    plain.put_slice(word.as_bytes());
                }
                let mut block = Vec::with_capacity(plain.len() + 128);
                self.deflate
                    .compress_vec(&plain, &mut block, FlushCompress::Sync)
                    .map_err(broken)?;
                head(1, if fin { FIN } else { 0 }, 10 + block.len(), out)?;
                out.put_u32(stream);
                out.put_u32(0);
                out.put_u16(0);
                out.put_slice(&block);
            }
            Frame::Other(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(frames: &[Frame]) -> Vec<Frame> {
        let (mut writer, mut reader) = (Codec::new().unwrap(), Codec::new().unwrap());
        let mut wire = BytesMut::new();
        for frame in frames {
            writer.encode(frame.clone(), &mut wire).unwrap();
        }
        std::iter::from_fn(|| reader.decode(&mut wire).unwrap()).collect()
    }

    #[test]
    fn frames_survive_the_wire_with_shared_header_compression() {
        let headers = |kind: &str| {
            vec![
                ("streamtype".to_owned(), kind.to_owned()),
                ("port".into(), "80".into()),
            ]
        };
        let frames = [
            Frame::SynStream {
                stream: 1,
                fin: true,
                headers: headers("error"),
            },
            Frame::SynStream {
                stream: 3,
                fin: false,
                headers: headers("data"),
            },
            Frame::SynReply { stream: 1 },
            Frame::Data {
                stream: 3,
                fin: false,
                bytes: Bytes::from_static(b"hello"),
            },
            Frame::Ping(7),
            Frame::WindowUpdate { stream: 3, delta: 5 },
            Frame::Reset { stream: 3, status: 5 },
            Frame::GoAway { last: 3 },
        ];
        assert_eq!(there_and_back(&frames), frames);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut wire = BytesMut::from(&bytes[..]);
            let mut codec = Codec::new().unwrap();
            while let Ok(Some(_)) = codec.decode(&mut wire) {}
        }

        #[test]
        fn never_panics_on_control_frames(kind in 1_u16..10, body in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let mut wire = BytesMut::new();
            head(kind, 0, body.len(), &mut wire).unwrap();
            wire.put_slice(&body);
            let mut codec = Codec::new().unwrap();
            while let Ok(Some(_)) = codec.decode(&mut wire) {}
        }
    }
}
