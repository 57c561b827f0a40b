//! The header: magic, version, and a Python dictionary with type, order and shape.

use std::io::Read;
use std::path::Path;

use super::NpyError;

/// The maximum header length accepted. NumPy itself rejects more than 10 000 characters.
const MAX_HEADER: usize = 1 << 16;

/// The maximum number of axes of a NumPy array.
pub(super) const MAX_AXES: usize = 64;

/// Supported element types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F16,
    F32,
    F64,
    U8,
}

impl Element {
    fn parse(dtype: &str) -> Option<Self> {
        Some(match dtype {
            "<f2" => Self::F16,
            "<f4" => Self::F32,
            "<f8" => Self::F64,
            // A single byte has no byte order, but some writers specify one.
            "|u1" | "<u1" => Self::U8,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::U8 => "uint8",
        }
    }

    /// Size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::U8 => 1,
        }
    }

    /// Appends the elements in `bytes` to `out`.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Self::F16 => out.extend(
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| half::f16::from_le_bytes(*b).to_f32()),
            ),
            Self::F32 => out.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            Self::F64 => out.extend(
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| f64::from_le_bytes(*b) as f32),
            ),
            Self::U8 => out.extend(bytes.iter().map(|&b| f32::from(b))),
        }
    }
}

/// The array description in the header.
#[derive(Debug)]
pub(super) struct Header {
    pub element: Element,
    pub fortran: bool,
    pub shape: Vec<usize>,
    /// Offset of the first element in bytes.
    pub length: u64,
}

impl Header {
    pub fn read(file: &mut impl Read, path: &Path) -> Result<Self, NpyError> {
        let not_an_array = |what: String| NpyError::NotAnArray {
            path: path.to_owned(),
            what,
        };
        let fill = |file: &mut dyn Read, bytes: &mut [u8]| {
            file.read_exact(bytes).map_err(|source| {
                if source.kind() == std::io::ErrorKind::UnexpectedEof {
                    not_an_array("the file ends inside the header".to_owned())
                } else {
                    let path = path.to_owned();
                    NpyError::Io { path, source }
                }
            })
        };
        let mut magic = [0u8; 8];
        fill(file, &mut magic)?;
        if !magic.starts_with(b"\x93NUMPY") {
            let what = if magic.starts_with(b"PK\x03\x04") {
                "it looks like a ZIP archive, perhaps .npz; save a single array with numpy.save"
            } else {
                "it does not start with \\x93NUMPY; save it with numpy.save"
            };
            return Err(not_an_array(what.to_owned()));
        }
        let (version, text_len) = match magic[6] {
            1 => {
                let mut bytes = [0u8; 2];
                fill(file, &mut bytes)?;
                (1, u32::from(u16::from_le_bytes(bytes)))
            }
            version @ (2 | 3) => {
                let mut bytes = [0u8; 4];
                fill(file, &mut bytes)?;
                (version, u32::from_le_bytes(bytes))
            }
            version => return Err(not_an_array(format!("version {version} is not supported"))),
        };
        if text_len as usize > MAX_HEADER {
            return Err(not_an_array(format!(
                "its header claims {text_len} bytes, over the limit of {MAX_HEADER}"
            )));
        }
        let mut text = vec![0u8; text_len as usize];
        fill(file, &mut text)?;
        // Versions 1 and 2 are Latin-1, version 3 is UTF-8; the keys are ASCII in all of them.
        let text = String::from_utf8_lossy(&text);
        let fields = Fields::parse(&text)
            .map_err(|what| not_an_array(format!("bad header: {what} in {:?}", shorten(&text))))?;
        let Some(element) = Element::parse(&fields.dtype) else {
            return Err(NpyError::UnsupportedType {
                path: path.to_owned(),
                dtype: fields.dtype,
                shape: fields.shape,
            });
        };
        Ok(Self {
            element,
            fortran: fields.fortran,
            shape: fields.shape,
            length: 8 + if version == 1 { 2 } else { 4 } + u64::from(text_len),
        })
    }
}

/// Returns at most the first 120 characters, for error messages.
fn shorten(text: &str) -> String {
    text.trim_end().chars().take(120).collect()
}

/// The entries of the header's dictionary.
#[derive(Debug, PartialEq)]
struct Fields {
    dtype: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Fields {
    /// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, with the keys in any
    /// order.
    fn parse(text: &str) -> Result<Self, String> {
        let mut rest = Cursor(text.trim());
        let (mut dtype, mut fortran, mut shape) = (None, None, None);
        rest.expect('{')?;
        while !rest.accept('}') {
            let key = rest.string()?;
            rest.expect(':')?;
            let again = match key {
                "descr" => dtype.replace(rest.dtype()?.to_owned()).is_some(),
                "fortran_order" => fortran.replace(rest.boolean()?).is_some(),
                "shape" => shape.replace(rest.tuple()?).is_some(),
                other => return Err(format!("unknown key {:?}", shorten(other))),
            };
            if again {
                return Err(format!("duplicate key {key:?}"));
            }
            if !rest.accept(',') {
                rest.expect('}')?;
                break;
            }
        }
        if !rest.0.is_empty() {
            return Err("text after the dictionary".to_owned());
        }
        Ok(Self {
            dtype: dtype.ok_or("key 'descr' is missing")?,
            fortran: fortran.ok_or("key 'fortran_order' is missing")?,
            shape: shape.ok_or("key 'shape' is missing")?,
        })
    }
}

/// The unparsed rest of the text, without leading whitespace.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn accept(&mut self, c: char) -> bool {
        match self.0.strip_prefix(c) {
            Some(rest) => {
                self.0 = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.accept(c) {
            Ok(())
        } else {
            Err(format!("expected {c:?} before {:?}", shorten(self.0)))
        }
    }

    /// Takes the longest prefix whose characters all satisfy `keep`.
    fn span(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !keep(c)).unwrap_or(self.0.len());
        let (span, rest) = self.0.split_at(end);
        self.0 = rest.trim_start();
        span
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.accept('"') {
            '"'
        } else {
            self.expect('\'')?;
            '\''
        };
        let string = self.span(|c| c != quote);
        self.expect(quote)?;
        Ok(string)
    }

    /// Parses the element type. The field list of a structured type is returned as text.
    fn dtype(&mut self) -> Result<&'a str, String> {
        if self.0.starts_with('[') {
            let list = self.span(|c| c != ']');
            self.expect(']')?;
            return Ok(list);
        }
        self.string()
    }

    fn boolean(&mut self) -> Result<bool, String> {
        match self.span(|c| c.is_ascii_alphabetic()) {
            "True" => Ok(true),
            "False" => Ok(false),
            other => Err(format!("expected True or False, found {other:?}")),
        }
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        self.expect('(')?;
        let mut shape = Vec::new();
        while !self.accept(')') {
            let digits = self.span(|c| c.is_ascii_digit());
            let len = digits
                .parse()
                .map_err(|_| format!("expected a length before {:?}", shorten(self.0)))?;
            // Python 2 wrote long integers with a trailing L.
            self.accept('L');
            shape.push(len);
            if shape.len() > MAX_AXES {
                return Err(format!("more than {MAX_AXES} axes"));
            }
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(shape)
    }
}

/// The header of a C-order array with elements of type `descr`, such as `<f4`, and at most
/// [`MAX_AXES`] axes. It is padded so that the elements start at a multiple of 64 bytes.
pub(super) fn of(descr: &str, shape: &[usize]) -> Vec<u8> {
    let lengths: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A tuple with one element needs a trailing comma.
    let comma = if shape.len() == 1 { "," } else { "" };
    let lengths = lengths.join(", ");
    let text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({lengths}{comma}), }}");
    let mut header = b"\x93NUMPY\x01\x00\0\0".to_vec();
    header.extend(text.as_bytes());
    let whole = (header.len() + 1).next_multiple_of(64);
    header.resize(whole - 1, b' ');
    header.push(b'\n');
    // Version 1.0 allows 65535 bytes; 64 axes need less than 2000.
    let counted = (whole - 10) as u16;
    header[8..10].copy_from_slice(&counted.to_le_bytes());
    header
}

#[cfg(test)]
mod tests;
